"""The results of hold-outs: predicted against measured losses and optima."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sweep.fit.result import Estimate, Record, plain
from sweep.words import counted


@dataclass(frozen=True, kw_only=True)
class Prediction(Record):
    """One held-out run: the measured loss, and the loss predicted from runs of smaller budgets with a prediction interval."""

    run_id: str
    N: float
    D: float
    C: float
    loss: float
    predicted: Estimate

    @property
    def inside(self) -> bool | None:
        """Whether the measured loss lies in the interval; None if there is no interval."""
        return self.predicted.contains(self.loss)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "inside": self.inside}


@dataclass(frozen=True, kw_only=True)
class Optimum(Record):
    """The optimal N of a held-out budget: by its own parabola, and as each approach predicted it from smaller budgets."""

    budget: float
    N_opt: float
    predicted: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class HoldOut(Record):
    """A fit of the runs below `above` FLOPs, judged by the runs from there on.

    Attributes:
        above: the smallest budget that was held out.
        fitted: how many runs the fit used.
        factor: the largest C held out over the largest C fitted.
        predictions: one for each held-out run.
        optima: one for each held-out budget whose profile has a minimum.
        level: of the prediction intervals.
    """

    above: float
    fitted: int
    factor: float
    predictions: tuple[Prediction, ...]
    optima: tuple[Optimum, ...]
    level: float

    @property
    def bias(self) -> float:
        """Mean of predicted - measured loss, in nats."""
        return float(np.mean([p.predicted.value - p.loss for p in self.predictions]))

    @property
    def error(self) -> float:
        """Root mean square of predicted - measured loss, in nats."""
        return float(np.sqrt(np.mean([(p.predicted.value - p.loss) ** 2 for p in self.predictions])))

    @property
    def covered(self) -> float | None:
        """Share of the measured losses inside their intervals; None if there are no intervals."""
        inside = [p.inside for p in self.predictions if p.inside is not None]
        return float(np.mean(inside)) if inside else None

    def to_dict(self) -> dict[str, Any]:
        names = ("above", "fitted", "factor", "bias", "error", "covered", "level", "predictions", "optima")
        return {"status": "converged", **self.pick(*names)}

    def summary(self) -> str:
        inside = "" if self.covered is None else f", {self.covered:.0%} inside their {self.level:.0%} intervals"
        lines = [
            f"  {counted(self.fitted, 'run')} below C = {self.above:.3g} predict the {len(self.predictions)} from there on, "
            f"{self.factor:.2g} times as far: loss off by {self.error:.4f} (mean {self.bias:+z.4f}){inside}"
        ]
        for optimum in self.optima:
            off = ", ".join(f"{name} {N / optimum.N_opt - 1:+z.0%}" for name, N in optimum.predicted.items())
            lines.append(f"    N_opt at {optimum.budget:.3g} is {optimum.N_opt:.4g}; predicted: {off}")
        return "\n".join(lines)


@dataclass(frozen=True)
class RollingHoldOut:
    """Hold-outs of each budget, predicted from all smaller ones; the last is the largest budget."""

    fitted: ClassVar[bool] = True
    each: tuple[HoldOut, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        return plain(self.each)

    def summary(self) -> str:
        return "\n".join(held.summary() for held in self.each).lstrip()
