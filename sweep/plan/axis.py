"""The axis of a sweep: what else it varies at each of its (N, D), and the configurations that come of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from sweep.config import CorpusSpec, SweepConfig, from_omegaconf
from sweep.config.composing import plain
from sweep.config.fields import on_one_line
from sweep.config.naming import is_field, unknown_field
from sweep.config.overrides import MAKES_RUNS, makes_runs
from sweep.errors import InputError

VARIANT = "variant"  # the label that says which of axis.variants a run is of
MAX_LABEL = 60  # characters
MAX_BYTES = 200  # of a whole label, which is a folder's name


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One configuration of a sweep.

    Attributes:
        labels: what distinguishes it from the others, but for the seed: {"schedule.cycle": "1.5"}. Empty without an axis.
        config: the sweep's configuration, with the values that `labels` stand for and one of the seeds.
    """

    labels: Mapping[str, str]
    config: SweepConfig


def label_of(labels: Mapping[str, str]) -> str:
    """The labels as one text: "wsd, optimizer.lr_scale=2"."""
    return ", ".join(value if name == VARIANT else f"{name}={value}" for name, value in labels.items())


def variations(config: SweepConfig) -> list[Variation]:
    """All combinations of what `config.axis` names, the baseline first: it has the first variant and the first values.

    Raises InputError if the axis names no field, one that changes no run, or one that makes another corpus; if a value is not
    allowed; or if a name cannot be a label.
    """
    axis = config.axis
    seeds = [config.seed] if axis.seeds is None else axis.seeds
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"axis.seeds={seeds} must name at least one seed, from 0 on, and each once")
    changes: list[list[tuple[str, str, dict[str, Any]]]] = []  # for each label its choices: name, text, and fields with values
    if axis.variants is not None:
        changes.append([(VARIANT, _checked_label(name), fields or {}) for name, fields in axis.variants.items()])
        if not axis.variants:
            raise InputError("axis.variants is empty; name at least one, the baseline first, or leave it out")
    for name, values in (axis.vary or {}).items():
        texts = [text_of(value) for value in values]
        if not values or len(set(texts)) < len(texts):
            raise InputError(f"axis.vary: {name}={on_one_line(values)} must have at least one value, and each once")
        changes.append([(name, _checked_label(text), {name: value}) for text, value in zip(texts, values, strict=True)])
    for name in {name for choices in changes for _, _, fields in choices for name in fields}:
        _check_field(name)
    found = []
    for chosen in product(*changes):
        fields: dict[str, Any] = {}
        for _, text, given in chosen:
            if both := fields.keys() & given.keys():
                raise InputError(f"axis: {', '.join(both)} is set twice in {text}; vary it in one place")
            fields |= given
        labels = {name: text for name, text, _ in chosen}
        if len(label_of(labels).encode()) > MAX_BYTES:
            raise InputError(
                f"axis: the label {label_of(labels)} is longer than {MAX_BYTES} bytes; give shorter names by axis.variants"
            )
        changed = _with(config, fields, label_of(labels))
        found += [Variation(labels=labels, config=replace(changed, seed=seed)) for seed in seeds]
    return found


def text_of(value: Any) -> str:
    """A value as it is shown and typed: 1.5, null, cosine."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _checked_label(text: str) -> str:
    if (
        text.strip(".")
        and text.isprintable()
        and text.strip() == text
        and len(text) <= MAX_LABEL
        and not set(text) & set(",=/\\")
    ):
        return text
    raise InputError(
        f"axis: {on_one_line(text)} cannot be a label; it has 1 to {MAX_LABEL} characters, none of , = / \\, and no blank at "
        "its ends. Give another value a name: axis.variants={NAME: {FIELD: VALUE}}"
    )


def _check_field(name: str) -> None:
    """Raises InputError if a field is none that an axis may vary."""
    if name == "seed":
        raise InputError("axis: seed is varied by axis.seeds=[0,1,2]")
    if not is_field(name):
        raise InputError(f"axis: {unknown_field(name)}")
    if not makes_runs(name) or name.split(".")[0] == "axis":
        raise InputError(f"axis: {name} changes no run; {', '.join(each for each in MAKES_RUNS if each != 'axis')} do")
    if name == "data" or (name.startswith("data.") and name.split(".")[1] in CorpusSpec.__dataclass_fields__):
        raise InputError(
            f"axis: {name} makes another corpus; launch a sweep for each, {name}=… name=…, and compare them: "
            "isosweep compare tables={NAME: NAME, …}"
        )


def _with(config: SweepConfig, fields: Mapping[str, Any], label: str) -> SweepConfig:
    """`config` with other values. Raises InputError if one is not allowed, which names the label."""
    from omegaconf import OmegaConf

    values = plain(asdict(config))
    for name, value in fields.items():
        OmegaConf.update(values, name, value, merge=True, force_add=True)
    try:
        return from_omegaconf(values)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error
