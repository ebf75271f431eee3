"""Ticks of log axes: at round values, and only as many as fit with their labels."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import Formatter, Locator, LogLocator, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axis import Axis

# Ticks in a decade, from few to many.
STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))
MAX_STRIDE = 64  # decades
WIDE = 0.45  # of the ticks that matplotlib finds room for; it counts on labels of three letters
MANY = 9


class LogTicks(Locator):
    """As many round values as there is room for along the axis."""

    axis: Any

    def __call__(self) -> Any:
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        room = self.axis.get_tick_space() * (WIDE if self.axis.axis_name == "x" else 1)
        most = int(min(max(2, room), MANY))
        decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        tried = [np.power(10.0, decades[decades % stride == 0]) for stride in range(MAX_STRIDE, 1, -1)]
        tried += [np.outer(np.power(10.0, decades), steps).ravel() for steps in STEPS]
        inside = [values[(low * (1 - 1e-9) <= values) & (values <= high * (1 + 1e-9))] for values in tried]
        best = next(values for values in reversed(inside) if len(values) <= most)
        if len(best) > 1:
            return best
        even = np.asarray(MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high))
        return even[(low <= even) & (even <= high)]


class LogLabels(Formatter):
    """Powers of ten, with a factor where it is not 1; or plain numbers."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:.4g}" if self.plain else scientific(x)


def set_log_ticks(axis: "Axis", plain: bool = False) -> None:
    """Round ticks that fit for a log `axis`, and marks without labels between them; `plain` numbers are for losses."""
    axis.set_major_locator(LogTicks())
    axis.set_major_formatter(LogLabels(plain))
    axis.set_minor_locator(LogLocator(subs=[2, 3, 4, 5, 6, 7, 8, 9]))
    axis.set_minor_formatter(NullFormatter())


def scientific(value: float) -> str:
    """A positive number as matplotlib writes it, to four digits: 3×10¹⁸."""
    factor, exponent = f"{value:.3e}".split("e")
    factor = "" if float(factor) == 1 else factor.rstrip("0").rstrip(".") + r"\times "
    return rf"$\mathdefault{{{factor}10^{{{int(exponent)}}}}}$"
