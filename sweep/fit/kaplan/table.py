"""Kaplan et al.'s laws from a sweep's own table and curves, and the steps that curves took to reach a loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.envelope import CurvesLike
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.law_fit import LawFit, columns
from sweep.fit.kaplan.laws import B_CRIT, PF_DAY, CriticalBatch
from sweep.fit.result import Intervals, Refused, attempt
from sweep.store.curves import smooth_curve
from sweep.tables.curves import Curve, as_curves
from sweep.tables.table import RunsLike, RunTable, as_runs

CURVE_POINTS = 20  # of each curve: neighbouring points say the same
MIN_CURVE_POINTS, MAX_POINTS = 5, 12_000  # fewer of each where all curves would have more together
SETTLED = 0.2  # of the horizon: before it the warm-up shows
AS_TAKEN = (
    "S is the steps as taken, not S_min: the same only where all batches are far above the critical size B_crit(L). Elsewhere "
    "S_c and alpha_S hold the factor 1 + B_crit / B too, and its change with L and B; fit.critical_batch corrects this"
)
KAPLANS = "; these are Kaplan et al.'s, measured on WebText2 in nats per token of their tokenizer, and a guess on other text"


def fit_kaplan(
    runs: RunsLike,
    curves: CurvesLike = (),
    *,
    critical_batch: CriticalBatch | None = None,
    intervals: Intervals = Intervals(),
) -> dict[str, LawFit[Any] | Refused]:
    """Every law by its name, or why these runs do not show it.

    L_N, L_D and L_C, with C in PF-days, go through the runs that no run with at most as much N, D or C beats: there only N, D
    or C was scarce. L_ND goes through all runs. L_NS goes through the last part of all curves, if the batch size of the runs is
    known, as S_min = S / (1 + B_crit(L) / B) (equation 5.4) if `critical_batch` is given; else its steps are those taken, which
    are S_min only where batches were far above the critical size, and its `note` says so.

    Args:
        runs: the table; in the paper N excludes embeddings.
        curves: of the runs.
        critical_batch: B_crit(L) in tokens, for losses like those of the curves: `fit_critical_batch` measures it;
            `sweep.fit.kaplan.laws.B_CRIT` is the paper's, which holds for its text and tokenizer.
        intervals: see `Intervals`.
    """
    laws: dict[str, LawFit[Any] | Refused] = {}
    runs, known = as_runs(runs), as_curves(curves)
    for name, X in (("L_N", runs.N), ("L_D", runs.D), ("L_C", runs.C / PF_DAY)):
        best = unbeaten(X, runs.loss)
        laws[name] = attempt(partial(fit_scale_law, X[best], runs.loss[best], intervals=intervals))
    laws["L_ND"] = attempt(lambda: fit_size_data_law(runs.N, runs.D, runs.loss, intervals=intervals))
    laws["L_NS"] = attempt(lambda: _fit_steps(runs, known, critical_batch, intervals))
    return laws


def unbeaten(X: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Which runs have a lower loss than every run of at most as much X; both of shape (runs,)."""
    order = np.lexsort((loss, X))
    best = np.concatenate([[np.inf], np.minimum.accumulate(loss[order])[:-1]])
    found = np.zeros(len(X), dtype=bool)
    found[order] = loss[order] < best
    return found


def _fit_steps(
    runs: RunTable, curves: Sequence[Curve], critical_batch: CriticalBatch | None, intervals: Intervals
) -> LawFit[Any]:
    if runs.batch_tokens is None or not curves:
        raise LawError("no_curves", "L(N, S) needs training curves and a column batch_tokens in the table")
    batch = dict(zip(map(str, runs.run_id), runs.batch_tokens, strict=True))
    points = min(CURVE_POINTS, max(MIN_CURVE_POINTS, MAX_POINTS // len(curves)))
    N, B, S, loss, owner = [], [], [], [], []
    for curve in curves:
        at = np.geomspace(SETTLED * curve.tokens[-1], curve.tokens[-1], points)
        N.append(np.full(points, curve.N))
        B.append(np.full(points, batch[curve.run_id]))
        S.append(at / batch[curve.run_id])
        loss.append(np.exp(np.interp(np.log(at), np.log(curve.tokens), np.log(curve.loss))))
        owner += [curve.run_id] * points
    of_N, of_B, steps, of_loss = map(np.concatenate, (N, B, S, loss))
    note = AS_TAKEN
    if critical_batch is not None:
        taken, steps = steps, critical_batch.S_min(steps, of_B, of_loss)
        constants = f"B_star = {critical_batch.B_star:.4g} tokens and alpha_B = {critical_batch.alpha_B:.4g}"
        shares = f"which leaves {(steps / taken).min():.2g} to {(steps / taken).max():.2g} of the steps taken"
        whose = KAPLANS if critical_batch == B_CRIT else ""
        note = f"S_min = S / (1 + B_crit(L) / B), {shares}, with {constants} as given, taken as exact{whose}"
    fit = fit_size_steps_law(of_N, steps, of_loss, clusters=np.array(owner), intervals=intervals)
    return replace(fit, note=note)


class StepsToLoss(NamedTuple):
    """Measurements, columns of shape (rows,): with batches of `batch_tokens`, `loss` was first reached after `steps`."""

    batch_tokens: np.ndarray
    steps: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True, kw_only=True)
class BatchCurve:
    """A training curve at one batch size: losses after `steps` steps, both of shape (points,), steps ascending."""

    batch_tokens: float
    steps: np.ndarray
    loss: np.ndarray


def steps_to_loss(curves: Sequence[BatchCurve], losses: Any, *, sigma: float = 0) -> StepsToLoss:
    """When each curve first reached each loss, between its points linear in log S and log L.

    Args:
        curves: of one model at several batch sizes. Their rate must not decay before they reach the losses: what a schedule's
            end gains is no measure of the batch.
        losses: levels, shape (levels,).
        sigma: of the Gaussian that smooths each curve first, in points; see `smooth_curve`. The first crossing of a noisy curve
            is too early.

    Returns:
        A row for each curve and level that the curve goes through, so not those it starts below or never reaches; the
        arguments of `fit_critical_batch`.

    Raises:
        LawError: "bad_input" if a value is not a positive finite number or steps do not ascend; "unreached" if there is no row.
    """
    rows = []
    levels = columns(losses=losses)["losses"]
    for number, curve in enumerate(curves):
        name = f"curves[{number}]"
        columns(**{f"{name}.batch_tokens": [curve.batch_tokens]})
        steps, raw = columns(**{f"{name}.steps": curve.steps, f"{name}.loss": curve.loss}).values()
        if not (np.diff(steps) > 0).all():
            raise LawError("bad_input", f"{name}.steps do not ascend: sort its points, and keep one of each step")
        log_S, log_L = np.log(steps), np.log(smooth_curve(raw, sigma))
        for loss in levels:
            i = int(np.argmax(log_L <= np.log(loss)))  # 0 too if it never is
            if i > 0:
                part = (log_L[i - 1] - np.log(loss)) / (log_L[i - 1] - log_L[i])
                rows.append((curve.batch_tokens, np.exp(log_S[i - 1] + part * (log_S[i] - log_S[i - 1])), loss))
    if not rows:
        raise LawError("unreached", f"none of {len(curves)} curves goes through any of the losses: choose others")
    return StepsToLoss(*np.array(rows, dtype=float).T)
