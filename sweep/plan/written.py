"""The written plan: a sweep as it was launched, and everything that later commands need to know of it.

`launch` writes <store>/sweeps/<name>/plan.json. status, fit, plot, report and the others read it, and not conf/ or the text.
What may be a secret is not in it, but in secrets.json beside it, which is its owner's alone; only a launch needs that.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.config import SweepConfig, from_omegaconf, shown
from sweep.config.secrets import restore, secrets, shown_override
from sweep.errors import InputError
from sweep.files import read_json, write_json, write_sealed
from sweep.plan.axis import label_of, variations
from sweep.plan.grid import PlannedRun
from sweep.plan.run import RunConfig

FORMAT = 1
FILE, SECRETS = "plan.json", "secrets.json"


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """What the plan records of its corpus.

    Attributes:
        fingerprint: its identity, and its folder in the store.
        vocab_size: number of token ids.
        training_tokens: tokens to train on; infinite where that is not known before the corpus is made.
    """

    fingerprint: str
    vocab_size: int
    training_tokens: float


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A sweep and all its runs.

    Attributes:
        config: the composed configuration.
        device: "cpu" or "cuda".
        corpus: that the runs train on.
        runs: all runs, largest FLOPs first.
        choices: the file of conf/ that each group was taken from, such as {"experiment": "smoke"}.
        overrides: the overrides it was launched with.
    """

    config: SweepConfig
    device: str
    corpus: CorpusFacts
    runs: tuple[PlannedRun, ...]
    choices: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of its runs as texts, the baseline's first; one empty text without an axis."""
        return tuple(dict.fromkeys(label_of(each.labels) for each in variations(self.config)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for plan.json, without secrets; `from_dict` reads them back."""
        runs = [{"run_id": each.run.run_id, "D": each.run.D, **asdict(each)} for each in self.runs]
        plan = {"format": FORMAT, "name": self.config.name, **asdict(self), "runs": runs}
        plan |= {"config": shown(self.config), "overrides": list(map(shown_override, self.overrides))}
        return _finite(plan)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SweepPlan":
        """The inverse of `to_dict`. Raises InputError if it is not a plan, or a run is not the one that its run_id names."""
        try:
            if values["format"] != FORMAT:
                raise InputError(
                    f"its format is {values['format']}, and this version reads {FORMAT}; use the version that wrote it"
                )
            corpus = values["corpus"] | {"training_tokens": float(values["corpus"]["training_tokens"])}
            return cls(
                config=from_omegaconf(values["config"]),
                device=values["device"],
                corpus=CorpusFacts(**corpus),
                runs=tuple(map(_run_of, values["runs"])),
                choices=values["choices"],
                overrides=tuple(values["overrides"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(str(error) if isinstance(error, InputError) else f"it is not a plan ({error!r})") from error

    def write(self, folder: Path) -> None:
        """Write plan.json into a sweep's folder, which is made if need be. Raises InputError if it cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if found := secrets(self.config):
                write_json(folder / SECRETS, found, private=True)
            else:
                (folder / SECRETS).unlink(missing_ok=True)
            write_sealed(folder / FILE, self.to_dict())
        except OSError as error:
            raise InputError(f"{folder / FILE} cannot be written ({error.strerror}); choose another store=…") from error

    @classmethod
    def read(cls, folder: Path) -> "SweepPlan | None":
        """The plan in a sweep's folder; None if there is none. Raises InputError if it is damaged, or of a newer version."""
        path, remedy = folder / FILE, "launch the sweep again to write it anew"
        try:
            values = read_json(path, dict, remedy)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            plan = cls.from_dict(values)
        except InputError as error:
            raise InputError(f"{path} cannot be read: {error}; {remedy}") from error
        if os.access(folder / SECRETS, os.R_OK):  # a launch says what it lacks
            restore(plan.config, read_json(folder / SECRETS, dict, remedy))
        return plan

    def changes_from(self, earlier: "SweepPlan | None") -> str:
        """How many runs are new, kept and dropped since an earlier plan of the sweep; empty if nothing changed."""
        if earlier is None:
            return ""
        before, now = ({planned.run.run_id for planned in plan.runs} for plan in (earlier, self))
        if before == now:
            return ""
        counts = {"new": len(now - before), "kept": len(now & before), "dropped": len(before - now)}
        return ", ".join(f"{count} {word}" for word, count in counts.items())


def _run_of(entry: dict[str, Any]) -> PlannedRun:
    run = RunConfig.from_dict(entry["run"])
    if run.run_id != entry["run_id"]:
        raise InputError(f"the configuration of run {entry['run_id']} is that of {run.run_id}: it was changed by hand")
    known = ("budget", "labels", "engine", "expected_s")
    if entry["labels"] and "cell" not in entry:
        raise InputError(f"run {entry['run_id']} has labels and no cell")
    return PlannedRun(run=run, cell=entry.get("cell", 0), **{name: entry[name] for name in known})


def _finite(value: Any) -> Any:
    """`value` with infinity spelled "inf", which a float field reads back, since JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
