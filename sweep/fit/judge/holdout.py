"""Extrapolation, held out: fit the smaller budgets, predict the larger ones, compare with what was measured there.

A law is used to extrapolate, so this is the number to judge it by; how well it fits its own runs says little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches.isoflop import IsoflopFit, fit_isoflop
from sweep.fit.approaches.parametric import ParametricFit, fit_parametric
from sweep.fit.result import Estimate, check_intervals, positive
from sweep.tables.table import RunsLike, RunTable, as_runs

PARTS = 6  # of log C, where the runs name no budgets
ROUNDING = 0.9  # a run planned for a budget may fall this short of it, as steps are whole


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One held-out run: what was measured, and what runs of smaller budgets predicted, with a prediction interval."""

    run_id: str
    N: float
    D: float
    C: float
    loss: float
    predicted: Estimate

    @property
    def inside(self) -> bool | None:
        """Whether the measured loss lies in the interval; None if there is none."""
        if self.predicted.low is None or self.predicted.high is None:
            return None
        return self.predicted.low <= self.loss <= self.predicted.high

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "predicted": self.predicted.to_dict(), "inside": self.inside}


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The optimal N of a held-out budget: its own parabola's, and what each approach predicted from smaller budgets."""

    budget: float
    N_opt: float
    predicted: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self)}


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """A fit of the runs below `above` FLOPs, judged by the runs from there on.

    Attributes:
        above: the smallest budget that was held out.
        fitted: how many runs the fit used.
        factor: the largest C held out over the largest C fitted.
        predictions: one for each held-out run.
        optima: one for each held-out budget whose profile has a minimum.
        level: of the prediction intervals.
    """

    above: float
    fitted: int
    factor: float
    predictions: tuple[Prediction, ...]
    optima: tuple[Optimum, ...]
    level: float

    @property
    def bias(self) -> float:
        """Mean of predicted - measured loss, in nats."""
        return float(np.mean([p.predicted.value - p.loss for p in self.predictions]))

    @property
    def error(self) -> float:
        """Root mean square of predicted - measured loss, in nats."""
        return float(np.sqrt(np.mean([(p.predicted.value - p.loss) ** 2 for p in self.predictions])))

    @property
    def covered(self) -> float | None:
        """Share of the measured losses inside their intervals; None without intervals."""
        inside = [p.inside for p in self.predictions if p.inside is not None]
        return float(np.mean(inside)) if inside else None

    def to_dict(self) -> dict[str, Any]:
        scalars = {name: getattr(self, name) for name in ("above", "fitted", "factor", "bias", "error", "covered", "level")}
        rows = {"predictions": [p.to_dict() for p in self.predictions], "optima": [o.to_dict() for o in self.optima]}
        return {"status": "converged", **scalars, **rows}

    def summary(self) -> str:
        """For a reader."""
        inside = "" if self.covered is None else f", {self.covered:.0%} inside their {self.level:.0%} intervals"
        lines = [
            f"  {self.fitted} runs below C = {self.above:.3g} predict the {len(self.predictions)} from there on, "
            f"{self.factor:.2g} times as far: loss off by {self.error:.4f} (mean {self.bias:+.4f}){inside}"
        ]
        for optimum in self.optima:
            off = ", ".join(f"{name} {N / optimum.N_opt - 1:+.0%}" for name, N in optimum.predicted.items())
            lines.append(f"    N_opt at {optimum.budget:.3g} is {optimum.N_opt:.4g}; predicted: {off}")
        return "\n".join(lines)


def hold_out(
    runs: RunsLike,
    D: ArrayLike | None = None,
    loss: ArrayLike | None = None,
    budget: ArrayLike | None = None,
    *,
    last: int = 1,
    until: int | None = None,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
    **surface: Any,
) -> HoldOut:
    """Predict the runs of the largest budgets from all smaller ones, by the parametric surface (and N_opt by the profiles too).

    Runs are split by C at the smallest held-out budget, so that runs outside any profile fall on their side of it. Where no run
    names a budget, six equal parts of log C stand for budgets.

    Args:
        runs, D, loss, budget: as in `fit_isoflop`.
        last: how many of the largest budgets to hold out.
        until: hold out only this many of those, from the smallest on; all if left out.
        resamples, level, seed: of the intervals, which hold both what the fit does not know and the scatter of single runs.
        surface: other options of `fit_parametric`.

    Raises:
        LawError: if there are not enough budgets, or the smaller ones cannot be fitted.
    """
    table = as_runs(runs, D, loss, budget)
    budgets = _budgets(table)
    check_intervals(resamples, level, seed)
    if not isinstance(last, int) or not 0 < last < len(budgets):
        raise LawError("too_few_budgets", f"{last} of {len(budgets)} budgets cannot be held out; there must be others to fit")
    above = budgets[-last]
    end = np.inf if until is None or until >= last else budgets[until - last] * ROUNDING
    small = table.where(table.C < ROUNDING * above)
    held = table.where((table.C >= ROUNDING * above) & (table.C < end))
    if not len(held):
        raise LawError("too_few_runs", f"no run has between {above:.3g} and {end:.3g} FLOPs")
    fit = fit_parametric(small, resamples=resamples, level=level, seed=seed, **surface)
    predicted = predict_runs(fit, small, held.N, held.D, seed=seed)
    return HoldOut(
        above=float(above),
        fitted=len(small),
        factor=float(held.C.max() / small.C.max()),
        predictions=tuple(
            Prediction(
                run_id=str(held.run_id[i]),
                N=float(held.N[i]),
                D=float(held.D[i]),
                C=float(held.C[i]),
                loss=float(held.loss[i]),
                predicted=predicted[i],
            )
            for i in range(len(held))
        ),
        optima=_optima(table, small, held, fit),
        level=level,
    )


def predict_runs(fit: ParametricFit, fitted: RunsLike, N: ArrayLike, D: ArrayLike, *, seed: int = 0) -> tuple[Estimate, ...]:
    """The losses that single new runs should have, in nats per token, with prediction intervals of the fit's level.

    An interval holds what the fit does not know, from its replicates, and the scatter of single runs, from its residuals.

    Args:
        fit: of the runs `fitted`.
        fitted: as `fit_parametric` takes them.
        N, D: of the new runs, each of shape (runs,).
        seed: of the scatter that is drawn.
    """
    known = as_runs(fitted)
    sizes, horizons = np.atleast_1d(positive("N", N)), np.atleast_1d(positive("D", D))
    residuals = np.log(known.loss / fit.predict(known.N, known.D)) * np.sqrt(len(known) / max(len(known) - 5, 1))
    scatter = np.random.default_rng([seed, 1]).choice(residuals, (len(fit.replicates.E), len(sizes)))
    with np.errstate(all="ignore"):  # a resample may be without a surface
        drawn = fit.replicates.column().predict(sizes, horizons) * np.exp(scatter)
    values = fit.predict(sizes, horizons)
    return tuple(
        Estimate.from_resamples(float(value), losses, fit.level) for value, losses in zip(values, drawn.T, strict=True)
    )


def rolling_hold_out(runs: RunsLike, **options: Any) -> tuple[HoldOut, ...]:
    """`hold_out` for every budget in turn, each predicted from all smaller ones; where these cannot be fitted, it is left out.

    Raises:
        LawError: the last one's, if no budget can be predicted.
    """
    table = as_runs(runs)
    found, refusal = [], LawError("too_few_budgets", "there is one budget; to predict a larger one takes smaller ones")
    for last in range(len(_budgets(table)) - 1, 0, -1):
        try:
            found.append(hold_out(table, last=last, until=1, **options))
        except LawError as error:
            refusal = error
    if not found:
        raise refusal
    return tuple(found)


def _budgets(table: RunTable) -> np.ndarray:
    known = np.unique(table.budget[np.isfinite(table.budget)])
    if len(known) > 1:
        return known
    return np.unique(np.geomspace(table.C.min(), table.C.max(), PARTS + 1)[:-1] / ROUNDING)


def _optima(table: RunTable, small: RunTable, held: RunTable, fit: Any) -> tuple[Optimum, ...]:
    """N_opt of the held-out profiles against what the parametric and the IsoFLOP fit of the small runs say."""
    try:
        measured: Sequence[Any] = fit_isoflop(table, surface=fit.surface, resamples=0).profiles
    except LawError:
        return ()
    try:
        isoflop: IsoflopFit | None = fit_isoflop(small, surface=fit.surface, resamples=0)
    except LawError:
        isoflop = None
    optima = []
    for profile in measured:
        if profile.status == "converged" and profile.budget in held.budget:
            predicted = {"parametric": float(fit.optimal(profile.C_opt)[0])}
            if isoflop is not None:
                predicted["isoflop"] = float(isoflop.optimal(profile.C_opt)[0])
            optima.append(Optimum(budget=profile.budget, N_opt=profile.N_opt, predicted=predicted))
    return tuple(optima)
