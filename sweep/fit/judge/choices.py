"""The two parts of an uncertainty: what noise does, and what the choice of form, loss function, sizes and budgets does.

An interval says how far noise moves a value while every choice stays. Other choices that a reader might have made move it too,
often further. How far they do beyond what noise explains is the second part: the variance of the difference between two fits of
nested data is the difference of their variances (Hausman 1978), and a difference of that size is no news.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.judge.form_fits import FittedForm
from sweep.fit.judge.sensitivity import Variant
from sweep.fit.result import Estimate, Record

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
    """`noise` and, by their labels, the same quantity under other choices. A choice that has no interval of its own counts in
    full. With `log`, quantities are positive and compared by their logs."""
    if log:
        found = two_parts(noise.mapped(np.log), [(label, other.mapped(np.log)) for label, other in others if other.value > 0])
        low, high = np.exp([found.low, found.high]).tolist()
        return replace(found, noise=noise, low=low, high=high, combined=found.combined.mapped(np.exp))
    moved: dict[int, tuple[float, str | None]] = {-1: (0.0, None), 1: (0.0, None)}
    for label, other in others:
        if not np.isfinite(other.value):
            continue
        off = other.value - noise.value
        side = 1 if off > 0 else -1
        known, own = _half(noise, side), _half(other, side)
        explained = abs(own**2 - known**2) if own is not None and known is not None else 0.0
        beyond = max(off**2 - explained, 0.0) ** 0.5
        if beyond > moved[side][0]:
            moved[side] = beyond, label
    (down, lowest), (up, highest) = moved[-1], moved[1]
    combined, value = noise, noise.value
    if noise.interval is not None:
        low, high = noise.interval
        combined = Estimate(value, value - float(np.hypot(value - low, down)), value + float(np.hypot(high - value, up)))
    return TwoParts(noise=noise, low=value - down, high=value + up, lowest=lowest, highest=highest, combined=combined)


def _half(estimate: Estimate, side: int) -> float | None:
    """How far the lower (-1) or the upper (1) end of an interval is from the value."""
    return None if estimate.interval is None else abs(estimate.interval[side > 0] - estimate.value)


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
