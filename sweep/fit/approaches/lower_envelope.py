"""The lower envelope of training curves, drawn in one of three ways."""

from collections.abc import Sequence

import numpy as np

from sweep.fit.result import SAME
from sweep.tables.curves import Curve

BINS = 50  # wide enough that every bin has points of every size that competes there


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

    def competes(self, x: np.ndarray, best: np.ndarray) -> np.ndarray:
        """Whether a smaller and a larger size run at each `x` of log C too; else `best` may be so for want of a better one."""
        running = np.array([(C[0] - SAME <= x) & (C[-1] + SAME >= x) for C in self.logs])
        smallest = np.where(running, self.N[:, None], np.inf).min(axis=0)
        largest = np.where(running, self.N[:, None], -np.inf).max(axis=0)
        return (self.N[best] > smallest + SAME) & (self.N[best] < largest - SAME)


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
