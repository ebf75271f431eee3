"""Train one run, or with -m a plain Hydra multirun of single runs, into the same store as every sweep.

    python scripts/train.py parameters=1e4 tokens=1e6
    python scripts/train.py -m parameters=1e4,4e4 tokens=5e5,2e6

Every key=value is a Hydra override of conf/train.yaml. A run that is finished is skipped, one that was stopped resumes.
"""

import sys

import hydra
from omegaconf import DictConfig, open_dict

from sweep.cli import BAD_INPUT, launch
from sweep.config import NamedRun, conf_directory, from_omegaconf
from sweep.errors import InputError


@hydra.main(config_path=str(conf_directory()), config_name="train", version_base="1.3")
def main(composed: DictConfig) -> None:
    with open_dict(composed):
        named = NamedRun(N=float(composed.pop("parameters")), D=float(composed.pop("tokens")))
    try:
        config = from_omegaconf(composed)
        config.grid.runs = [named]
        code = launch(config)
    except InputError as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
