"""The lower envelope of training curves, drawn in one of three ways, and what is read off points along an envelope."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.fit.result import SAME, Estimate, PowerLaw, Record, count_distinct
from sweep.fit.surface import Compute
from sweep.tables.curves import Curve

MIN_WINNERS = 3  # two sizes make a step, not a law
BINS = 50  # wide enough that every bin has points of every size that competes there


@dataclass(frozen=True, kw_only=True)
class Curvature(Record):
    """Whether log N_opt bends in log C (Hoffmann et al. 2022, Fig. A5).

    Attributes:
        thirds: the exponent of N_opt in the first, middle and last third of log C.
        second: d^2 log N_opt / d (log C)^2 of a parabola through the optima; negative where the frontier is concave.
        bends: whether the interval of `second` excludes zero; None if there is no interval.
    """

    thirds: tuple[Estimate, Estimate, Estimate]
    second: Estimate
    bends: bool | None

    @classmethod
    def of(cls, first: Estimate, middle: Estimate, last: Estimate, second: Estimate) -> "Curvature":
        straight = second.contains(0)
        return cls(thirds=(first, middle, last), second=second, bends=None if straight is None else not straight)


class LowerEnvelope:
    """Curves, and the envelopes of them between two values of log C.

    Args:
        curves: in an order that does not depend on their names; of equal losses the first curve's is the lower.
        losses: theirs, smoothed.
        low, high: log C.
    """

    def __init__(self, curves: Sequence[Curve], losses: Sequence[np.ndarray], low: float, high: float) -> None:
        self.low, self.high = low, high
        self.N = np.log([curve.N for curve in curves])
        self.logs = [np.log(curve.tokens * curve.flops_per_token) for curve in curves]
        self.losses = losses
        # All measured points, and the curves they belong to, by C.
        C, owner = np.concatenate(self.logs), np.repeat(np.arange(len(curves)), [len(loss) for loss in losses])
        order = np.argsort(C, kind="stable")
        self.C, self.owner, self.L = C[order], owner[order], np.concatenate(list(losses))[order]

    def points(self, method: str, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log C, log N of the best size and its log loss, each of shape (points,), by "interpolated", "bins" or "hull";
        without the C at which no smaller or no larger size runs beside the best, which may be so for want of a better one."""
        x, best, loss = (
            self.interpolated(number) if method == "interpolated" else self.bins() if method == "bins" else self.hull()
        )
        running = np.array([(C[0] - SAME <= x) & (C[-1] + SAME >= x) for C in self.logs])
        smallest = np.where(running, self.N[:, None], np.inf).min(axis=0)
        largest = np.where(running, self.N[:, None], -np.inf).max(axis=0)
        kept = (self.N[best] > smallest + SAME) & (self.N[best] < largest - SAME)
        return x[kept], self.N[best[kept]], np.log(loss[kept])

    def exponent(self, method: str, number: int) -> Estimate | None:
        """a along these points, without an interval; None where too few sizes win."""
        x, log_N, _ = self.points(method, number)
        return Estimate(float(np.polyfit(x, log_N, 1)[0])) if count_distinct(np.exp(log_N)) >= MIN_WINNERS else None

    def interpolated(self, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The lowest curve at `points` log-spaced C (Hoffmann et al. 2022): log C, the curve's index and its loss."""
        x = np.linspace(self.low, self.high, points)
        lowest, best = np.full(points, np.inf), np.zeros(points, dtype=int)
        for i, (C, loss) in enumerate(zip(self.logs, self.losses, strict=True)):
            # A rounding error must not keep a run from the point where it ends.
            at = np.where(np.abs(x - C[-1]) <= SAME, C[-1], x)
            own = np.exp(np.interp(at, C, np.log(loss), left=np.inf, right=np.inf))
            best[own < lowest] = i
            lowest = np.minimum(lowest, own)
        return x[np.isfinite(lowest)], best[np.isfinite(lowest)], lowest[np.isfinite(lowest)]

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The lowest measured point of each bin of log C."""
        inside = np.flatnonzero((self.low - SAME <= self.C) & (self.high + SAME >= self.C))
        bins = np.searchsorted(np.linspace(self.low, self.high, BINS + 1)[1:-1], self.C[inside], side="right")
        order = inside[np.lexsort((self.L[inside], bins))]
        chosen = order[np.unique(np.sort(bins), return_index=True)[1]]
        return self.C[chosen], self.owner[chosen], self.L[chosen]

    def hull(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The vertices of the lower convex hull of all measured points in log C and log L, without the first and the last,
        which depend only on the range."""
        chosen = _lower_hull(self.C, np.log(self.L))[1:-1]
        chosen = chosen[(self.low - SAME <= self.C[chosen]) & (self.high + SAME >= self.C[chosen])]
        return self.C[chosen], self.owner[chosen], self.L[chosen]


def statistics(x: np.ndarray, log_N: np.ndarray, log_loss: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Exponent and log-coefficient of N and of the loss in C; the exponent of N in thirds of log C; its second derivative.

    x and weight have shape (points,), log_N and log_loss (rows, points); returns shape (rows, 8).
    """
    root = np.sqrt(weight)
    thirds = []
    for part in range(3):
        low, high = x[0] + (x[-1] - x[0]) * np.array([part, part + 1]) / 3
        inside = (x >= low) & (x <= high)
        enough = inside.sum() > 1
        thirds.append(
            np.polyfit(x[inside], log_N[:, inside].T, 1, w=root[inside])[0] if enough else np.full(len(log_N), np.nan)
        )
    second = 2 * np.polyfit(x - x.mean(), log_N.T, 2, w=root)[0]
    return np.vstack([np.polyfit(x, log_N.T, 1, w=root), np.polyfit(x, log_loss.T, 1), *thirds, second]).T


def power_laws(found: np.ndarray, compute: Compute) -> tuple[dict[str, PowerLaw], dict[str, PowerLaw]]:
    """The laws "N", "D" and "loss" of the first row of `statistics`, and those of the others, each of shape (rows - 1,)."""
    a, k, g, k_loss = found.T[:4]
    pairs = {"N": (a, k), "D": (1 - compute.eta * a, -np.log(compute.kappa) - compute.eta * k), "loss": (g, k_loss)}
    with np.errstate(over="ignore"):  # a resample may be anything
        return (
            {name: PowerLaw(exponent=float(e[0]), coefficient=float(np.exp(c[0]))) for name, (e, c) in pairs.items()},
            {name: PowerLaw(exponent=e[1:], coefficient=np.exp(c[1:])) for name, (e, c) in pairs.items()},
        )


def _lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of the lower convex hull's vertices up to the lowest point, x ascending (Andrew 1979)."""
    hull: list[int] = []
    for i in range(int(y.argmin()) + 1):
        while len(hull) > 1:
            a, b = hull[-2:]
            if (x[b] - x[a]) * (y[i] - y[a]) > (x[i] - x[a]) * (y[b] - y[a]):
                break
            hull.pop()
        hull.append(i)
    return np.array(hull)
