"""Trackers: services that show curves while they grow.

A tracker is one module here, named like its `tracker.kind`, with a class that is a `Run` and a function
`connect(tracker) -> (mode, warning)`: the mode is "online" or "offline", the warning says why if that is not what was asked for,
and any exception says that the tracker cannot be used. `sweep.tracking.wandb` is the one there is. What all trackers share
(which steps to send, when, and what was delivered) is in `sweep.tracking.mirror`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweep.config import SweepConfig


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """Where a sweep's curves are mirrored to; see `sweep.config.machine.TrackerConfig`."""

    kind: str = "wandb"  # none | wandb
    project: str
    entity: str | None
    group: str  # the sweep's name
    mode: str  # auto | online | offline | disabled
    timeout_s: float

    @classmethod
    def of(cls, config: SweepConfig) -> "Tracker":
        """The sweep's tracker. If its mode is "auto", wandb's own variable WANDB_MODE decides."""
        options, asked = config.tracker, os.environ.get("WANDB_MODE")
        return cls(
            kind=options.kind,
            project=options.project,
            entity=options.entity,
            group=config.name,
            mode=asked if options.mode == "auto" and asked in ("online", "offline", "disabled") else options.mode,
            timeout_s=options.timeout_s,
        )


class Run(Protocol):
    """A run at a tracker, new or resumed.

    Args:
        tracker: where to.
        mode: "online" or "offline".
        directory: the run's; the tracker's own files go below it.
        run_id: the run's.
        name: what people read in a list of runs.
        config: the run's configuration, its N, D and C, and its labels in the sweep.
        tags: what to filter runs by.

    Attributes:
        next_step: the first optimizer step that the tracker may lack.
    """

    next_step: int

    def __init__(
        self, tracker: Tracker, mode: str, directory: Path, *, run_id: str, name: str, config: dict[str, Any], tags: list[str]
    ) -> None: ...

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send the values of one optimizer step. Steps only increase."""

    def finish(self, step: int, *, done: bool) -> None:
        """End the run at `step`, `done` or not. Raises any exception unless the tracker has every step up to it."""


def one_line(error: BaseException) -> str:
    """The first line of an error, with its type."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")[:300]
