"""What every fit returns: values with intervals, or a reason why there are none."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sweep.errors import LawError

Status = Literal["converged", "flat", "bound", "unidentified"]
ENOUGH = 0.9  # of the resamples must have a value, or their quantiles are of the well-behaved ones only
MIN_RESAMPLES = 10
BEYOND = 1e300  # stands for infinity where quantiles are interpolated


def check_intervals(resamples: int, level: float, seed: int) -> None:
    """Raises LawError if these are not what intervals can be made with."""
    for name, value, least in (("resamples", resamples, 0), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise LawError("bad_option", f"{name}={value!r} is out of range; it must be a whole number from {least} on")
    if not isinstance(level, int | float) or not 0 < level < 1:
        raise LawError("bad_option", f"level={level!r} is out of range; it must lie between 0 and 1")


def positive(name: str, value: Any) -> Any:
    """`value` as floats. Raises LawError if any is not a positive number."""
    try:
        number = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise LawError("bad_option", f"{name}={value!r} is no number; give one, or several") from error
    if not (number > 0).all():
        raise LawError("bad_option", f"{name}={value!r} is out of range; it must be positive")
    return number[()]


@dataclass(frozen=True)
class Estimate:
    """A value and a central interval, whose ends may be infinite; both are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_resamples(cls, value: float, resamples: np.ndarray, level: float) -> "Estimate":
        """`value` with the central `level` of `resamples`; no interval if a tenth of them, or more, are NaN: had no answer."""
        known = resamples[~np.isnan(resamples)]
        if len(known) < max(MIN_RESAMPLES, ENOUGH * len(resamples)):
            return cls(float(value))
        ends = np.quantile(np.clip(known, -BEYOND, BEYOND), [(1 - level) / 2, (1 + level) / 2])
        low, high = np.where(np.abs(ends) > BEYOND / 1e3, np.copysign(np.inf, ends), ends)
        return cls(float(value), float(low), float(high))

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers; None for one that is infinite or was not found, as JSON has neither infinity nor NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: number if number is not None and np.isfinite(number) else None for name, number in numbers.items()}

    def __str__(self) -> str:
        interval = "no interval" if self.low is None else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.value:.4g} ({interval})"


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = coefficient * x^exponent; numbers, or arrays of one shape for many laws at once."""

    coefficient: Any
    exponent: Any

    def __call__(self, x: Any) -> Any:
        return self.coefficient * np.asarray(x, dtype=float) ** self.exponent

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray) -> "PowerLaw":
        """Least squares in log-log; x and y of shape (points,), positive."""
        exponent, intercept = np.polyfit(np.log(x), np.log(y), 1)
        return cls(coefficient=float(np.exp(intercept)), exponent=float(exponent))

    @classmethod
    def fit_orthogonal(cls, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> "PowerLaw":
        """Weighted orthogonal regression in log-log: the line of least squared distances, which treats x and y alike.

        x, y and weight are of shape (points,); x and y are positive. A point whose y is NaN is left out.
        """
        known = np.isfinite(y)
        law = cls.fit_orthogonal_logs(np.log(x[known]), np.log(y[known]), weight[known])
        return cls(coefficient=float(law.coefficient), exponent=float(law.exponent))

    @classmethod
    def fit_orthogonal_logs(cls, u: np.ndarray, v: np.ndarray, weight: np.ndarray) -> "PowerLaw":
        """The same for each row of logs u, v and weights, shape (..., points): the leading eigenvector of their covariance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = weight / weight.sum(axis=-1, keepdims=True)
            u0, v0 = (share * u).sum(axis=-1, keepdims=True), (share * v).sum(axis=-1, keepdims=True)
            uu, vv, uv = ((share * s * t).sum(axis=-1) for s, t in ((u - u0, u - u0), (v - v0, v - v0), (u - u0, v - v0)))
            exponent = 2 * uv / (uu - vv + np.hypot(uu - vv, 2 * uv))
        return cls(coefficient=np.exp(v0[..., 0] - exponent * u0[..., 0]), exponent=exponent)
