"""What the fits of Kaplan et al.'s laws share: their result, the checks of their input, and resampling."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np

from sweep.errors import LawError
from sweep.fit.bootstrap import check_clusters, resample_counts
from sweep.fit.result import SAME, Estimate, Intervals, Record, plain
from sweep.words import counted

MAX_EXPONENT = 5  # measured exponents of a loss are below 1


class Law(Protocol):
    equation: ClassVar[str]

    def predict(self, *args: Any, **kwargs: Any) -> Any: ...


LawT = TypeVar("LawT", bound=Law)


@dataclass(frozen=True, kw_only=True)
class LawFit(Record, Generic[LawT]):
    """A law with its constants' intervals.

    Attributes:
        law: the law itself, for all its other methods.
        constants: its constants by name, with intervals.
        points: how many measurements it was fitted to.
        rms: root mean square of the log residuals.
        level: of the intervals.
        identified: share of the usable resamples that identify the law; None if there were none.
        status: "converged"; "weak" if so few resamples identify the law that an interval would be too narrow, and so there is
            none; or "flat" if the gradient did not vanish.
        replicas: the constants of the resamples behind the intervals, shape (resamples, constants): for what depends on
            several of them.
        note: what its variables stand for, where that is not what its equation says; empty elsewhere.
    """

    fitted: ClassVar[bool] = True
    law: LawT
    constants: dict[str, Estimate]
    points: int
    rms: float
    level: float
    identified: float | None
    status: str
    note: str = ""
    replicas: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False, compare=False)

    @classmethod
    def from_resamples(
        cls,
        law: LawT,
        replicas: np.ndarray,
        identified: np.ndarray,
        *,
        log_residuals: np.ndarray,
        level: float,
        flat: bool = False,
        **more: Any,
    ) -> Self:
        """The fit of `law`, with intervals from the constants of usable resamples, shape (resamples, constants).

        A resample that does not identify the law counts as beyond one end of every interval, whatever its numbers say. If there
        are more of them than belong beyond that end, there is no interval.

        Raises:
            LawError: "unidentified" if fewer than half the resamples identify the law.
        """
        share = float(identified.mean()) if len(replicas) else None
        if share is not None and share < 0.5:
            reason = f"only {share:.0%} of resamples identify {law.equation}: add points, or widen their range"
            raise LawError("unidentified", reason)
        weak = share is not None and 1 - share > (1 - level) / 2 + SAME
        spread = replicas[:0] if weak else replicas[identified]
        return cls(
            law=law,
            constants={
                name: Estimate.from_resamples(value, spread[:, i], level) for i, (name, value) in enumerate(vars(law).items())
            },
            points=len(log_residuals),
            rms=float(np.sqrt(np.mean(log_residuals**2))),
            level=level,
            identified=share,
            status="flat" if flat else "weak" if weak else "converged",
            replicas=spread,
            **more,
        )

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return self.law.predict(*args, **kwargs)

    def derived(self, quantity: Callable[[LawT], float]) -> Estimate:
        """A number that follows from the law's constants, with the interval that follows from theirs."""
        laws = (type(self.law)(**dict(zip(self.constants, row, strict=True))) for row in self.replicas)
        return Estimate.from_resamples(quantity(self.law), np.array([quantity(law) for law in laws]), self.level)

    def to_dict(self) -> dict[str, Any]:
        scalars = self.pick("points", "rms", "level", "identified")
        note = {"note": self.note} if self.note else {}
        return {"equation": self.law.equation, "status": self.status, **plain(self.constants), **scalars, **note}

    def summary(self) -> str:
        lines = [f"{self.law.equation}; {counted(self.points, 'point')}, {self.level:.0%} intervals"]
        lines += [f"  {name:8} = {estimate}" for name, estimate in self.constants.items()]
        weak = f": {self.identified:.0%} of resamples identify it" if self.status == "weak" else ""
        lines.append(f"  residuals of {self.rms:.2%}, {self.status}{weak}")
        return "\n".join(lines + ([f"  {self.note}"] if self.note else []))


def columns(**named: Any) -> dict[str, np.ndarray]:
    """The arrays as floats of shape (points,).

    Raises:
        LawError: "bad_input" unless they are one-dimensional, of one length, and all values are positive and finite.
    """
    arrays = {}
    for name, values in named.items():
        try:
            array = np.asarray(values, dtype=float)
        except (TypeError, ValueError) as error:
            raise LawError("bad_input", f"{name} is not an array of numbers ({error}): fix or drop those points") from error
        if array.ndim != 1:
            raise LawError("bad_input", f"{name} has shape {array.shape}; give one value for each point, shape (points,)")
        bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
        if len(bad):
            reason = f"{name}[{bad[0]}] is {array[bad[0]]:g} ({len(bad)} bad in all); {name} must be positive and finite"
            raise LawError("bad_input", f"{reason}: fix or drop those points")
        arrays[name] = array
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise LawError("bad_input", f"the lengths differ ({lengths}); give one value of each for each point")
    return arrays


def require_values(name: str, values: np.ndarray, least: int) -> None:
    """Raises LawError "too_few_runs", "one_size" or "too_few_sizes" unless there are `least` different values."""
    different = len(np.unique(values))
    if different < least:
        status = "too_few_runs" if len(values) < least else "one_size" if different == 1 else "too_few_sizes"
        reason = (
            f"{counted(len(values), 'point')} of {different} different {name}; at least {least} different are needed: add runs"
        )
        raise LawError(status, reason)


def require_exponent(name: str, value: float, largest: float = MAX_EXPONENT) -> None:
    """Raises LawError "unidentified" unless `value` lies between 0 and `largest`."""
    if not 0 < value < largest:
        reason = f"{name} = {value:.3g} at the optimum is not between 0 and {largest}: add points, or widen their range"
        raise LawError("unidentified", reason)


def draw(points: int, clusters: Any, intervals: Intervals) -> np.ndarray:
    """`resample_counts`, shape (resamples, points). Raises LawError "bad_input" if there are fewer than three labels."""
    labels = check_clusters(clusters, points, "bad_input")
    return resample_counts(points, intervals.resamples, seed=intervals.seed, clusters=labels)


def distinct(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How many different `values`, shape (points,), each row of `counts`, shape (K, points), draws; shape (K,)."""
    order = np.argsort(values, kind="stable")
    _, first = np.unique(values[order], return_index=True)
    return (np.add.reduceat(counts[:, order], first, axis=1) > 0).sum(axis=1)


def line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercept at x = 0 and slope of weighted least squares, each (K,); NaN where there are not two different x.

    Args:
        x: shape (points,).
        y: shape (points,) or (K, points).
        weight: shape (K, points).
    """
    total = weight.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = (weight * x).sum(axis=1) / total, (weight * y).sum(axis=1) / total
        dx = x - mean_x[:, None]
        slope = (weight * dx * y).sum(axis=1) / (weight * dx**2).sum(axis=1)
    return mean_y - slope * mean_x, slope
