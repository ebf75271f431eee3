"""Overrides of a launched sweep: fields of the analysis may change, fields that define its runs may not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from sweep.config.composing import conf_directory, from_omegaconf, plain, read_times_as_text
from sweep.config.naming import literal
from sweep.config.secrets import shown_override
from sweep.config.sweep import SweepConfig
from sweep.errors import InputError

RUNS = ("model", "objective", "data", "optimizer", "schedule", "grid", "axis", "seed", "precision")
MAKES_RUNS = (*RUNS, "evaluation.points", "evaluation.noise_scale")
CONF_ONLY = ("experiment", "scale", "hydra")  # they choose files of conf/, and a launched sweep is composed already


def makes_runs(key: str) -> bool:
    """Whether a field defines the runs of a sweep."""
    return any(key == name or key.startswith(f"{name}.") for name in MAKES_RUNS)


def parse_overrides(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Key and value of each override. Raises InputError if one cannot be read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(literal(overrides))
        return [(each.key_or_group, each.value()) for each in parsed]
    except HydraException as error:
        raise InputError(f"{' '.join(map(shown_override, overrides))}: {str(error).splitlines()[0]}") from error


def given_texts(overrides: Sequence[str], **defaults: str | None) -> dict[str, str | None]:
    """The texts that `overrides` give to the fields in `defaults`, or the defaults where they give none, with `${…}` resolved.
    Raises InputError if one cannot be read."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    texts = OmegaConf.create({**defaults, **{key: value for key, value in parse_overrides(overrides) if key in defaults}})
    try:
        return {key: None if texts[key] is None else str(texts[key]) for key in defaults}
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def override(
    config: SweepConfig, overrides: Sequence[str], choices: Mapping[str, Any], given: Sequence[str] = ()
) -> SweepConfig:
    """A launched sweep's configuration with other values.

    Args:
        config: as it was launched.
        overrides: to apply; one that changes nothing is always allowed.
        choices: the file of conf/ that each group was taken from.
        given: overrides that it was launched with; they are part of `config`.

    Raises:
        InputError: if an override would make other runs, names no field, or has a value that is not allowed.
    """
    from omegaconf import OmegaConf

    values = plain(asdict(config))
    new = [each for each in overrides if each not in given]
    applied = []
    for text, (key, value) in zip(new, parse_overrides(new), strict=True):
        if key.partition(".")[0] in CONF_ONLY or choices.get(key) == value:
            continue
        applied.append((text, key))
        if is_dataclass(getattr(config, key, None)) and isinstance(value, str | list):
            if makes_runs(key):
                raise InputError(_other_runs(text, config))
            value = _read_group(key, value)
        OmegaConf.update(values, key, value, merge=True, force_add=True)
    changed = from_omegaconf(values)
    for text, key in applied:
        if makes_runs(key) and _lookup(changed, key) != _lookup(config, key):
            raise InputError(_other_runs(text, config))
    return changed


def _other_runs(text: str, config: SweepConfig) -> str:
    return (
        f"{text} would make other runs than those of {config.name}, whose plan is written down; "
        "leave it out, or launch the sweep with it"
    )


def _read_group(group: str, name: Any) -> Any:
    """The values in a file of conf/ for a group that does not define runs, such as cluster=slurm."""
    from omegaconf import OmegaConf

    read_times_as_text()
    path = conf_directory() / group / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"{group}={name}: conf/ has no {group}/{path.name}")
    return {key: value for key, value in OmegaConf.load(path).items() if key != "defaults"}


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = None if config is None else getattr(config, part)
    return config
