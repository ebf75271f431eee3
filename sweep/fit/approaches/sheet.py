"""Curves side by side at the same C: parabolas in log N through their losses, and the line through the minima."""

from collections.abc import Sequence

import numpy as np

from sweep.fit.result import SAME
from sweep.tables.curves import Curve

REACH = 2.0  # in log N: sizes further than this from the optimum do not count; a factor of 7
NEAREST = 5  # sizes, at least, that are within reach where as many run
SLIGHT = 1e-3  # of the largest weight in a slice: sizes of less do not count
MIN_RUNNING = 3  # sizes that count in a slice, to determine a parabola
BEYOND = 0.7  # in log N: while the line settles, slices still count if it leaves the sizes by less, lest it lose them
MARGIN = 0.3  # in log N: slices count fully if the optimum is this far from the smallest and the largest size
KNOWN = 0.12  # share of the schedule's variation that no parabola can take up; below, it cannot be told from that of N
FLAT = 0.003  # variance of a schedule that does not change
SPED_UP, STEEP = 1.2, 0.75  # how much faster than a power law, and than before, losses fall under a decaying learning rate
OUTLIER = 8  # times the typical distance from the parabolas: a run that far off, as one that diverged, does not count


class Sheet:
    """All curves at the same C, shape (curves, slices), and the law of the optimum that goes through them."""

    def __init__(self, curves: Sequence[Curve], losses: Sequence[np.ndarray], x: np.ndarray, start: float, late: float) -> None:
        """`curves`, sorted by N, and their smoothed `losses`, at `x` of log C; what comes before the share `start` of a run
        does not count, and what comes before `late` counts less, and beside later points only."""
        self.x = x
        self.y = np.log([curve.N for curve in curves])
        logs = [np.log(curve.tokens * curve.flops_per_token) for curve in curves]
        loss = np.stack([_means(C, L, x) for C, L in zip(logs, losses, strict=True)])
        share = np.exp(x - np.array([C[-1] for C in logs])[:, None])
        self.running = np.isfinite(loss) & (share >= start * (1 - SAME))
        self.maturity = np.minimum(1, share / late) ** 2 if late else np.ones_like(share)
        self.loss = np.where(self.running, loss, 0)
        # The cosine schedule at each point, 1 at the start and 0 at the horizon.
        self.schedule = np.where(self.running, (1 + np.cos(np.pi * np.minimum(share, 1))) / 2, 0)
        self.smallest = np.where(self.running, self.y[:, None], np.inf).min(axis=0)
        self.largest = np.where(self.running, self.y[:, None], -np.inf).max(axis=0)
        self.size = np.concatenate([[0], np.cumsum(np.diff(self.y) > SAME)])  # curves are sorted by N

    def first_guess(self) -> np.ndarray:
        """A line through the best runs where smaller and larger ones run too."""
        best = self.y[np.where(self.running, self.loss, np.inf).argmin(axis=0)]
        inner = (best > self.smallest + SAME) & (best < self.largest - SAME)
        if inner.sum() < 2:
            inner = np.isfinite(self.smallest)
        return np.array([0.5, np.mean(best[inner] - 0.5 * self.x[inner])])

    def weights(self, centre: np.ndarray) -> np.ndarray:
        """How much each curve counts in each slice: tricube in log N about the `centre` of the slice, shape (slices,)."""
        distance = np.where(self.running, np.abs(self.y[:, None] - centre), np.inf)
        nearest = np.full((self.size[-1] + 1, len(self.x)), np.inf)
        np.minimum.at(nearest, self.size, distance)
        nearest.sort(axis=0)
        known = np.isfinite(nearest).sum(axis=0)
        furthest = nearest[np.clip(np.minimum(NEAREST, known) - 1, 0, None), np.arange(len(self.x))]
        reach = np.maximum(REACH, 1.1 * np.where(known > 0, furthest, 0))
        weight = np.clip(1 - np.where(self.running, distance / reach, 1) ** 3, 0, None) ** 3
        weight *= self.running
        return self.maturity * weight * ((weight > 0) & (self.maturity == 1)).any(axis=0)

    def sizes(self, weight: np.ndarray) -> np.ndarray:
        """How many sizes count in each slice, for `weight` of shape (curves, slices)."""
        of_size = np.zeros((self.size[-1] + 1, len(self.x)))
        np.maximum.at(of_size, self.size, weight)
        return (of_size > SLIGHT * of_size.max(axis=0)).sum(axis=0)

    def between(self, centre: np.ndarray) -> np.ndarray:
        """How far each `centre` is from the smallest and the largest size that run, in log N; negative beyond them."""
        return np.minimum(centre - self.smallest, self.largest - centre)


def _means(at: np.ndarray, loss: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The mean of a curve, given `at` values of log C, about each of the equidistant `x`, to half way to the next; NaN where it
    does not reach. A curve that is not smooth has many points between two x, and all of them count."""
    from scipy.interpolate import PchipInterpolator

    curve = PchipInterpolator(at, loss)
    half = np.minimum((x[1] - x[0]) / 2, np.minimum(x - at[0], at[-1] - x))  # as far to the left as to the right
    inside = np.clip(x, at[0], at[-1])
    low, high = (curve.antiderivative()(np.clip(x + side * half, at[0], at[-1])) for side in (-1, 1))
    wide = half > 1e-6
    return np.where(half < -SAME, np.nan, np.where(wide, (high - low) / np.where(wide, 2 * half, 1), curve(inside)))


class Parabolas:
    """Parabolas through all slices of a sheet, about the line `law` of log N in log C, and what follows from them."""

    def __init__(self, sheet: Sheet, law: np.ndarray, trust: np.ndarray) -> None:
        """`trust`: of each curve, shape (curves,); less than 1 for outliers."""
        centre = np.polyval(law, sheet.x)
        self.sheet = sheet
        edge = sheet.between(centre)
        near = sheet.weights(centre) * (edge > -BEYOND)
        used = sheet.sizes(near * trust[:, None]) >= MIN_RUNNING
        self.near = near * used  # as if there were no outliers
        self.weight = self.near * trust[:, None]
        z = sheet.y[:, None] - centre
        self.basis = np.stack([np.ones_like(z), z, z * z], axis=-1)
        gram = np.einsum("nki,nk,nkj->kij", self.basis, self.weight, self.basis)
        gram[~used] = np.eye(3)
        inverse = np.linalg.inv(gram)
        self.solve = np.einsum("kij,nkj,nk->nki", inverse, self.basis, self.weight)  # coefficients from losses
        self.leverage = np.einsum("nki,nki->nk", self.solve, self.basis)
        # The schedule's effect, as far as it is no parabola in log N.
        apart = self.off(sheet.schedule)
        self.apart = self.weight * apart
        spread = float((self.apart * apart).sum())
        total = max(float(self.weight.sum()), 1e-300)
        variance = (
            float((self.weight * sheet.schedule**2).sum()) / total - float((self.weight * sheet.schedule).sum() / total) ** 2
        )
        self.known = spread / total / max(variance, FLAT)
        self.lift_of = self.apart / spread if self.known > KNOWN else np.zeros_like(apart)
        self.lift = float((self.lift_of * sheet.loss).sum())
        if self.lift < 0:
            self.lift, self.lift_of = 0.0, np.zeros_like(apart)
        flat = sheet.loss - self.lift * sheet.schedule
        coefficients = np.einsum("nki,nk->ki", self.solve, flat)
        self.convex = used & (coefficients[:, 2] > 0)
        self.curvature = np.where(self.convex, coefficients[:, 2], 1)
        self.shift = np.where(self.convex, np.clip(-coefficients[:, 1] / (2 * self.curvature), -REACH, REACH), 0)
        self.log_N = centre + self.shift
        self.inside = self.convex & (edge > 0)
        self.loss = coefficients[:, 0] - self.curvature * self.shift**2
        # The inverse variance of a minimum, for losses of equal variance; with a ceiling, lest few slices make the law.
        firm = np.where(self.convex, self.curvature**2 / inverse[:, 1, 1], 0)
        firm /= firm + (np.median(firm[self.convex]) if self.convex.any() else 1)
        self.steady = firm * np.clip((edge + BEYOND) / BEYOND, 0, 1)
        self.slice_weight = firm * np.clip(edge / MARGIN, 0, 1)
        self.residual = np.where(sheet.running, self.off(flat), 0)

    def off(self, values: np.ndarray) -> np.ndarray:
        """`values`, shape (curves, slices), less each slice's parabola through them."""
        return values - np.einsum("nki,ki->nk", self.basis, np.einsum("nki,nk->ki", self.solve, values))

    def lift_error(self) -> float:
        """The standard error of `lift`, for curves that are off as a whole."""
        level = np.where(self.sheet.loss > 0, self.sheet.loss, 1)
        room = max(float((self.near * np.clip(1 - self.leverage, 0, None)).sum()), 1e-300)
        off = float((self.near * (self.residual / level) ** 2).sum()) / room
        return float(np.sqrt(off * np.square((self.lift_of * level).sum(axis=1)).sum()))

    def law(self) -> np.ndarray:
        return np.polyfit(self.sheet.x[self.convex], self.log_N[self.convex], 1, w=np.sqrt(self.steady[self.convex]))

    def trust(self) -> np.ndarray:
        """Tukey's weight of each curve, by how far it lies from the parabolas on average."""
        near = self.near.sum(axis=1)
        mean = np.abs((self.near * self.residual).sum(axis=1) / np.where(near > 0, near, 1))
        typical = 1.4826 * np.median(mean[near > 0])
        return np.clip(1 - (mean / (OUTLIER * typical)) ** 2, 0, 1) ** 2 if typical > 1e-9 else np.ones_like(mean)


def speeds_up(curves: Sequence[Curve], losses: Sequence[np.ndarray]) -> bool:
    """Whether losses fall faster as the runs end than a power law that goes on as it began."""
    at = np.log([0.05, 0.1, 0.2, 0.4, 0.8])
    seen = [
        np.interp(at, np.log(curve.tokens / curve.tokens[-1]), loss)
        for curve, loss in zip(curves, losses, strict=True)
        if curve.tokens[0] <= 0.05 * curve.tokens[-1]
    ]
    if not seen:
        return False
    fell = -np.diff(np.array(seen), axis=1)
    without = fell.sum(axis=0) - np.vstack([np.zeros(4), fell])  # none of the curves, and each in turn
    if (without <= 0).any():
        return False
    first, second, _, last = np.log(without.T)
    speed = last - second - 2 * (second - first)
    error = np.sqrt(np.square(speed[1:] - speed[0]).sum() * (1 - 1 / len(seen)))  # the jackknife's
    return bool(speed[0] - error > np.log(SPED_UP) and last[0] - second[0] > np.log(STEEP))
