"""The two parts of an uncertainty: what noise does, and what the choice of form, loss function, sizes and budgets does.

An interval says how far noise moves a value while every choice stays. Other choices that a reader might have made move it too,
often further. How far they do beyond what noise explains is the second part: the variance of the difference between two fits of
nested data is the difference of their variances (Hausman 1978), and a difference of that size is no news.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
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


def two_parts(noise: Estimate, others: Iterable[tuple[str, Estimate]]) -> TwoParts:
    """`noise` and, by their labels, the same quantity under other choices. A choice that has no interval of its own counts in
    full."""
    value, furthest = noise.value, {-1: (0.0, None), 1: (0.0, None)}
    for label, other in others:
        if not np.isfinite(other.value):
            continue
        side = 1 if other.value > value else -1
        known, own = _half(noise, side), _half(other, side)
        explained = abs(own**2 - known**2) if own is not None and known is not None else 0.0
        moved = max((other.value - value) ** 2 - explained, 0.0) ** 0.5
        if moved > furthest[side][0]:
            furthest[side] = moved, label  # type: ignore[assignment]
    (down, lowest), (up, highest) = furthest[-1], furthest[1]
    combined = noise
    if noise.low is not None and noise.high is not None:
        combined = Estimate(
            value, value - float(np.hypot(value - noise.low, down)), value + float(np.hypot(noise.high - value, up))
        )
    return TwoParts(noise=noise, low=value - down, high=value + up, lowest=lowest, highest=highest, combined=combined)


def of_choices(
    variants: Iterable[Any], forms: Iterable[Any], quantity: Callable[[Any], Estimate | float]
) -> Iterable[tuple[str, Estimate]]:
    """`quantity` of the law of every counted variant and of every form that is not set aside, by its label; those whose law
    does not have it are left out."""
    laws = [(variant.label, variant.law) for variant in variants if variant.group in COUNTED and variant.law is not None]
    laws += [(f"form: {form.name}", form) for form in forms if not form.set_aside]
    for label, law in laws:
        try:
            found = quantity(law)
        except (LawError, AttributeError):
            continue
        yield label, found if isinstance(found, Estimate) else Estimate(float(found))


def _half(estimate: Estimate, side: int) -> float | None:
    end = estimate.high if side > 0 else estimate.low
    return None if end is None else abs(end - estimate.value)


def _ends(estimate: Estimate) -> str:
    return "without an interval" if estimate.low is None else f"{estimate.low:.4g} to {estimate.high:.4g}"
