"""The lower envelope of any subset of many training curves, drawn in one of three ways."""

from collections.abc import Sequence

import numpy as np

from sweep.store.curves import smooth_curve
from sweep.tables.curves import Curve

MIN_SIZES = 3  # two sizes make a step, not a law
METHODS = ("interpolated", "bins", "hull")
BINS = 50  # wide enough that every bin has points of every size that competes there
RANKS = 32  # at each C: a bootstrap resample lacks all the best 32 curves once in 1e14


class LowerEnvelope:
    """The curves, prepared so that the envelope of any of them is quick.

    Args:
        curves: all of them.
        smoothing, points, method: as in `fit_envelope`.
    """

    def __init__(self, curves: Sequence[Curve], smoothing: float, points: int, method: str) -> None:
        self.method = method
        self.N, self.per_token = (np.array([getattr(curve, name) for curve in curves]) for name in ("N", "flops_per_token"))
        # As far as three sizes compete; see `fit_envelope`.
        ends = np.array([curve.tokens[-1] * curve.flops_per_token for curve in curves])
        low, high = ends.min(), sorted(ends[self.N == N].max() for N in np.unique(self.N))[-MIN_SIZES]
        self.flops = np.geomspace(low, high, points)
        smooth = [smooth_curve(curve.loss, smoothing) for curve in curves]
        if method == "interpolated":
            self.losses = np.stack([_interpolate(curve, loss, self.flops) for curve, loss in zip(curves, smooth, strict=True)])
            self.ranking = _lowest(self.losses, min(RANKS, len(curves)))
            return
        self.edges = np.geomspace(low, high, BINS + 1)
        # All measured points in the range, and the curves they belong to, by C.
        C = np.concatenate([curve.tokens * curve.flops_per_token for curve in curves])
        owner = np.repeat(np.arange(len(curves)), [len(curve.loss) for curve in curves])
        inside = np.flatnonzero((low * (1 - 1e-9) <= C) & (high * (1 + 1e-9) >= C))
        order = inside[np.argsort(C[inside], kind="stable")]
        self.C, self.owner, self.L = C[order], owner[order], np.concatenate(smooth)[order]

    def of(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """C, N, D and loss along the envelope of the `chosen` curves (ascending indices), each of shape (points,)."""
        if self.method == "interpolated":
            winners = self._best(chosen)
            loss = self.losses[winners, np.arange(len(self.flops))]
            reached = np.isfinite(loss)  # a resample may lack the longest run
            flops, winners, loss = self.flops[reached], winners[reached], loss[reached]
        else:
            own = np.flatnonzero(np.isin(self.owner, chosen))
            C, L = self.C[own], self.L[own]
            best = _lowest_of_bins(C, L, self.edges) if self.method == "bins" else _lower_hull(np.log(C), np.log(L))[1:-1]
            flops, winners, loss = C[best], self.owner[own][best], L[best]
        return flops, self.N[winners], flops / self.per_token[winners], loss

    def _best(self, chosen: np.ndarray) -> np.ndarray:
        """The chosen curve with the lowest loss at every C, shape (points,)."""
        member = np.zeros(len(self.losses), dtype=bool)
        member[chosen] = True
        among = member[self.ranking]
        winners = self.ranking[among.argmax(axis=0), np.arange(len(self.flops))]
        missing = ~among.any(axis=0)
        if missing.any():
            winners[missing] = chosen[self.losses[np.ix_(chosen, missing)].argmin(axis=0)]
        return winners


def statistics(flops: np.ndarray, N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> list[float]:
    """Exponent and log-coefficient of N, D and loss in C; the exponent of N in thirds of log C; its second derivative."""
    x = np.log(flops)
    whole = [term for y in (N, D, loss) for term in np.polyfit(x, np.log(y), 1)]
    thirds = []
    for part in range(3):
        low, high = x[0] + (x[-1] - x[0]) * np.array([part, part + 1]) / 3
        inside = (x >= low) & (x <= high)
        thirds.append(np.polyfit(x[inside], np.log(N[inside]), 1)[0] if inside.sum() > 1 else np.nan)
    centred = x - x.mean()
    return [float(v) for v in (*whole, *thirds, 2 * np.polyfit(centred, np.log(N), 2)[0] if len(x) > 2 else np.nan)]


def _lowest(losses: np.ndarray, ranks: int) -> np.ndarray:
    """The curves with the `ranks` lowest of `losses`, shape (curves, points), best first, shape (ranks, points); of equal
    losses the first curve is the better one."""
    lowest = np.sort(np.argpartition(losses, ranks - 1, axis=0)[:ranks], axis=0)
    order = np.argsort(np.take_along_axis(losses, lowest, axis=0), axis=0, kind="stable")
    return np.take_along_axis(lowest, order, axis=0)


def _lowest_of_bins(C: np.ndarray, L: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The index of the lowest L in every bin of C that is not empty; C ascending."""
    bins = np.searchsorted(edges[1:-1], C, side="right")
    order = np.lexsort((L, bins))
    _, first = np.unique(bins[order], return_index=True)
    return order[first]


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


def _interpolate(curve: Curve, loss: np.ndarray, flops: np.ndarray) -> np.ndarray:
    """Loss at `flops`, linear in log-log; infinite outside the run, so that it never wins there."""
    x, log_C = np.log(curve.tokens * curve.flops_per_token), np.log(flops)
    # A rounding error must not keep a run from the point where it ends.
    at = np.where(np.abs(log_C - x[-1]) <= 1e-9, x[-1], log_C)
    return np.exp(np.interp(at, x, np.log(loss), left=np.inf, right=np.inf))
