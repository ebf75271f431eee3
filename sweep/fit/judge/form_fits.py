"""Other forms of L(N, D), judged by the budgets that they have not seen.

More constants always fit better; what counts is the loss of larger runs. Each form is fitted to the smaller budgets, predicts
the next one, for the largest few, and is compared with the best of them run by run.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.parametric import fit_parametric
from sweep.fit.judge.forms import FORMS, starts_of
from sweep.fit.result import NO_INTERVALS, Record, Refused, Tell, attempt, told
from sweep.fit.surface import Compute
from sweep.tables.table import RunTable
from sweep.words import counted

FOLDS = 4  # budgets held out
STEP = np.finfo(float).eps ** 0.5
MOST_RUNS = 400  # of each fit; more are thinned out evenly in C
SPARE = 3  # runs beyond the constants that a fold must have
WORSE, MUCH_WORSE = 2.0, 2.0  # standard errors, or times the error, by which a form is set aside for the best
FURTHER = 10.0  # times the largest C, where optima are told too
SPAN = 3.0  # about the middle C, over which a is measured


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedForm(Record):
    """One form, fitted to all runs.

    Attributes:
        name, equation: what it is.
        constants: how many were fitted.
        E: the loss that no run gets below; None if the form has none.
        rms: of its log residuals.
        held_out: root mean square error of log L on budgets that it was not fitted to; None if none could be held out.
        worse: by how many standard errors its squared errors there exceed those of the best form; 0 for the best.
        times: how many times as large as the best form's these errors are.
        theta, centre: its constants, and the middle of (log N, log D) that they refer to.
        compute: what C the runs cost.
        largest: the largest C.
    """

    fitted: ClassVar[bool] = True
    name: str
    equation: str
    constants: int
    E: float | None
    rms: float
    held_out: float | None = None
    worse: float = 0.0
    times: float = 1.0
    theta: np.ndarray
    centre: np.ndarray
    compute: Compute
    largest: float

    @property
    def set_aside(self) -> bool:
        """Whether it predicts larger budgets worse than another form."""
        return self.worse > WORSE or self.times > MUCH_WORSE

    def predict(self, N: Any, D: Any) -> Any:
        """L(N, D), nats per token."""
        x, y = np.log(np.asarray(N, dtype=float)) - self.centre[0], np.log(np.asarray(D, dtype=float)) - self.centre[1]
        return FORMS[self.name][0](self.theta, x, y)

    def optimal(self, C: float) -> tuple[float, float]:
        """(N_opt, D_opt) at `C` FLOPs, by minimisation along it."""
        from scipy.optimize import minimize_scalar

        tokens = self.compute.tokens
        reach = self.centre[0] + np.log(C / self.compute.flops(*np.exp(self.centre))) / 2 + np.linspace(-7, 7, 141)
        lowest = int(self.predict(np.exp(reach), tokens(np.exp(reach), C)).argmin())
        ends = reach[max(lowest - 1, 0)], reach[min(lowest + 1, len(reach) - 1)]
        found = minimize_scalar(lambda x: float(self.predict(np.exp(x), tokens(np.exp(x), C))), bounds=ends, method="bounded")
        return float(np.exp(found.x)), float(tokens(np.exp(found.x), C))

    def optimal_loss(self, C: float) -> float:
        return float(self.predict(*self.optimal(C)))

    @property
    def a(self) -> float:
        """The exponent of N_opt at the middle of the runs; of forms but Chinchilla's it changes with C."""
        C = float(self.compute.flops(*np.exp(self.centre)))
        low, high = self.optimal(C / SPAN)[0], self.optimal(C * SPAN)[0]
        return float(np.log(high / low) / np.log(SPAN**2))

    def to_dict(self) -> dict[str, Any]:
        optima = []
        for C in (self.largest, FURTHER * self.largest):
            N, D = self.optimal(C)
            optima.append({"C": C, "N": N, "D": D, "loss": float(self.predict(N, D))})
        names = ("name", "equation", "constants", "E", "a", "rms", "held_out", "worse", "times", "set_aside")
        return self.pick(*names) | {"optima": optima}

    def line(self) -> str:
        E = "" if self.E is None else f", E = {self.E:.4g}"
        held = "nothing held out" if self.held_out is None else f"held out off by {self.held_out:.2%}"
        verdict = f", {self.times:.2g} times the best, by {self.worse:.1f} standard errors" if self.set_aside else ""
        further = FURTHER * self.largest
        N, D = self.optimal(further)
        there = f"at C = {further:.3g} N = {N:.3g}, D = {D:.3g}, loss {self.optimal_loss(further):.4g}"
        return f"{self.name:17} {held}{verdict}; a = {self.a:.4g} in the middle{E}; {there}; own runs off by {self.rms:.2%}"


def fit_forms(table: RunTable, delta: float = 1e-3, *, tell: Tell | None = None) -> dict[str, FittedForm | Refused]:
    """Every form by its name, the best at predicting larger budgets first, then what could not be fitted.

    Args:
        table: the runs.
        delta: of the Huber loss of log residuals, as in Approach 3.
        tell: is told how far this is; see `Tell`.
    """
    folds = _folds(table)
    fitted: dict[str, Any] = {name: attempt(partial(_fit, name, table, delta)) for name in FORMS}
    errors: dict[str, np.ndarray] = {}
    for name, form in told(tell, "forms of L(N, D)", list(fitted.items())):
        if not form.fitted or not folds:
            continue
        with suppress(LawError):  # then the smaller budgets do not bear this form
            off = [(_fit(name, small, delta, form.theta), held) for small, held in folds]
            errors[name] = np.concatenate([np.log(each.predict(held.N, held.D) / held.loss) for each, held in off])
    if not errors:
        return fitted
    best = min(errors, key=lambda name: float((errors[name] ** 2).sum()))
    judged: dict[str, Any] = {}
    for name in sorted(errors, key=lambda name: float((errors[name] ** 2).sum())):
        form, squares, least = fitted[name], errors[name] ** 2, errors[best] ** 2
        error = float((squares - least).std(ddof=1)) / len(squares) ** 0.5 if len(squares) > 1 else 0.0
        judged[name] = replace(
            form,
            held_out=float(squares.mean() ** 0.5),
            worse=float((squares - least).mean()) / error if error > 0 else 0.0,
            times=float((squares.mean() / least.mean()) ** 0.5),
        )
    return judged | {name: form for name, form in fitted.items() if name not in judged}


def _folds(table: RunTable) -> list[tuple[RunTable, RunTable]]:
    """The runs below each of the largest budgets, and those of that budget."""
    budgets = np.unique(table.budget[np.isfinite(table.budget)])
    if len(budgets) < 3:
        budgets = np.geomspace(table.C.min(), table.C.max(), 7)[:-1]
    folds = [
        (table.where(table.C < low * 0.9), table.where((table.C >= low * 0.9) & (table.C < high * 0.9)))
        for low, high in zip(budgets, [*budgets[1:], np.inf], strict=True)
    ]
    return [(small, held) for small, held in folds[-FOLDS:] if len(held) and len(small) >= 5 + SPARE]


def _fit(name: str, table: RunTable, delta: float, near: np.ndarray | None = None) -> FittedForm:
    from scipy.optimize import least_squares

    form, equation, constants, has_E = FORMS[name]
    if len(table) < constants + SPARE:
        reason = (
            f"{counted(len(table), 'run')} for the {constants} constants of {equation}; it needs {constants + SPARE}: add runs"
        )
        raise LawError("too_few_runs", reason)
    thin = np.argsort(table.C, kind="stable")[:: max(1, len(table) // MOST_RUNS)]
    logs = np.log([table.N, table.D])
    centre = logs.mean(axis=1)
    (x, y), log_L = logs - centre[:, None], np.log(table.loss)
    middle = table.where(thin)
    unit = fit_parametric(middle, delta=delta, intervals=NO_INTERVALS).surface
    unit = replace(unit, A=unit.A * np.exp(-unit.alpha * centre[0]), B=unit.B * np.exp(-unit.beta * centre[1]))

    def residuals(theta: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            off = np.log(form(theta, x[thin], y[thin])) - log_L[thin]
        return np.where(np.isfinite(off), np.clip(off, -9, 9), 9.0)

    def slopes(theta: np.ndarray) -> np.ndarray:
        """Of the residuals, by the differences that scipy would take, all of them in one call of the form."""
        steps = STEP * np.where(theta < 0, -1, 1) * np.maximum(1, np.abs(theta))
        shifted = np.column_stack([theta, theta[:, None] + np.diag(steps)])
        found = residuals(shifted[:, :, None])
        return ((found[1:] - found[0]) / steps[:, None]).T

    starts = starts_of(name, unit, x, y) + ([] if near is None else [near])
    options: dict[str, Any] = {"loss": "huber", "f_scale": delta, "x_scale": "jac", "max_nfev": 200}
    theta = min((least_squares(residuals, start, slopes, **options) for start in starts), key=lambda found: found.cost).x
    rms = float(np.sqrt(np.mean((np.log(form(theta, x, y)) - log_L) ** 2)))
    return FittedForm(
        name=name,
        equation=equation,
        constants=constants,
        E=float(np.exp(theta[0])) if has_E else None,
        rms=rms,
        theta=theta,
        centre=centre,
        compute=Compute.of_runs(table.N, table.D, table.C),
        largest=float(table.C.max()),
    )
