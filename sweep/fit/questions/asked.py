"""What a user asks, as `ask.*` on the command line, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.result import positive

if TYPE_CHECKING:
    from sweep.config import AskConfig


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked.

    Attributes:
        budgets: FLOPs to spend; if empty, 1, 10 and 100 times the largest C of a run.
        losses: to reach, nats per token.
        sizes: parameters, whose C and D are wanted.
        improve: shares of the loss to lose, each between 0 and 1.
        at: (N, D) from which to improve; None for the run of the lowest loss.
        models: (N, D) to place against the frontier, by name.
        gpu_hours: that the training of some of these models took, by name.
        inference_tokens: served by the model of each loss over its life; 0 if only training counts.
        flops_per_second: achieved by one GPU, for GPU-hours and energy; None to leave them out.
        watts: of one GPU.
        pue, tonnes_per_MWh: of the building and its electricity; see `footprint`.

    Raises:
        LawError: "bad_option" if a value is out of range; it names the field as the command line has it, ask.*.
    """

    budgets: Sequence[float] = ()
    losses: Sequence[float] = ()
    sizes: Sequence[float] = ()
    improve: Sequence[float] = ()
    at: tuple[float, float] | None = None
    models: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    gpu_hours: Mapping[str, float] = field(default_factory=dict)
    inference_tokens: float = 0
    flops_per_second: float | None = None
    watts: float = 700
    pue: float = 1.1
    tonnes_per_MWh: float = 0.385

    @classmethod
    def of(cls, config: "AskConfig") -> "Questions":
        """The questions of a sweep's configuration."""
        at, runs = config.at, config.models or {}
        models = {name: (float(run.N), float(run.D)) for name, run in runs.items()}
        hours = {name: float(run.gpu_hours) for name, run in runs.items() if run.gpu_hours is not None}
        found = {"at": None if at is None else (float(at.N), float(at.D)), "models": models, "gpu_hours": hours}
        return cls(**vars(config) | found)

    def __post_init__(self) -> None:
        named: dict[str, Any] = {name: list(getattr(self, name)) for name in ("budgets", "losses", "sizes", "improve")}
        for name, run in {"at": self.at, **{f"models.{name}": run for name, run in self.models.items()}}.items():
            named |= {} if run is None else {f"{name}.N": run[0], f"{name}.D": run[1]}
        named |= {f"models.{name}.gpu_hours": hours for name, hours in self.gpu_hours.items()}
        for name, values in named.items():
            if not np.isfinite(positive(f"ask.{name}", values)).all():
                raise LawError("bad_option", f"ask.{name}={values!r} is out of range; it must be finite")
        if any(share >= 1 for share in self.improve):
            shares = f"ask.improve={list(self.improve)!r} is out of range; it must be below 1"
            raise LawError("bad_option", f"{shares}: 0.1 asks for 10 % less loss")
