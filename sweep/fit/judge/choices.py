"""The two parts of an uncertainty: what noise does, and what the choice of form, loss function, sizes and budgets does.

An interval says how far noise moves a value while every choice stays. Other choices that a reader might have made move it too,
often further. How far they do beyond what noise explains is the second part: the variance of the difference between two fits of
nested data is the difference of their variances (Hausman 1978), and a difference of that size is no news.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.judge.form_fits import FittedForm
from sweep.fit.judge.sensitivity import Variant
from sweep.fit.result import Estimate, Record

TINY = 1e-300
COUNTED = ("loss function", "sizes", "budgets")  # of `sensitivity`: groups of choices that others make too


@dataclass(frozen=True, kw_only=True)
class TwoParts(Record):
    """A value with both parts of its uncertainty.

    Attributes:
        noise: the value and its interval from noise.
        low, high: as far as other choices move it beyond that.
        lowest, highest: the choices that move it furthest down and up; None if none does.
        combined: the value with both parts, added in squares on either side.
    """

    noise: Estimate
    low: float
    high: float
    lowest: str | None
    highest: str | None
    combined: Estimate

    def __str__(self) -> str:
        if self.lowest is None and self.highest is None:
            return f"{self.combined}; other choices move it by no more than noise"
        return f"{self.combined}; noise alone {_ends(self.noise)}, choices {self.low:.4g} to {self.high:.4g}"


def two_parts(noise: Estimate, others: Iterable[tuple[str, Estimate]], *, log: bool = False) -> TwoParts:
    """`noise` and, by their labels, the same quantity under other choices, compared as they are or by their logs. A choice that
    has no interval of its own counts in full."""

    def scaled(value: float | None) -> float | None:
        return value if not log or value is None else float(np.log(max(value, TINY)))

    def back(value: float) -> float:
        return float(np.exp(value)) if log else value

    def half(estimate: Estimate, side: int) -> float | None:
        end = scaled(estimate.high if side > 0 else estimate.low)
        return None if end is None else abs(end - float(scaled(estimate.value)))  # type: ignore[arg-type]

    value = float(scaled(noise.value))  # type: ignore[arg-type]
    moved: dict[int, tuple[float, str | None]] = {-1: (0.0, None), 1: (0.0, None)}
    for label, other in others:
        if not np.isfinite(other.value) or (log and other.value <= 0):
            continue
        off = float(scaled(other.value)) - value  # type: ignore[arg-type]
        side = 1 if off > 0 else -1
        known, own = half(noise, side), half(other, side)
        explained = abs(own**2 - known**2) if own is not None and known is not None else 0.0
        beyond = max(off**2 - explained, 0.0) ** 0.5
        if beyond > moved[side][0]:
            moved[side] = beyond, label
    (down, lowest), (up, highest) = moved[-1], moved[1]
    combined, below, above = noise, half(noise, -1), half(noise, 1)
    if below is not None and above is not None:
        ends = value - float(np.hypot(below, down)), value + float(np.hypot(above, up))
        combined = Estimate(noise.value, back(ends[0]), back(ends[1]))
    low, high = back(value - down), back(value + up)
    return TwoParts(noise=noise, low=low, high=high, lowest=lowest, highest=highest, combined=combined)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Laws under other choices.

    Attributes:
        variants: of `sensitivity`.
        forms: other forms that predict larger budgets about as well as the best.
    """

    variants: Sequence[Variant]
    forms: Sequence[FittedForm]

    def spread(
        self,
        noise: Estimate,
        quantity: Callable[[Any], Estimate | float | None],
        others: Iterable[tuple[str, Estimate]] = (),
        *,
        log: bool = False,
    ) -> TwoParts:
        """`noise` and how far `quantity` of every law here moves it, or that of `others`. Laws that lack it are left out."""
        laws: list[tuple[str, Any]] = [(v.label, v.law) for v in self.variants if v.group in COUNTED and v.law is not None]
        laws += [(f"form: {form.name}", form) for form in self.forms]
        told = list(others)
        for label, law in laws:
            with suppress(LawError, AttributeError):
                if (found := quantity(law)) is None:
                    continue  # a form without this constant
                told.append((label, found if isinstance(found, Estimate) else Estimate(float(found))))
        return two_parts(noise, told, log=log)


def _ends(estimate: Estimate) -> str:
    return "without an interval" if estimate.low is None else f"{estimate.low:.4g} to {estimate.high:.4g}"
