"""Kaplan et al.'s laws from a sweep's own table and curves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.laws import PF_DAY
from sweep.tables.curves import Curve
from sweep.tables.table import RunsLike, RunTable, as_runs

CURVE_POINTS = 20  # of each curve: its neighbouring points say the same
SETTLED = 0.2  # of the horizon: before it warm-up shows


def fit_kaplan(
    runs: RunsLike, curves: Sequence[Curve] = (), *, resamples: int = 200, level: float = 0.8, seed: int = 0
) -> dict[str, LawFit[Any] | LawError]:
    """Every law that a sweep shows, or why it does not show it.

    L_N, L_D and L_C, with C in PF-days, go through the runs that no run of at most as much N, D or C beats: the losses where
    only that was scarce. L_ND goes through all runs. L_NS goes through the last part of all curves, where the runs' batch is
    known; its steps are those taken, which are S_min only where batches were far above the critical one.

    Args:
        runs: the table; for the paper's own reading its N has no embeddings in it.
        curves: of the runs.
        resamples, level, seed: of the intervals.
    """
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    laws: dict[str, LawFit[Any] | LawError] = {}
    runs = as_runs(runs)
    for name, X in (("L_N", runs.N), ("L_D", runs.D), ("L_C", runs.C / PF_DAY)):
        best = unbeaten(X, runs.loss)
        laws[name] = _or_reason(lambda X=X, best=best: fit_scale_law(X[best], runs.loss[best], **options))  # type: ignore[misc]
    laws["L_ND"] = _or_reason(lambda: fit_size_data_law(runs.N, runs.D, runs.loss, **options))
    laws["L_NS"] = _or_reason(lambda: _fit_steps(runs, curves, options))
    return laws


def unbeaten(X: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Which runs have a lower loss than every run of at most as much X; both of shape (runs,)."""
    order = np.lexsort((loss, X))
    best = np.concatenate([[np.inf], np.minimum.accumulate(loss[order])[:-1]])
    found = np.zeros(len(X), dtype=bool)
    found[order] = loss[order] < best
    return found


def _fit_steps(runs: RunTable, curves: Sequence[Curve], options: dict[str, Any]) -> LawFit[Any]:
    if runs.batch_tokens is None or not curves:
        raise LawError("no_curves", "L(N, S) needs training curves and a column batch_tokens: give both, or leave it")
    batch = dict(zip(map(str, runs.run_id), runs.batch_tokens, strict=True))
    N, S, loss, owner = [], [], [], []
    for curve in curves:
        at = np.geomspace(SETTLED * curve.tokens[-1], curve.tokens[-1], CURVE_POINTS)
        N.append(np.full(CURVE_POINTS, curve.N))
        S.append(at / batch[curve.run_id])
        loss.append(np.exp(np.interp(np.log(at), np.log(curve.tokens), np.log(curve.loss))))
        owner += [curve.run_id] * CURVE_POINTS
    columns = (np.concatenate(values) for values in (N, S, loss))
    return fit_size_steps_law(*columns, clusters=np.array(owner), **options)


def _or_reason(fit: Callable[[], LawFit[Any]]) -> LawFit[Any] | LawError:
    try:
        return fit()
    except LawError as error:
        return error
