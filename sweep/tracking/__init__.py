"""Trackers: services that show curves while they grow.

A tracker is one module here, named like its `tracker.kind`, with a function `connect` and a class `Run` (a `TrackedRun`). What
all trackers share (which steps to send, when, and what was delivered) is in `sweep.tracking.process`.
"""

import os
from dataclasses import asdict, dataclass
from typing import Protocol

from sweep.config import SweepConfig, TrackerConfig


@dataclass(kw_only=True)
class Tracker(TrackerConfig):
    """Where a sweep's curves are mirrored to. `group` is the sweep's name; `mode` may be "disabled" too."""

    kind: str = "wandb"
    group: str

    @classmethod
    def of(cls, config: SweepConfig) -> "Tracker":
        """The sweep's tracker. If its mode is "auto", wandb's own variable WANDB_MODE decides."""
        tracker = cls(group=config.name, **asdict(config.tracker))
        if tracker.mode == "auto" and (asked := os.environ.get("WANDB_MODE")) in ("online", "offline", "disabled"):
            tracker.mode = asked
        return tracker


class TrackedRun(Protocol):
    """A run at a tracker, new or resumed. `next_step` is the first optimizer step that the tracker may lack."""

    next_step: int

    def log(self, step: int, values: dict[str, float]) -> None:
        """Send the values of one optimizer step. Steps only increase."""

    def finish(self, step: int, *, done: bool) -> None:
        """End the run at `step`, `done` or not. Raises any exception unless the tracker has every step up to it."""
