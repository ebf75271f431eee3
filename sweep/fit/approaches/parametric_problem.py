"""The problem that Approach 3 solves, and what it requires of the runs and of the optimum.

Every threshold lies orders of magnitude above rounding: a law is accepted or refused alike on every processor.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.result import SAME, Estimate, Status, count_distinct
from sweep.fit.solver.finish import Certificate
from sweep.fit.solver.objective import Objective
from sweep.fit.solver.search import Search
from sweep.fit.span import require_span
from sweep.fit.surface import Surface
from sweep.tables.table import RunTable
from sweep.words import counted

OBJECTIVES = {
    "huber": "sum of Huber losses of log residuals",
    "lad": "sum of absolute log residuals",
    "log_mse": "sum of squared log residuals",
    "linear_mse": "sum of squared residuals of L",
}
NOTES = {
    "bound": ": these runs do not tell E from zero",
    "flat": ": the gradient does not vanish, or the minimum is not a bowl",
    "unidentified": ": some combination of the constants is hardly determined",
}
UNKNOWN = "not identified by these runs"
BY_CONSTRUCTION = "by construction, no interval"  # a value that the options imply, whatever the runs say
ILL_CONDITIONED = 1e7  # IsoFLOP sweeps have about 1e4
MAX_EXPONENT = 5  # measured exponents are below 1; the start grid ends at 2
NEGLIGIBLE_TERM, NEGLIGIBLE_E = 1e-3, 0.02  # shares of the predicted loss
ONE_BUDGET = 1.5 * (1 - SAME)  # between the 5 % and the 95 % quantile of C; below it all runs have one budget
COLLINEAR = 0.05  # the spread of log D at given log N, relative to that of log D, below which N and D are one variable


def prepare(
    table: RunTable, objective: str, delta: float, weight: np.ndarray, tied: bool, fixed_E: float | None
) -> tuple[Search, np.ndarray]:
    """The search for the optimum, and the means of log N and log D about which it is centred, shape (2,)."""
    log_N, log_D = np.log(table.N), np.log(table.D)
    centre = np.array([log_N.mean(), log_D.mean()])
    space = "linear" if objective == "linear_mse" else "log"
    target = table.loss if space == "linear" else np.log(table.loss)
    search = Search(
        objective=Objective(log_N - centre[0], log_D - centre[1], target, space),
        weight=weight,
        delta={"huber": delta, "lad": None}.get(objective, np.inf),
        tied=tied,
        fixed_E=fixed_E,
    )
    return search, centre


def constants_of(theta: np.ndarray, centre: np.ndarray) -> dict[str, np.ndarray]:
    """The surfaces' constants, each of shape (solutions,), from solutions in centred coordinates, shape (solutions, 5)."""
    # A resample can leave a constant unidentified and infinite; its interval then says so.
    with np.errstate(over="ignore"):
        A, B = np.exp(theta[:, :2] + theta[:, 3:] * centre).T
    return {"E": np.exp(theta[:, 2]), "A": A, "B": B, "alpha": theta[:, 3], "beta": theta[:, 4]}


def check_weights(weights: ArrayLike | None, runs: int) -> np.ndarray:
    """The weight of each run, shape (runs,), with a mean of 1. Raises LawError if `weights` are none."""
    if weights is None:
        return np.ones(runs)
    try:
        weight = np.asarray(weights, dtype=float)
    except (TypeError, ValueError) as error:
        raise LawError("bad_option", f"weights are not numbers ({error}); give one number for each run") from error
    if weight.shape != (runs,) or not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise LawError("bad_option", f"weights must be {runs} numbers, not negative and not all zero, one for each run")
    return weight * runs / weight.sum()


def require_enough(table: RunTable, free: int) -> None:
    """Raises LawError unless the runs can tell the two terms and `free` constants apart: "too_few_runs", "narrow_range" or
    "collinear"."""
    sizes, horizons = count_distinct(table.N), count_distinct(table.D)
    if len(table) <= free or min(sizes, horizons) < 3:
        raise LawError(
            "too_few_runs",
            f"{counted(len(table), 'run')} of {counted(sizes, 'size')} and {counted(horizons, 'horizon')}; Approach 3 needs "
            f"at least {free + 1} runs, 3 sizes and 3 horizons: widen the grid",
        )
    require_span("N", table.N)
    require_span("D", table.D)
    x, y = np.log(table.N), np.log(table.D)
    apart = y - np.polyval(np.polyfit(x, y, 1), x)
    low, high = np.quantile(table.C, [0.05, 0.95])
    if np.std(apart) < COLLINEAR * np.std(y) or high < ONE_BUDGET * low:
        raise LawError(
            "collinear",
            "D follows from N in every run (one budget, or one number of tokens per parameter), so their terms cannot be told "
            "apart: add runs at a second budget",
        )


def require_above(table: RunTable, E: float) -> None:
    """Raises LawError unless `E` is a loss below all of the table's, or 0."""
    if not isinstance(E, int | float | np.number) or not 0 <= E < np.inf:
        raise LawError("bad_option", f"fixed_E={E} is out of range; it is a loss, or 0 for a law without E")
    lowest = int(table.loss.argmin())
    if table.loss[lowest] <= E:
        reason = f"the loss {table.loss[lowest]:g} of {table.run_id[lowest]} is not above fixed_E={E:g}, which no run can beat"
        raise LawError("loss_below_E", f"{reason}: lower fixed_E")


def require_identified(theta: np.ndarray, problem: Objective) -> np.ndarray:
    """The share of E in the predicted loss of every run, shape (runs,), at the optimum `theta`, shape (1, 5). Raises LawError
    if the term of N or of D is nowhere a thousandth of the loss, or moves by less than that over all runs and so is part of E,
    or if its exponent is impossible."""
    terms = np.stack([np.broadcast_to(term, (1, len(problem.x)))[0] for term in problem.terms(theta)])
    total = terms.sum(axis=0)
    names = (("A / N^alpha", "alpha"), ("B / D^beta", "beta"))
    for term, exponent, (name, symbol) in zip(terms[:2], theta[0, 3:], names, strict=True):
        # A constant term is a second E, however large: what identifies it is how far it moves.
        if (term / total).max() < NEGLIGIBLE_TERM or np.ptp(term) < NEGLIGIBLE_TERM * total.mean():
            raise LawError("unidentified", f"the term {name} does not show in these losses: widen the grid")
        if not 0 < exponent < MAX_EXPONENT:
            reason = f"{symbol} = {exponent:.3g} at the optimum is not between 0 and {MAX_EXPONENT}: widen the grid"
            raise LawError("unidentified", reason)
    return terms[2] / total


def status_of(certificate: Certificate, *, E_is_free: bool, share_of_E: np.ndarray) -> Status:
    """What is wrong with an identified fit, if anything."""
    if E_is_free and share_of_E.max() < NEGLIGIBLE_E:
        return "bound"
    if not certificate.stationary or certificate.condition_number == np.inf:
        return "flat"
    return "unidentified" if certificate.condition_number > ILL_CONDITIONED else "converged"


def estimates(surface: Surface, replicates: Surface, level: float, free: np.ndarray, status: str) -> dict[str, Any]:
    """All constants and exponents by name, without an interval for what the runs do not identify or `free` implies."""
    notes = dict.fromkeys(surface.constants if status in ("flat", "unidentified") else (), UNKNOWN)
    notes |= dict.fromkeys("ab" if (free[3] == free[4]).all() else "", BY_CONSTRUCTION)
    notes |= {} if free[2].any() else {"E": BY_CONSTRUCTION}
    return {
        name: Estimate(float(getattr(surface, name)), note=notes[name])
        if name in notes
        else Estimate.from_resamples(getattr(surface, name), getattr(replicates, name), level)
        for name in (*surface.constants, "a", "b")
    }
