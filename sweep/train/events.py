"""What is reported while runs train: `Progress` of a run, now and then, and its `Outcome` once."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run reports every `Runtime.log_interval_s`: steps done of all, the last training loss, and its speed."""

    run_id: str
    step: int
    steps: int
    loss: float
    tokens_per_s: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: its state, the last line of its error if it failed, the seconds spent in training steps, and whether it
    stopped because the disk is full."""

    run_id: str
    state: str
    error: str = ""
    training_s: float = 0.0
    disk_full: bool = False


Event: TypeAlias = Progress | Outcome
