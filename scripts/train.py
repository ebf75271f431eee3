"""Train one run, or with -m a plain Hydra multirun of single runs, into the same store as every sweep.

    python scripts/train.py parameters=1e4 tokens=1e6
    python scripts/train.py -m parameters=1e4,4e4 tokens=5e5,2e6

Every key=value is a Hydra override of conf/train.yaml. A run that is finished is skipped, one that was stopped resumes.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from omegaconf.errors import MissingMandatoryValue

from sweep.commands import BAD_INPUT, SOME_RUNS_FAILED
from sweep.commands.sweeps import make_corpus, make_plan, plan_sweep
from sweep.commands.training import launch_runs
from sweep.config import GridRun, conf_directory, from_omegaconf, read_times_as_text
from sweep.errors import InputError
from sweep.launch import launchers
from sweep.store import Store
from sweep.store.states import INTERRUPTED, WAITING

exit_codes: list[int] = []  # of each run of a multirun


@hydra.main(config_path=str(conf_directory()), config_name="train", version_base="1.3")
def main(composed: DictConfig) -> None:
    with suppress(FileNotFoundError):  # the overrides of a multirun, a token in cluster.slurm.setup among them
        (Path(HydraConfig.get().sweep.dir) / "multirun.yaml").chmod(0o600)
    try:
        with open_dict(composed):
            named = GridRun(N=_number(composed, "parameters"), D=_number(composed, "tokens"))
        config = from_omegaconf(composed)
        config.grid.runs = [named]
        _, recipe = plan_sweep(config)
        corpus = make_corpus(config, recipe)
        runs = [planned.run for planned in make_plan(config, recipe).runs]
        exit_codes.append(launch_runs(config, runs, corpus))
        stopped = {Store(Path(config.store)).run(run.run_id).status()["state"] for run in runs} & {INTERRUPTED, WAITING}
        if launchers.of(config.cluster.launcher).waits and stopped:  # by Ctrl-C or cancel, which mean the whole multirun
            sys.exit(SOME_RUNS_FAILED)
    except InputError as error:  # one bad run of a multirun does not keep the others
        print(f"train.py: {error}", file=sys.stderr)
        exit_codes.append(BAD_INPUT)


def _number(composed: DictConfig, name: str) -> float:
    """Take the field `name` out of `composed`. Raises InputError if it is missing or no number."""
    try:
        return float(composed.pop(name))
    except (MissingMandatoryValue, TypeError, ValueError) as error:
        raise InputError(f"{name} is missing or no number; give {name}=1e4, say") from error


if __name__ == "__main__":
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # no child process imports from the working directory
    read_times_as_text()
    main()
    sys.exit(max(exit_codes))
