"""Kaplan et al.'s laws from a sweep's own table and curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.laws import PF_DAY
from sweep.fit.result import Intervals, Refused, attempt
from sweep.tables.curves import Curve
from sweep.tables.table import RunsLike, RunTable, as_runs

CURVE_POINTS = 20  # of each curve: neighbouring points say the same
MIN_CURVE_POINTS, MAX_POINTS = 5, 12_000  # fewer of each where all curves would have more together
SETTLED = 0.2  # of the horizon: before it the warm-up shows


def fit_kaplan(
    runs: RunsLike, curves: Sequence[Curve] = (), *, intervals: Intervals = Intervals()
) -> dict[str, LawFit[Any] | Refused]:
    """Every law by its name, or why these runs do not show it.

    L_N, L_D and L_C, with C in PF-days, go through the runs that no run with at most as much N, D or C beats: there only N, D
    or C was scarce. L_ND goes through all runs. L_NS goes through the last part of all curves, if the batch size of the runs is
    known; its steps are those taken, which are S_min only where batches were far above the critical size.

    Args:
        runs: the table; in the paper N excludes embeddings.
        curves: of the runs.
        intervals: see `Intervals`.
    """
    laws: dict[str, LawFit[Any] | Refused] = {}
    runs = as_runs(runs)
    for name, X in (("L_N", runs.N), ("L_D", runs.D), ("L_C", runs.C / PF_DAY)):
        best = unbeaten(X, runs.loss)
        laws[name] = attempt(lambda X=X, best=best: fit_scale_law(X[best], runs.loss[best], intervals=intervals))  # type: ignore[misc]
    laws["L_ND"] = attempt(lambda: fit_size_data_law(runs.N, runs.D, runs.loss, intervals=intervals))
    laws["L_NS"] = attempt(lambda: _fit_steps(runs, curves, intervals))
    return laws


def unbeaten(X: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Which runs have a lower loss than every run of at most as much X; both of shape (runs,)."""
    order = np.lexsort((loss, X))
    best = np.concatenate([[np.inf], np.minimum.accumulate(loss[order])[:-1]])
    found = np.zeros(len(X), dtype=bool)
    found[order] = loss[order] < best
    return found


def _fit_steps(runs: RunTable, curves: Sequence[Curve], intervals: Intervals) -> LawFit[Any]:
    if runs.batch_tokens is None or not curves:
        raise LawError("no_curves", "L(N, S) needs training curves and a column batch_tokens in the table")
    batch = dict(zip(map(str, runs.run_id), runs.batch_tokens, strict=True))
    points = min(CURVE_POINTS, max(MIN_CURVE_POINTS, MAX_POINTS // len(curves)))
    N, S, loss, owner = [], [], [], []
    for curve in curves:
        at = np.geomspace(SETTLED * curve.tokens[-1], curve.tokens[-1], points)
        N.append(np.full(points, curve.N))
        S.append(at / batch[curve.run_id])
        loss.append(np.exp(np.interp(np.log(at), np.log(curve.tokens), np.log(curve.loss))))
        owner += [curve.run_id] * points
    columns = (np.concatenate(values) for values in (N, S, loss))
    return fit_size_steps_law(*columns, clusters=np.array(owner), intervals=intervals)
