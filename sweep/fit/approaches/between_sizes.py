"""The best size at each C, read between the sizes that were trained.

The run that is best at a C is one of a few. So the paper's envelope is a staircase: where it begins and ends there are no
smaller or larger sizes to win, and in between the luckiest runs win. Here all runs near the optimum count at each C: a parabola
in log N through their losses has its minimum between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.sheet import KNOWN, MIN_RUNNING, Parabolas, Sheet, speeds_up
from sweep.tables.curves import Curve

SLICES = 120
MIN_SLICES = 8
MIN_DECADES = 0.7  # of C between the sizes: a law through less says little
CHANCE = 0.95  # of the resamples of a smooth law are closer to it
MIN_FREEDOM = 0.9  # of the curves about the parabolas, for intervals
ROUNDS, STILL = 60, 1e-6
WARMED_UP = 1e-4  # share of a run before which its learning rate still rises, even in the longest runs
LATE = 0.4  # share of a run before which points count less where the rate decays, as its effect is only roughly the cosine
SURE = 2  # standard errors
LIFTED = 0.005  # of the loss: a smaller effect of the schedule is none


@dataclass(frozen=True, kw_only=True, eq=False)
class Slices:
    """The optimum at those of SLICES log-spaced C that have one between the sizes.

    Attributes:
        x: log C, shape (slices,).
        log_N, log_loss: the best size and its loss, shape (slices,).
        weight: of each slice in a law, shape (slices,): the inverse variance of log_N.
        drawn_log_N, drawn_log_loss: both for each resample, shape (resamples, slices).
        misfit: how many times as far the optima are off a smooth law as the curves' deviations explain; 1 where that is chance.
            The resamples of log_N are spread by it.
        lift: how much higher losses are before the learning rate has decayed, nats.
        decades, of_decades: of C, how many have an optimum between the sizes, and how many any run covers.
    """

    x: np.ndarray
    log_N: np.ndarray
    log_loss: np.ndarray
    weight: np.ndarray
    drawn_log_N: np.ndarray = field(repr=False)
    drawn_log_loss: np.ndarray = field(repr=False)
    misfit: float
    lift: float
    decades: float
    of_decades: float


def read_between_sizes(curves: Sequence[Curve], losses: Sequence[np.ndarray], *, resamples: int, seed: int) -> Slices:
    """The optima of `curves`, sorted by N; `losses` are theirs, smoothed.

    Raises:
        LawError: "undecayed" if losses in mid-schedule cannot be compared, "too_few_sizes" if the best size is the smallest or
            the largest at nearly all C.
    """
    ends = np.log([curve.tokens[-1] * curve.flops_per_token for curve in curves])
    starts = np.maximum(np.log([curve.tokens[0] * curve.flops_per_token for curve in curves]), ends + np.log(WARMED_UP))
    x = np.linspace(np.sort(starts)[min(MIN_RUNNING, len(starts)) - 1], ends.max(), SLICES)
    step = (x[1] - x[0]) / np.log(10)
    sheet, valley = _settle(curves, losses, x, late=0)
    if (valley is None or valley.known <= KNOWN) and speeds_up(curves, losses):
        raise LawError(
            "undecayed",
            "losses fall faster towards the end of each run, as under a decaying learning rate, and no two horizons of a size "
            "tell by how much: losses in mid-schedule cannot be compared; train each size to several horizons, or fit "
            "Approaches 2 and 3 to the final losses",
        )
    if valley is not None and valley.lift > max(LIFTED * np.median(valley.loss[valley.convex]), SURE * valley.lift_error()):
        late = _settle(curves, losses, x, LATE)
        # Where late points alone cannot tell the schedule's effect, all do better.
        if late[1] is not None and late[1].known > KNOWN:
            sheet, valley = late
    decades = float(valley.inside.sum() * step) if valley is not None else 0.0
    if valley is None or decades < MIN_DECADES:
        raise LawError("too_few_sizes", _too_little(sheet, decades, SLICES * step))
    kept = valley.inside
    drawn_log_N, drawn_log_loss = (drawn[:, kept] for drawn in _draw(valley, resamples, np.random.default_rng(seed)))
    misfit = _misfit(x[kept], valley.log_N[kept], drawn_log_N, valley.slice_weight[kept])
    return Slices(
        x=x[kept],
        log_N=valley.log_N[kept],
        log_loss=np.log(valley.loss[kept]),
        weight=valley.slice_weight[kept],
        drawn_log_N=valley.log_N[kept] + misfit * (drawn_log_N - valley.log_N[kept]),
        drawn_log_loss=drawn_log_loss,
        misfit=misfit,
        lift=valley.lift,
        decades=decades,
        of_decades=float(SLICES * step),
    )


def _settle(
    curves: Sequence[Curve], losses: Sequence[np.ndarray], x: np.ndarray, late: float
) -> tuple[Sheet, Parabolas | None]:
    """The parabolas about the line through their own minima, found in rounds; None where too few have a minimum."""
    sheet = Sheet(curves, losses, x, WARMED_UP, late)
    law, trust = sheet.first_guess(), np.ones(len(curves))
    for _ in range(ROUNDS):
        valley = Parabolas(sheet, law, trust)
        if valley.convex.sum() < MIN_SLICES:
            return sheet, None
        found = valley.law()
        moved, law = np.abs(found - law).max(), (law + found) / 2
        trust = (trust + valley.trust()) / 2
        if moved < STILL:
            break
    return sheet, valley


def _misfit(x: np.ndarray, log_N: np.ndarray, drawn: np.ndarray, weight: np.ndarray) -> float:
    """See `Slices`; a smooth law is a parabola in log C, so that a bend is none."""
    if not len(drawn):
        return 1.0
    rows, root = np.vstack([log_N, drawn - log_N]), np.sqrt(weight)
    basis = root[:, None] * np.vander(x - x.mean(), 3)
    rest = root * rows - (basis @ np.linalg.lstsq(basis, (root * rows).T, rcond=None)[0]).T
    off = np.square(rest).sum(axis=1)
    return float(np.sqrt(off[0] / off[1:].mean())) if off[0] > np.quantile(off[1:], CHANCE) else 1.0


def _too_little(sheet: Sheet, decades: float, of: float) -> str:
    """Why there is no law, and what to do."""
    best = sheet.y[np.where(sheet.running, sheet.loss, np.inf).argmin(axis=0)]
    any_run = sheet.running.any(axis=0)
    small, large = (float(np.mean(best[any_run] == edge[any_run])) for edge in (sheet.smallest, sheet.largest))
    add = f"smaller than {np.exp(sheet.y[0]):.3g}" if small > large else f"larger than {np.exp(sheet.y[-1]):.3g}"
    return (
        f"the best size lies between {MIN_RUNNING} sizes or more at {decades:.1f} of {of:.1f} decades of C; Approach 1 needs "
        f"{MIN_DECADES}. The smallest size that runs is best at {small:.0%} of C, the largest at {large:.0%}: add sizes {add}"
    )


def _draw(valley: Parabolas, resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Optima and log losses with new deviations of the curves, each of shape (resamples, slices).

    Deviations are drawn with the variance, and the correlation along a curve, of the curves' distances from the parabolas;
    how they move the optimum is linear. Student's t counts how few curves the variance is known from. NaN if there are too few.
    """
    sheet, V = valley.sheet, valley.near
    level = np.where(sheet.loss > 0, sheet.loss, 1)
    e = np.sqrt(V) * valley.residual / level
    spare = np.sqrt(V * np.clip(1 - valley.leverage, 0, None))
    slices = len(sheet.x)
    products, room = (
        np.array([float((of[:, lag:] * of[:, : slices - lag]).sum()) for lag in range(slices)]) for of in (e, spare)
    )
    freedom = float(((V * (1 - valley.leverage)).sum(axis=1) / np.maximum(V.sum(axis=1), 1e-300)).sum())
    if freedom < MIN_FREEDOM:
        return (np.full((resamples, slices), np.nan),) * 2
    # Lags that hardly any curve spans are taken to be like the longest that some do.
    longest = np.flatnonzero(room > 0.02 * room[0])[-1]
    covariance = (products / np.maximum(room, 1e-300))[np.minimum(np.arange(slices), longest)]
    # Runs of one size may share a deviation: the mean product of different ones.
    of_runs, of_room = e.sum(axis=1), spare.sum(axis=1)
    space = float(np.square(np.bincount(sheet.size, of_room)).sum() - np.square(of_room).sum())
    product = float(np.square(np.bincount(sheet.size, of_runs)).sum() - np.square(of_runs).sum())
    shared = float(np.clip(product / space, 0, covariance[0])) if space > 1e-9 * room[0] else 0.0
    covariance -= shared
    values, vectors = np.linalg.eigh(covariance[np.abs(np.subtract.outer(np.arange(slices), np.arange(slices)))])
    root = vectors * np.sqrt(np.clip(values, 0, None))  # an estimate may have negative ones; without them it is larger
    root *= np.sqrt(covariance[0] / np.maximum(np.square(root).sum(axis=1), 1e-300))[:, None]
    # How far a loss moves a minimum follows from the curvature, of which each slice's own is one noisy value.
    convex, shift = valley.convex, valley.shift
    trend = np.polyfit(sheet.x[convex], np.log(valley.curvature[convex]), 1, w=np.sqrt(valley.steady[convex]))
    of_height, of_slope, of_curvature = np.moveaxis(valley.solve, -1, 0) * convex
    to_N = -(of_slope / 2 + of_curvature * shift) / np.exp(np.polyval(trend, sheet.x))
    to_loss = of_height + of_slope * shift + of_curvature * shift**2
    lifted = [(to * sheet.schedule).sum(axis=0) for to in (to_N, to_loss)]
    lowest = np.where(valley.inside, valley.loss, 1)
    N, log_loss = np.empty((resamples, slices)), np.empty((resamples, slices))
    for i in range(resamples):
        of_size = np.sqrt(shared) * rng.standard_normal(sheet.size[-1] + 1)[sheet.size]
        deviation = rng.standard_normal(level.shape) @ root.T + of_size[:, None]
        moved = level * deviation * np.sqrt(freedom / rng.chisquare(freedom))
        lift = float((valley.lift_of * moved).sum())
        N[i] = valley.log_N + (to_N * moved).sum(axis=0) - lift * lifted[0]
        log_loss[i] = np.log(lowest) + ((to_loss * moved).sum(axis=0) - lift * lifted[1]) / lowest
    return N, log_loss
