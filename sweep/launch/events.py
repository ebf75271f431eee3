"""What a launch reports while it trains: `Progress` of a run, now and then, and its `Outcome` once."""

from dataclasses import dataclass
from typing import TypeAlias

from sweep.train.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: its state, the last line of its error if it failed, and the seconds spent in training steps."""

    run_id: str
    state: str
    error: str = ""
    training_s: float = 0.0


Event: TypeAlias = Progress | Outcome
