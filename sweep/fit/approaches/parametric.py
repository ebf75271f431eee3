"""Approach 3: the parametric loss surface (Hoffmann et al. 2022, section 3.3).

    L(N, D) = E + A / N^alpha + B / D^beta

fitted by the sum over runs of Huber_delta(LSE(a - alpha log N, b - beta log D, e) - log L). `sweep.fit.solver` says
what is minimised (objective), where the search starts (starts), how it descends (newton) and how it ends (search).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.bootstrap import resample_weights
from sweep.fit.result import Estimate, Status, check_intervals, positive
from sweep.fit.solver.objective import Objective
from sweep.fit.solver.search import Certificate, Search
from sweep.fit.surface import Compute, Surface
from sweep.tables.table import RunsLike, RunTable, as_runs

OBJECTIVES = ("huber", "lad", "log_mse", "linear_mse")
STARTING_MINIMA = 2  # the full fit's best and next-best, that every resample starts from
ILL_CONDITIONED = 1e7  # of IsoFLOP sweeps it is about 1e4
STEEPEST = 5  # exponents that were ever measured are below 1; the start grid ends at 2
NEGLIGIBLE_TERM, NEGLIGIBLE_E = 1e-3, 0.02  # shares of the predicted loss
ONE_BUDGET = 1.5  # between the 5 % and the 95 % quantile of C: below it all runs are of one budget
MIN_CLUSTERS = 3
COLLINEAR = 0.05  # the spread of log D at given log N, relative to that of log D, below which N and D are one variable


@dataclass(frozen=True, kw_only=True, eq=False)
class ParametricFit:
    """The surface, its compute-optimal frontier, and how it was reached.

    Attributes:
        E, A, B, alpha, beta: the constants, nats per token.
        a, b: exponents of N_opt and D_opt in C.
        objective: the sum at the optimum: of Huber losses, of |r| ("lad"), or of r^2 / 2 ("log_mse", "linear_mse").
        kind: which objective, one of `OBJECTIVES`.
        delta: of the Huber loss, None for the others.
        status: "converged"; "bound" if E is next to nothing, so that these runs do not tell it from zero; "flat" if the
            gradient did not vanish or the Hessian is not positive; "unidentified" if some direction is hardly determined.
        certificate: the evidence.
        surface: the constants as a `Surface`, with what C the runs cost.
        replicates: the same for every bootstrap resample, constants of shape (resamples,).
        residual_sd: standard deviation of log L about the surface, robust (from the median absolute residual).
        free: directions of (log A, log B, log E, alpha, beta) that were free, as columns.
        level: of the intervals.
    """

    E: Estimate
    A: Estimate
    B: Estimate
    alpha: Estimate
    beta: Estimate
    a: Estimate
    b: Estimate
    objective: float
    kind: str
    delta: float | None
    status: Status
    certificate: Certificate
    surface: Surface = field(repr=False)
    replicates: Surface = field(repr=False)
    residual_sd: float
    free: np.ndarray = field(repr=False)
    level: float

    @property
    def gradient_norm(self) -> float:
        """Of the certificate."""
        return self.certificate.gradient_norm

    def predict(self, N: Any, D: Any) -> Any:
        """L(N, D)."""
        return self.surface.predict(positive("N", N), positive("D", D))

    def optimal(self, C: Any) -> tuple[Any, Any]:
        """(N_opt, D_opt) at budgets `C`, in the FLOPs that the runs were counted in."""
        return self.surface.optimal(positive("C", C))

    def counted(self, compute: Compute) -> "ParametricFit":
        """The same fit where C is counted otherwise: the surface stays, its frontier moves."""
        surface, replicates = (replace(constants, compute=compute) for constants in (self.surface, self.replicates))
        a, b = (Estimate.from_resamples(getattr(surface, name), getattr(replicates, name), self.level) for name in ("a", "b"))
        return replace(self, surface=surface, replicates=replicates, a=a, b=b)

    def to_dict(self) -> dict[str, Any]:
        names = ("E", "A", "B", "alpha", "beta", "a", "b")
        values: dict[str, Any] = {name: getattr(self, name).to_dict() for name in names}
        values |= {
            name: getattr(self, name) for name in ("objective", "gradient_norm", "delta", "status", "kind", "residual_sd")
        }
        return values | {"certificate": self.certificate.to_dict(), "compute": dict(vars(self.surface.compute))}

    def summary(self) -> str:
        """For a reader."""
        notes = {
            "bound": ": these runs do not tell E from zero",
            "flat": ": the gradient does not vanish, or the minimum is no bowl",
            "unidentified": ": some combination of the constants is hardly determined",
        }
        proof = self.certificate
        what = "Huber" if self.kind == "huber" else self.kind
        width = f" at delta = {self.delta:g}" if self.delta is not None else ""
        lines = ["Approach 3, parametric surface", f"  a = {self.a}   b = {self.b}"]
        lines += [f"  {name:5} = {getattr(self, name)}" for name in ("E", "A", "B", "alpha", "beta")]
        lines += [
            f"  {what} objective {self.objective:.6g}{width}, {self.status}{notes.get(self.status, '')}",
            f"  {proof.basin_share:.0%} of {proof.starts} starts end here; gradient {proof.gradient_norm:.1g}, condition "
            f"number {proof.condition_number:.2g}" + (f", next basin {proof.next_basin:.6g}" if proof.next_basin else ""),
        ]
        return "\n".join(lines)


def fit_parametric(
    runs: RunsLike,
    D: ArrayLike | None = None,
    loss: ArrayLike | None = None,
    *,
    objective: str = "huber",
    delta: float = 1e-3,
    weights: ArrayLike | None = None,
    tied: bool = False,
    fixed_E: float | None = None,
    clusters: ArrayLike | None = None,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
) -> ParametricFit:
    """Fit the surface to final losses.

    Args:
        runs: a `RunTable`, a pandas table or a mapping with columns N, D, loss and, if they are known, C, budget, run_id; or
            the N of each run, followed by `D` and `loss`. At least six runs (one more than free constants), three different N
            and three different D.
        objective: "huber" of log residuals, as in the paper; "lad", their absolute values; "log_mse", their squares;
            "linear_mse", squares of L itself.
        delta: where the Huber loss turns linear.
        weights: of the runs, relative; if left out the table's column `weight`, or all 1.
        tied: alpha = beta.
        fixed_E: E, if it is known; 0 for a law without it.
        clusters: a label for each run; runs of one label, such as points of one trajectory, are resampled together. If left out
            the table's column `cluster`, or every run by itself.
        resamples: Bayesian bootstrap resamples of runs, each minimised from several starts. 0 for no intervals.
        level: of the central intervals.
        seed: of the resamples.

    Raises:
        LawError: if there are too few runs, N and D move together, a value is no loss, or the optimum runs off to where a
            constant has no meaning.
    """
    if objective not in OBJECTIVES:
        raise LawError("bad_option", f"objective={objective!r} is none of {', '.join(OBJECTIVES)}")
    if not 0 < positive("delta", delta) < np.inf:
        raise LawError("bad_option", f"delta={delta} is out of range; it must be finite (objective='log_mse' is its limit)")
    check_intervals(resamples, level, seed)
    table = as_runs(runs, D, loss)
    if fixed_E is not None:
        _require_above(table, fixed_E)
    log_N, log_D = np.log(table.N), np.log(table.D)
    centre = np.array([log_N.mean(), log_D.mean()])
    space = "linear" if objective == "linear_mse" else "log"
    target = table.loss if space == "linear" else np.log(table.loss)
    search = Search(
        objective=Objective(log_N - centre[0], log_D - centre[1], target, space),
        weight=_weights(table.weight if weights is None else weights, len(table)),
        delta={"huber": delta, "lad": None}.get(objective, np.inf),
        tied=tied,
        fixed_E=fixed_E,
    )
    _require_enough(table.where(search.weight > 0), free=search.basis.shape[1])
    labels = _labels(table.cluster if clusters is None else clusters, table)
    drawn = resample_weights(len(table), resamples, seed=seed, clusters=labels)

    minima, certificate = search.run()
    theta = minima[:1]
    shares = _shares(theta, search.objective)
    _require_identified(theta[0], shares)
    compute = Compute.of_runs(table.N, table.D, table.C)
    constants = {name: float(value[0]) for name, value in _constants(theta, centre).items()}
    surface = Surface(**constants, compute=compute)
    residual_sd = 1.4826 * float(np.median(np.abs(np.log(table.loss / surface.predict(table.N, table.D)))))
    replicas = search.resample(drawn, minima[:STARTING_MINIMA], residual_sd)
    replicates = Surface(**_constants(replicas, centre), compute=compute)
    return ParametricFit(
        **{
            name: Estimate.from_resamples(getattr(surface, name), getattr(replicates, name), level)
            for name in ("E", "A", "B", "alpha", "beta", "a", "b")
        },
        objective=search.value(theta),
        kind=objective,
        delta=delta if objective == "huber" else None,
        status=_status(certificate, E_is_nothing=fixed_E is None and shares[2].max() < NEGLIGIBLE_E),
        certificate=certificate,
        surface=surface,
        replicates=replicates,
        residual_sd=residual_sd,
        free=search.basis,
        level=level,
    )


def _status(certificate: Certificate, *, E_is_nothing: bool) -> Status:
    if E_is_nothing:
        return "bound"
    if not certificate.stationary or certificate.condition_number == np.inf:
        return "flat"
    return "unidentified" if certificate.condition_number > ILL_CONDITIONED else "converged"


def _constants(theta: np.ndarray, centre: np.ndarray) -> dict[str, np.ndarray]:
    """The surfaces' constants, each of shape (solutions,), from solutions in centred coordinates, shape (solutions, 5)."""
    # A resample can leave a constant unidentified and infinite; its interval then says so.
    with np.errstate(over="ignore"):
        A, B = np.exp(theta[:, :2] + theta[:, 3:] * centre).T
    return {"E": np.exp(theta[:, 2]), "A": A, "B": B, "alpha": theta[:, 3], "beta": theta[:, 4]}


def _weights(weights: ArrayLike | None, runs: int) -> np.ndarray:
    if weights is None:
        return np.ones(runs)
    try:
        weight = np.asarray(weights, dtype=float)
    except (TypeError, ValueError) as error:
        raise LawError("bad_option", f"weights are no numbers ({error})") from error
    if weight.shape != (runs,) or not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise LawError("bad_option", f"weights must be {runs} numbers, not negative and not all zero, one for each run")
    return weight * runs / weight.sum()


def _labels(clusters: ArrayLike | None, table: RunTable) -> np.ndarray | None:
    if clusters is None:
        return None
    labels = np.asarray(clusters).astype(str)
    if labels.shape != (len(table),):
        raise LawError("bad_option", f"clusters has shape {labels.shape}; give one label for each of the {len(table)} runs")
    if len(np.unique(labels)) < MIN_CLUSTERS:
        raise LawError("bad_option", f"clusters has fewer than {MIN_CLUSTERS} different labels; intervals need more, or none")
    return labels


def _require_enough(table: RunTable, free: int) -> None:
    sizes, horizons = len(np.unique(table.N)), len(np.unique(table.D))
    if len(table) <= free or min(sizes, horizons) < 3:
        raise LawError(
            "too_few_runs",
            f"{len(table)} runs of {sizes} sizes and {horizons} horizons; Approach 3 needs at least {free + 1} runs, 3 sizes "
            "and 3 horizons: widen the grid",
        )
    x, y = np.log(table.N), np.log(table.D)
    apart = y - np.polyval(np.polyfit(x, y, 1), x)
    low, high = np.quantile(table.C, [0.05, 0.95])
    if np.std(apart) < COLLINEAR * np.std(y) or high < ONE_BUDGET * low:
        raise LawError(
            "collinear",
            "D follows from N in every run (one budget, or one number of tokens per parameter), so their terms cannot be told "
            "apart: add runs at a second budget",
        )


def _require_above(table: RunTable, E: float) -> None:
    if not isinstance(E, int | float | np.number) or not 0 <= E < np.inf:
        raise LawError("bad_option", f"fixed_E={E} is out of range; it is a loss, or 0 for a law without it")
    lowest = int(table.loss.argmin())
    if table.loss[lowest] <= E:
        raise LawError(
            "loss_below_E",
            f"the loss {table.loss[lowest]:g} of {table.run_id[lowest]} is not above fixed_E={E:g}, which no run can beat: "
            "lower fixed_E",
        )


def _shares(theta: np.ndarray, problem: Objective) -> np.ndarray:
    """The share that each term, of N, of D and E, has in the predicted loss of every run; shape (3, runs)."""
    terms = [np.broadcast_to(term, (1, len(problem.x)))[0] for term in problem.terms(theta)]
    return np.stack(terms) / sum(terms)


def _require_identified(theta: np.ndarray, shares: np.ndarray) -> None:
    """Raises LawError if the term of N or of D is nowhere a thousandth of the loss, or as good as the same in all runs, or if
    an exponent is impossible."""
    for name, share in zip(("A / N^alpha", "B / D^beta"), shares[:2], strict=True):
        if share.max() < NEGLIGIBLE_TERM or np.ptp(share) < NEGLIGIBLE_TERM:
            raise LawError("unidentified", f"the term {name} does not show in these losses: widen the grid")
    for name, exponent in zip(("alpha", "beta"), theta[3:], strict=True):
        if not 0 < exponent < STEEPEST:
            reason = f"{name} = {exponent:.3g} at the optimum is not between 0 and {STEEPEST}: widen the grid"
            raise LawError("unidentified", reason)
