"""What a run reports while it trains."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run reports every `Runtime.log_interval_s`: steps done of all, the last training loss, and its speed."""

    run_id: str
    step: int
    steps: int
    loss: float
    tokens_per_s: float
