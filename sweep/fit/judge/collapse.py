"""Curve collapse, a check of the runs: near the optimum the loss curves of all sizes are one curve.

With compute and reducible loss divided by their values at the end, x = C / C_end and (L(x) - E) / (L(1) - E), the curves of
compute-optimal runs fall on each other (Qiu et al. 2025, arXiv 2507.02119), and those of runs whose learning rate, batch or
weight decay does not suit their size do not (Bergsma et al. 2025, arXiv 2509.25087). It needs curves of at least four runs near
the optimum, and E in the loss of the curves: where E is that of held-out text, its distance to the training loss counts too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.envelope import CurvesLike
from sweep.fit.result import Record
from sweep.tables.curves import as_curves
from sweep.tables.table import RunsLike, as_runs

MIN_RUNS, MIN_SIZES = 4, 3
NEAR = 1.05  # of the reducible loss that as much compute should buy: at this a size is wrong by a factor of three
SAME_BUDGET = 0.01  # of log C
FIRST, POINTS, MIN_POINTS = 0.1, 16, 5  # x from here, at so many points; before it the warm-up shows
WHOLE = 0.95  # of its run's tokens that a curve must reach
STANDS_OUT, LEAST = 3.0, 0.1  # times as far off as the median run, and at least so far: a size wrong by three is off by 0.06
CHANCE = 0.025  # that noise alone spreads the curves as much
GRID = 0.05  # errors of E, and sizes beside the optimum, spread the curves of planted sweeps by up to this


class Outlier(NamedTuple):
    """A run whose curve stands out: by how much at its worst, relative to the median of the curves, and where."""

    run_id: str
    deviation: float
    x: float

    def line(self) -> str:
        side = "above" if self.deviation > 0 else "below"
        return f"{self.run_id} stands out: {abs(self.deviation):.1%} {side} the others at x = {self.x:.2g}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Collapse(Record):
    """How well the curves of the runs near the optimum collapse.

    Attributes:
        E: the loss that was subtracted, nats per token.
        run_id, N, C: the runs near the optimum, C ascending, shape (runs,).
        x: shares of the compute, shape (points,); the last is 1.
        curves: the normalised curves, shape (runs, points).
        spread: their standard deviation over their mean, shape (points,): the collapse deviation of Qiu et al.
        delta: the root mean square of `spread` before the end.
        noise: the `delta` that the scatter along each curve would give alone.
        within: whether `delta` is no larger than such noise makes it in 39 of 40 cases, or the sizes of a grid do.
        outliers: the runs whose curves stand out, the furthest first.
    """

    fitted = True
    E: float
    run_id: tuple[str, ...]
    N: np.ndarray
    C: np.ndarray
    x: np.ndarray
    curves: np.ndarray
    spread: np.ndarray
    delta: float
    noise: float
    within: bool
    outliers: tuple[Outlier, ...]

    def to_dict(self) -> dict[str, object]:
        lists = {"run_id": list(self.run_id), "x": self.x.tolist(), "spread": self.spread.tolist()}
        return {**self.pick("E", "delta", "noise", "within"), **lists, "outliers": [one._asdict() for one in self.outliers]}

    def summary(self) -> str:
        verdict = "they collapse" if self.within else "no collapse: rates or batches do not suit all sizes, or E is off"
        head = (
            f"{len(self.run_id)} normalised curves near the optimum spread by {self.delta:.2%}, their noise by {self.noise:.2%}"
        )
        return "\n  ".join([f"{head}; {verdict}", *(one.line() for one in self.outliers)])


def collapse(curves: CurvesLike, runs: RunsLike, E: float | None) -> Collapse:
    """Compare the normalised curves of the runs near the optimum.

    Args:
        curves: smoothed training curves of `runs`.
        runs: the table. Near the optimum are those that no run of as much compute or less beats, and whose reducible loss is
            at most 5 % above the power law of C through them, or twice as far as these scatter about it.
        E: the irreducible loss, as of Approach 3, nats per token.

    Raises:
        LawError: "no_curves" or "no_E" without them; "bad_E" if a curve near the optimum ends below E; "too_few_runs" if fewer
            than four runs of three sizes near the optimum have curves from x = 0.1 to the end.
    """
    from scipy.special import chdtri

    drawn = as_curves(curves)
    if not drawn:
        raise LawError("no_curves", "there are no training curves to compare: add them beside the table of runs")
    if E is None:
        raise LawError("no_E", "no surface gives E, without which losses cannot be normalised: see why Approach 3 was refused")
    table = as_runs(runs)
    if not (table.loss > E).all():
        raise LawError("bad_E", f"E = {E:.4g} is not below the lowest loss, {table.loss.min():.4g}: give a lower E")
    log_C, reducible = np.log(table.C), np.log(table.loss - E)
    # Runs of one budget differ a little in C, so a run must also beat those of a percent more.
    order = np.argsort(log_C, kind="stable")
    lowest = np.minimum.accumulate(table.loss[order])
    best = table.loss <= lowest[np.searchsorted(log_C[order], log_C + SAME_BUDGET, side="right") - 1]
    # The line of Theil and Sen: the smallest budget's only run is among the best, however far it lies from the optimum.
    i, j = np.triu_indices(best.sum(), 1)
    x, y = log_C[best], reducible[best]
    slope = np.median(((y[j] - y[i]) / (x[j] - x[i]))[x[i] != x[j]]) if len(np.unique(x)) > 1 else 0.0
    above = reducible - slope * log_C
    above -= np.median(above[best])
    near = np.flatnonzero(best & (above <= max(np.log(NEAR), 2 * np.median(np.abs(above[best])))))
    near, known = near[np.argsort(table.C[near], kind="stable")], {curve.run_id: curve for curve in drawn}
    pairs = [(i, known[name]) for i, name in zip(near, map(str, table.run_id[near]), strict=True) if name in known]
    pairs = [(i, c) for i, c in pairs if c.tokens[-1] >= WHOLE * table.D[i] and (c.tokens <= FIRST * c.tokens[-1]).any()]
    points = min([POINTS, *(int((c.tokens > FIRST * c.tokens[-1]).sum()) for _, c in pairs)])
    rows = [i for i, _ in pairs]
    if len(pairs) < MIN_RUNS or len(np.unique(table.N[rows])) < MIN_SIZES or points < MIN_POINTS:
        have = f"{len(pairs)} runs near the optimum have a whole curve, of {len(np.unique(table.N[rows]))} sizes"
        reason = f"{have}; {MIN_RUNS} runs of {MIN_SIZES} sizes, with {MIN_POINTS} points past x = {FIRST:g} each, are needed"
        raise LawError("too_few_runs", f"{reason}: add runs near the optimum, or log losses more often")
    x = np.geomspace(FIRST, 1, points)
    losses = np.array([np.exp(np.interp(np.log(x * c.tokens[-1]), np.log(c.tokens), np.log(c.loss))) for _, c in pairs])
    if not (losses > E).all():
        worst_row = rows[int(losses.min(axis=1).argmin())]
        where = f"the curve of {table.run_id[worst_row]} goes down to {losses.min():.4g}"
        raise LawError("bad_E", f"{where}, which is not above E = {E:.4g}: give E of the training loss, as by fit.loss=train")
    shape = (losses - E) / (losses[:, -1:] - E)
    spread = shape.std(axis=0, ddof=1) / shape.mean(axis=0)
    delta = float(np.sqrt(np.mean(spread[:-1] ** 2)))
    # Second differences along a curve, less those that all curves share, are noise alone: of one point they have 6 times the
    # variance. Every normalised point carries its own noise and that of the end.
    bends = np.diff(np.log(shape) - np.log(shape).mean(axis=0), n=2, axis=1)
    noise = float(np.sqrt(2 * np.mean(bends**2) / 6 * len(rows) / (len(rows) - 1)))
    bound = noise * np.sqrt(chdtri(len(rows) - 1, CHANCE) / (len(rows) - 1))
    off = shape / np.median(shape, axis=0) - 1
    far = np.sqrt(np.mean(off[:, :-1] ** 2, axis=1))
    limit = max(STANDS_OUT * float(np.median(far)), STANDS_OUT * noise, LEAST)
    worst = np.abs(off).argmax(axis=1)
    return Collapse(
        E=float(E),
        run_id=tuple(str(table.run_id[i]) for i in rows),
        N=table.N[rows],
        C=table.C[rows],
        x=x,
        curves=shape,
        spread=spread,
        delta=delta,
        noise=noise,
        within=bool(delta <= np.hypot(bound, GRID)),
        outliers=tuple(
            Outlier(str(table.run_id[rows[k]]), float(off[k, worst[k]]), float(x[worst[k]]))
            for k in np.argsort(-far, kind="stable")
            if far[k] > limit
        ),
    )
