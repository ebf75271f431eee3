"""What every fit returns: values with intervals, or the reason why there are none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from sweep.errors import LawError

Status = Literal["converged", "flat", "bound", "unidentified"]
MIN_KNOWN = 0.9  # share of the resamples that must have a value; with fewer, quantiles describe the well-behaved ones only
MIN_RESAMPLES = 10
BEYOND = 1e300  # stands for infinity where quantiles are interpolated
SAME = 1e-9  # values closer than this, relatively, are equal: far above rounding, far below what is measured
Result = TypeVar("Result")
Part = TypeVar("Part")
Tell = Callable[[str, int, int], None]  # is told what is being fitted, how many parts of it are done, and of how many


def plain(value: Any) -> Any:
    """`value` as JSON has it: records and power laws by their fields, and None for infinity and NaN."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return {name: plain(each) for name, each in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True, kw_only=True)
class Record:
    """A result that fits.json holds field by field."""

    def to_dict(self) -> dict[str, Any]:
        return self.pick(*(field.name for field in fields(self)))

    def pick(self, *names: str) -> dict[str, Any]:
        """Plain values of the attributes `names`."""
        return {name: plain(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class Intervals:
    """How intervals are made.

    Attributes:
        resamples: how many resamples are fitted; 0 for no intervals.
        level: of the central intervals, between 0 and 1.
        seed: of the resamples.

    Raises:
        LawError: "bad_option" if one of them is out of range.
    """

    resamples: int = 200
    level: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("resamples", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 0:
                raise LawError("bad_option", f"{name}={value!r} is out of range; it must be a whole number from 0 on")
        if not isinstance(self.level, int | float) or not 0 < self.level < 1:
            raise LawError("bad_option", f"level={self.level!r} is out of range; it must lie between 0 and 1")


NO_INTERVALS = Intervals(resamples=0)


@dataclass(frozen=True)
class Refused:
    """Takes the place of a result that could not be computed; `fitted` tells the two apart."""

    fitted: ClassVar[bool] = False
    error: LawError

    @property
    def status(self) -> str:
        return self.error.status

    @property
    def reason(self) -> str:
        return str(self.error)

    @property
    def profiles(self) -> tuple[Any, ...]:
        """The IsoFLOP profiles, where these are what was refused."""
        return getattr(self.error, "profiles", ())

    def to_dict(self) -> dict[str, Any]:
        return self.error.to_dict()

    def summary(self) -> str:
        return self.error.summary()

    def __str__(self) -> str:
        return self.reason


def told(tell: Tell | None, what: str, parts: Sequence[Part]) -> Iterator[Part]:
    """The `parts`, each announced to `tell`."""
    for done, part in enumerate(parts):
        if tell:
            tell(what, done, len(parts))
        yield part


def attempt(fit: Callable[[], Result]) -> Result | Refused:
    """The result of `fit`, or why it was refused."""
    try:
        return fit()
    except LawError as error:
        error.__traceback__ = error.__context__ = None  # their frames would keep the fit's arrays in memory
        return Refused(error)


def positive(name: str, value: Any) -> Any:
    """`value` as floats. Raises LawError if any is not a positive number."""
    try:
        number = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise LawError("bad_option", f"{name}={value!r} is not a number; give one number, or several") from error
    if not (number > 0).all():
        raise LawError("bad_option", f"{name}={value!r} is out of range; it must be positive")
    return number[()]


def count_distinct(values: np.ndarray) -> int:
    """How many of the positive `values`, shape (runs,), differ by more than rounding."""
    return int((np.diff(np.sort(np.log(values))) > SAME).sum()) + 1 if len(values) else 0


@dataclass(frozen=True)
class Estimate(Record):
    """A value and its central interval. An end may be infinite; both are None if there is no interval; `note` may say why."""

    value: float
    low: float | None = None
    high: float | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return self.pick("value", "low", "high", *(["note"] if self.note else []))

    @classmethod
    def from_resamples(cls, value: float, resamples: np.ndarray, level: float) -> "Estimate":
        """`value` with the central `level` of `resamples`, shape (resamples,). There is no interval if fewer than ten, or than
        nine in ten, have a value; the others are NaN."""
        known = resamples[~np.isnan(resamples)]
        if len(known) < max(MIN_RESAMPLES, MIN_KNOWN * len(resamples)):
            return cls(float(value))
        ends = np.quantile(np.clip(known, -BEYOND, BEYOND), [(1 - level) / 2, (1 + level) / 2])
        low, high = np.where(np.abs(ends) > BEYOND / 1e3, np.copysign(np.inf, ends), ends)
        return cls(float(value), float(low), float(high))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def mapped(self, change: Callable[[float], float]) -> "Estimate":
        """The estimate of a growing function of the value."""
        low, high = (None, None) if self.interval is None else map(change, self.interval)
        return replace(self, value=change(self.value), low=low, high=high)

    def contains(self, value: float) -> bool | None:
        """Whether `value` lies in the interval; None if there is none."""
        return None if self.interval is None else self.interval[0] <= value <= self.interval[1]

    def overlaps(self, other: "Estimate") -> bool | None:
        """Whether both intervals have a value in common; None if one of them is missing."""
        if self.interval is None or other.interval is None:
            return None
        return self.interval[0] <= other.interval[1] and other.interval[0] <= self.interval[1]

    def __str__(self) -> str:
        interval = (self.note or "no interval") if self.low is None else f"{self.low:z.4g} to {self.high:z.4g}"
        return f"{self.value:z.4g} ({interval})"


@dataclass(frozen=True, kw_only=True)
class PowerLaw(Record):
    """y = coefficient * x^exponent; numbers, or arrays of one shape for many laws at once."""

    coefficient: Any
    exponent: Any

    def __call__(self, x: Any) -> Any:
        return self.coefficient * np.asarray(x, dtype=float) ** self.exponent
