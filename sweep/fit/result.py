"""What every fit returns: values with intervals, or a reason why there are none."""

from dataclasses import dataclass
from typing import Any

import numpy as np


class LawError(ValueError):
    """A law cannot be fitted to these runs. `status` is a short name for why, the message says what is needed."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def to_dict(self) -> dict[str, Any]:
        """What stands in fits.json in place of the law's numbers."""
        return {"status": self.status, "reason": str(self)}


@dataclass(frozen=True)
class Estimate:
    """A value and a central interval; the ends are None where there were too few usable resamples for one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_resamples(cls, value: float, resamples: np.ndarray, level: float) -> "Estimate":
        """`value` with the central `level` of the finite `resamples`; no interval if fewer than half are finite."""
        finite = resamples[np.isfinite(resamples)]
        if len(finite) < max(10, len(resamples) / 2):
            return cls(float(value))
        low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
        return cls(float(value), float(low), float(high))

    def to_dict(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        interval = "no interval" if self.low is None else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.value:.4g} ({interval})"


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = coefficient * x^exponent."""

    coefficient: float
    exponent: float

    def __call__(self, x: Any) -> Any:
        return self.coefficient * np.asarray(x, dtype=float) ** self.exponent

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray) -> "PowerLaw":
        """Least squares in log-log; x and y of shape (points,), positive."""
        exponent, intercept = np.polyfit(np.log(x), np.log(y), 1)
        return cls(coefficient=float(np.exp(intercept)), exponent=float(exponent))
