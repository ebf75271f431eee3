"""Compose conf/ and the overrides with Hydra, and check names, types and ranges. Nothing in a file is instantiated."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config.fields import check_fields
from sweep.config.machine import SlurmConfig
from sweep.config.naming import literal, unknown_field
from sweep.config.secrets import shown_override
from sweep.config.sweep import SweepConfig
from sweep.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig


INTERPOLATION = "; ${…} is a value of the configuration, as ${oc.env:HOME}: write $HOME or \\${HOME} for the shell's"
YAML_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$")


def conf_directory() -> Path:
    """conf/ of the checkout this package runs from, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent / "conf", package / "conf"):
        if (candidate / "sweep.yaml").exists():
            return candidate
    raise FileNotFoundError(f"conf/sweep.yaml is neither in {package.parent} nor in {package}; reinstall isosweep")


def read_times_as_text() -> None:
    """Let OmegaConf read 1:30:00 in a file as it is written, like Slurm, and 010 as ten. YAML 1.1 takes these for the numbers
    5,400, in base 60, and 8: nobody could tell afterwards what was meant."""
    from omegaconf import _utils

    if hasattr(made := _utils.get_yaml_loader, "times_are_text"):
        return

    def loader() -> Any:
        found = made()
        found.yaml_implicit_resolvers = {
            key: [(tag, YAML_INT if tag == "tag:yaml.org,2002:int" else pattern) for tag, pattern in resolvers]
            for key, resolvers in found.yaml_implicit_resolvers.items()
        }
        return found

    loader.times_are_text = True  # type: ignore[attr-defined]
    _utils.get_yaml_loader = loader


def compose(overrides: Sequence[str], config_name: str = "sweep") -> SweepConfig:
    """The sweep that Hydra overrides describe, with names, types and ranges checked; see `compose_with_choices`."""
    return compose_with_choices(overrides, config_name)[0]


def compose_with_choices(
    overrides: Sequence[str], config_name: str = "sweep", *, config_dir: str | None = None
) -> tuple[SweepConfig, dict[str, Any]]:
    """The sweep that Hydra overrides describe, and the file of conf/ that each group was taken from.

    Args:
        overrides: as on the command line.
        config_name: the file of conf/ to begin with.
        config_dir: a folder with the layout of conf/, searched beside it.

    Raises:
        InputError: for an unknown key, group or option, a value of the wrong type or out of range, or a folder that is none.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from yaml import YAMLError

    read_times_as_text()
    overrides = literal(overrides)
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise InputError(f"--config-dir {config_dir} is not a folder; name one with the layout of conf/")
        overrides.append(f"hydra.searchpath=[file://{Path(config_dir).resolve()}]")
    try:
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            composed = hydra_compose(config_name, overrides, return_hydra_config=True)
    except HydraException as error:
        unknown = re.match(r"Could not override '([^']+)'", str(error))
        hint = INTERPOLATION if "${" in str(error) else ""
        raise InputError(unknown_field(unknown[1]) if unknown else f"{_one_line(error)}{hint}") from error
    except (ValueError, YAMLError) as error:  # Hydra does not catch these, for instance for model=null, and they name no field
        raise InputError(f"{_one_line(error)}; one of these is wrong: {' '.join(map(shown_override, overrides))}") from error
    OmegaConf.set_struct(composed, False)
    chosen = composed.pop("hydra").runtime.choices
    if chosen.scale and not any(text.startswith("name=") for text in overrides):
        composed.name = f"{composed.name}-{chosen.scale}"  # the larger copy does not take the plan of the original's place
    return from_omegaconf(composed), {group: name for group, name in chosen.items() if not group.startswith("hydra/")}


def from_omegaconf(composed: "DictConfig | Mapping[str, Any]") -> SweepConfig:
    """The configuration from what Hydra composed, or from plain values as of `dataclasses.asdict`, checked; see `compose`."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import ConfigKeyError, GrammarParseError, InterpolationResolutionError, OmegaConfBaseException

    if not isinstance(composed, DictConfig):
        composed = plain(composed)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SweepConfig), composed))
    except ConfigKeyError as error:
        raise InputError(unknown_field(error.full_key) if error.full_key else _one_line(error)) from error
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        hint = INTERPOLATION if isinstance(error, InterpolationResolutionError | GrammarParseError) else ""
        raise InputError(f"{where}{_one_line(error)}{hint}") from error
    assert isinstance(config, SweepConfig)
    check_fields(config)
    for name in ("table", "curves", "store", "out"):
        if (path := getattr(config, name) or "").startswith("~"):
            setattr(config, name, os.path.expanduser(path))  # which leaves ~x as it is where nobody is called x
    _check_cluster(config)
    return config


def plain(values: Mapping[str, Any]) -> "DictConfig":
    """Values that were composed before, in which `${` is text, as a shell's ${HOME} in a line of bash."""
    from omegaconf import OmegaConf

    def escaped(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: escaped(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [escaped(entry) for entry in value]
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value

    return OmegaConf.create(escaped(values))


def _check_cluster(config: SweepConfig) -> None:
    """Check what concerns several fields at once, and set the device of a Slurm sweep."""
    cluster = config.cluster
    if cluster.launcher == "slurm":
        if cluster.slurm is None:
            raise InputError("cluster.launcher=slurm without cluster.slurm; choose cluster=slurm, or a file like it")
        _check_limit(cluster.slurm)
        if config.device == "auto":  # the login node's own devices do not matter
            config.device = "cuda" if cluster.slurm.gpus_per_task else "cpu"
    if cluster.workers != "auto" and not (cluster.workers.isdigit() and int(cluster.workers) > 0):
        raise InputError(f"cluster.workers={cluster.workers} is neither auto nor a positive number")


def _check_limit(slurm: SlurmConfig) -> None:
    if slurm.time_limit is not None and slurm.time_limit_minutes is not None:
        both = f"cluster.slurm.time_limit={slurm.time_limit} and the older cluster.slurm.time_limit_minutes"
        raise InputError(f"{both}={slurm.time_limit_minutes} are both given; set one of them to null")
    if slurm.limit_s() <= slurm.signal_s:
        problem = f"cluster.slurm.time_limit={slurm.limit()} is over before cluster.slurm.signal_s={slurm.signal_s} seconds"
        raise InputError(
            f"{problem}, so each task would be stopped as it starts; allow more time, or set cluster.slurm.signal_s="
            f"{max(1, int(slurm.limit_s() / 2))}"
        )


def _one_line(error: BaseException) -> str:
    """The message of a Hydra or OmegaConf error without its stack of causes, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    text = " ".join(kept)
    cause = error.__cause__
    return f"{text} ({_one_line(cause)})" if cause is not None and str(cause) not in text else text
