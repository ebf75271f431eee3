"""Extrapolation, held out: fit the smaller budgets, predict the larger ones, compare with what was measured there.

A law is used to extrapolate, so it should be judged by this; how well it fits its own runs says little.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches import Laws, Options
from sweep.fit.approaches.parametric import ParametricFit, fit_parametric
from sweep.fit.judge.predictions import HoldOut, Optimum, Prediction, RollingHoldOut
from sweep.fit.result import NO_INTERVALS, SAME, Estimate, Intervals, Tell, positive, told
from sweep.tables.table import RunsLike, RunTable, as_runs

PARTS = 6  # of log C, where the runs name no budgets
MAX_HOLD_OUTS = 12  # more of them say the same
ROUNDING = 0.9  # a run planned for a budget may fall this short of it, as steps are whole
WITHOUT_INTERVALS = Options(intervals=NO_INTERVALS)


def hold_out(
    runs: RunsLike,
    D: ArrayLike | None = None,
    loss: ArrayLike | None = None,
    budget: ArrayLike | None = None,
    *,
    last: int = 1,
    until: int | None = None,
    intervals: Intervals = Intervals(),
    laws: Laws | None = None,
    **surface: Any,
) -> HoldOut:
    """Predict the runs of the largest budgets from all smaller ones, by the parametric surface (and N_opt by the profiles too).

    Runs are split by C at the smallest held-out budget, so that runs outside any profile are on the right side of it. Where no
    run names a budget, six equal parts of log C take their place.

    Args:
        runs, D, loss, budget: as in `fit_isoflop`.
        last: how many of the largest budgets to hold out.
        until: hold out only this many of those, from the smallest on; all if left out.
        intervals: see `Intervals`; they include the uncertainty of the fit and the scatter of single runs.
        laws: of the same runs, fitted before; their profiles are the measured optima.
        surface: other options of `fit_parametric`.

    Raises:
        LawError: "too_few_budgets" or "too_few_runs" if there is nothing to predict or to fit; and as `fit_parametric`.
    """
    table = as_runs(runs, D, loss, budget)
    above, end = held_out_range(table, last, until)
    small, held = table.where(table.C < above), table.where((table.C >= above) & (table.C < end))
    if not len(held):
        raise LawError("too_few_runs", f"no run has between {above:.3g} and {end:.3g} FLOPs; hold out another budget")
    fit = fit_parametric(small, intervals=intervals, **surface)
    predicted = predict_runs(fit, small, held.N, held.D, seed=intervals.seed)
    measured = (laws or Laws(runs=table, options=WITHOUT_INTERVALS))["isoflop"]
    return HoldOut(
        above=float(budgets_of(table)[-last]),
        fitted=len(small),
        factor=float(held.C.max() / small.C.max()),
        predictions=tuple(
            Prediction(run_id=str(run_id), N=float(N), D=float(D), C=float(C), loss=float(loss), predicted=estimate)
            for run_id, N, D, C, loss, estimate in zip(held.run_id, held.N, held.D, held.C, held.loss, predicted, strict=True)
        ),
        optima=_optima(measured.profiles, small, held, fit) if measured.fitted else (),
        level=intervals.level,
    )


def predict_runs(fit: ParametricFit, fitted: RunsLike, N: ArrayLike, D: ArrayLike, *, seed: int = 0) -> tuple[Estimate, ...]:
    """The losses that single new runs should have, in nats per token, with prediction intervals of the fit's level: of the
    uncertainty of the fit, from its replicates, and the scatter of single runs, from its residuals.

    Args:
        fit: of the runs `fitted`.
        fitted: as `fit_parametric` takes them.
        N, D: of the new runs, each of shape (runs,).
        seed: of the scatter.
    """
    known = as_runs(fitted)
    sizes, horizons = np.atleast_1d(positive("N", N)), np.atleast_1d(positive("D", D))
    residuals = np.log(known.loss / fit.predict(known.N, known.D)) * np.sqrt(len(known) / max(len(known) - 5, 1))
    scatter = np.random.default_rng([seed, 1]).choice(residuals, (len(fit.replicates.E), len(sizes)))
    with np.errstate(all="ignore"):  # a resample may have no surface
        drawn = fit.replicates.column().predict(sizes, horizons) * np.exp(scatter)
    values = fit.predict(sizes, horizons)
    return tuple(
        Estimate.from_resamples(float(value), losses, fit.level) for value, losses in zip(values, drawn.T, strict=True)
    )


def rolling_hold_out(runs: RunsLike, *, laws: Laws | None = None, tell: Tell | None = None, **options: Any) -> RollingHoldOut:
    """`hold_out` for every budget in turn, each predicted from all smaller ones. A budget is left out if they cannot be fitted;
    of more than twelve, twelve are predicted, evenly spread, the largest among them.

    Args:
        runs: the table.
        laws: of the same runs, fitted before.
        tell: is told how far this is; see `Tell`.
        options: of `hold_out`.

    Raises:
        LawError: that of the last attempt, if no budget can be predicted.
    """
    table = as_runs(runs)
    laws = laws or Laws(runs=table, options=WITHOUT_INTERVALS)
    found, refusal = [], LawError("too_few_budgets", "there is one budget; predicting a larger one needs smaller ones")
    most = len(budgets_of(table)) - 1
    held = np.unique(np.linspace(1, most, min(most, MAX_HOLD_OUTS)).round().astype(int))[::-1].tolist()
    for last in told(tell, "held-out budgets", held):
        try:
            found.append(hold_out(table, last=last, until=1, laws=laws, **options))
        except LawError as error:
            refusal = error
    if not found:
        raise refusal
    return RollingHoldOut(tuple(found))


def held_out_range(table: RunTable, last: int = 1, until: int | None = None) -> tuple[float, float]:
    """From what C on, and up to which, runs are held out; see `hold_out`. Raises LawError if that leaves no budget to fit."""
    budgets = budgets_of(table)
    if not isinstance(last, int) or not 0 < last < len(budgets):
        raise LawError("too_few_budgets", f"{last} of {len(budgets)} budgets cannot be held out; there must be others to fit")
    ends = budgets * ROUNDING * (1 - SAME)
    return float(ends[-last]), float(np.inf if until is None or until >= last else ends[until - last])


def budgets_of(table: RunTable) -> np.ndarray:
    """The budgets of the runs, in FLOPs, ascending."""
    known = np.unique(table.budget[np.isfinite(table.budget)])
    if len(known) > 1:
        return known
    return np.unique(np.geomspace(table.C.min(), table.C.max(), PARTS + 1)[:-1] / ROUNDING)


def _optima(profiles: Any, small: RunTable, held: RunTable, fit: ParametricFit) -> tuple[Optimum, ...]:
    """N_opt of the held-out profiles, and as each approach predicts it from the runs `small`, whose surface is `fit`."""
    laws = dict(Laws(runs=small, options=WITHOUT_INTERVALS, known={fit.name: fit}).items())
    return tuple(
        Optimum(
            budget=profile.budget,
            N_opt=profile.N_opt,
            predicted={name: float(laws[name].optimal(profile.C_opt)[0]) for name in reversed(laws) if laws[name].fitted},
        )
        for profile in profiles
        if profile.status == "converged" and profile.budget in held.budget
    )
