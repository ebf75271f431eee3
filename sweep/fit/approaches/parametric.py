"""Approach 3: the parametric loss surface (Hoffmann et al. 2022, section 3.3).

    L(N, D) = E + A / N^alpha + B / D^beta

fitted by the sum over runs of Huber_delta(LSE(a - alpha log N, b - beta log D, e) - log L). `sweep.fit.solver` says
what is minimised and where the search starts (objective), how it descends (newton) and how it ends (search, finish).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches import parametric_problem as problem
from sweep.fit.approaches.approach import Approach, Options
from sweep.fit.bootstrap import check_clusters, resample_weights
from sweep.fit.result import Estimate, Intervals, positive
from sweep.fit.solver.finish import Certificate
from sweep.fit.solver.memory import Memory
from sweep.fit.surface import Compute, Surface
from sweep.tables.table import RunsLike, as_runs

if TYPE_CHECKING:
    from sweep.fit.approaches import Laws

MEMORY = Memory()
STARTING_MINIMA = 2  # every resample starts from the full fit's best and next-best minimum


@dataclass(frozen=True, kw_only=True, eq=False)
class ParametricFit(Approach):
    """The surface, its compute-optimal frontier, and how it was reached.

    Attributes:
        E, A, B, alpha, beta: the constants; E in nats per token.
        objective: the sum at the optimum: of Huber losses, of |r| ("lad"), or of r^2 / 2 ("log_mse", "linear_mse").
        kind: which objective, one of `OBJECTIVES`.
        delta: of the Huber loss, None for the others.
        status: "converged"; "bound" if E is so small that these runs cannot tell it from zero; "flat" if the gradient did not
            vanish or the Hessian is not positive; "unidentified" if some direction is hardly determined.
        certificate: the evidence.
        surface: the constants as a `Surface`, with what C the runs cost.
        replicates: the same for every bootstrap resample, constants of shape (resamples,).
        residual_sd: standard deviation of log L about the surface, robust (from the median absolute residual).
        free: directions of (log A, log B, log E, alpha, beta) that were free, as columns, shape (5, free).
    """

    name: ClassVar[str] = "parametric"
    number: ClassVar[int] = 3
    method: ClassVar[str] = "parametric surface"
    form: ClassVar[str] = "L(N, D) = E + A / N^alpha + B / D^beta"
    resampled: ClassVar[str] = "runs (Bayesian bootstrap)"
    variants: ClassVar[dict[str, str]] = {"parametric surface": "a"}
    has_other_sizes: ClassVar[bool] = True
    has_surface: ClassVar[bool] = True

    E: Estimate
    A: Estimate
    B: Estimate
    alpha: Estimate
    beta: Estimate
    objective: float
    kind: str
    delta: float | None
    certificate: Certificate
    surface: Surface = field(repr=False)
    replicates: Surface = field(repr=False)
    residual_sd: float
    free: np.ndarray = field(repr=False)

    @classmethod
    def fit(cls, laws: "Laws") -> "ParametricFit":
        return fit_parametric(laws.runs, **laws.options.surface)

    def predict(self, N: Any, D: Any) -> Any:
        return self.surface.predict(positive("N", N), positive("D", D))

    def optimal(self, C: Any) -> tuple[Any, Any]:
        return self.surface.optimal(positive("C", C))

    def optimal_loss(self, C: Any) -> Any:
        return self.surface.frontier_loss(C)

    def resampled_at(self, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):  # a resample may have no frontier
            N, D = self.replicates.optimal(C)
            return N, D, self.replicates.frontier_loss(C)

    def penalty(self, C: float, factor: float) -> Estimate:
        with np.errstate(all="ignore"):  # a resample may have no frontier
            return Estimate.from_resamples(self.surface.penalty(C, factor), self.replicates.penalty(C, factor), self.level)

    def counted(self, compute: Compute) -> "ParametricFit":
        """The same fit with C counted otherwise: the surface stays, its frontier moves."""
        surface, replicates = (replace(constants, compute=compute) for constants in (self.surface, self.replicates))
        estimates = problem.estimates(surface, replicates, self.level, self.free, self.status)
        return replace(self, surface=surface, replicates=replicates, **estimates)

    def to_dict(self) -> dict[str, Any]:
        values = self.pick("E", "A", "B", "alpha", "beta", "a", "b", "objective", "delta", "status", "kind", "residual_sd")
        proof = {"gradient_norm": self.certificate.gradient_norm, "certificate": self.certificate.to_dict()}
        return values | proof | {"compute": self.surface.compute.to_dict()}

    def remarks(self) -> list[str]:
        what = "Huber" if self.kind == "huber" else self.kind
        width = f" at delta = {self.delta:g}" if self.delta is not None else ""
        note = f"{what} objective {self.objective:.6g}{width}, {self.status}{problem.NOTES.get(self.status, '')}"
        return [note, self.certificate.line()]

    def summary(self) -> str:
        heading, exponents, *remarks = super().summary().split("\n")
        constants = [f"  {name:5} = {getattr(self, name)}" for name in ("E", "A", "B", "alpha", "beta")]
        return "\n".join([heading, exponents, *constants, *remarks])

    def choices(self, options: Options, unit: str) -> Iterator[tuple[str, str]]:
        width = f", delta = {options.delta:g}" if options.objective == "huber" else ""
        yield "Objective, Approach 3", problem.OBJECTIVES[options.objective] + width
        yield "Optimiser and starts", f"Newton's method with exact gradients and Hessians; {self.certificate.line()}"
        yield "Convergence", f"{self.status}, objective {self.objective:.6g}"


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
    intervals: Intervals = Intervals(),
) -> ParametricFit:
    """Fit the surface by a global search for the least sum of losses of the residuals.

    Args:
        runs: a table with columns N, D (or C) and loss, and optionally C, budget, run_id; or the N of each run, followed by `D`
            and `loss`. At least six runs (one more than free constants), three different N and three different D.
        objective: "huber" of log residuals, as in the paper; "lad", their absolute values; "log_mse", their squares;
            "linear_mse", squares of the residuals of L itself.
        delta: where the Huber loss becomes linear.
        weights: of the runs, relative; by default the table's column `weight`, or all 1.
        tied: alpha = beta.
        fixed_E: E, if it is known; 0 for a law without E.
        clusters: a label for each run. Runs with one label, such as points of one trajectory, are resampled together. By
            default the table's column `cluster`, or every run by itself.
        intervals: see `Intervals`; of Bayesian bootstrap resamples of the runs, each minimised from several starts.

    Raises:
        LawError: "too_few_runs", "narrow_range" (N or D hardly varies) or "collinear" if the runs cannot tell the constants
            apart, "bad_option" if an option is out of range, "unidentified" if a term does not show in the losses.
    """
    if objective not in problem.OBJECTIVES:
        raise LawError("bad_option", f"objective={objective!r} is none of {', '.join(problem.OBJECTIVES)}")
    if not 0 < positive("delta", delta) < np.inf:
        raise LawError("bad_option", f"delta={delta} is out of range; it must be finite (objective='log_mse' is its limit)")
    table = as_runs(runs, D, loss)
    if fixed_E is not None:
        problem.require_above(table, fixed_E)
    weight = problem.check_weights(table.weight if weights is None else weights, len(table))
    search, centre = problem.prepare(table, objective, delta, weight, tied, fixed_E)
    problem.require_enough(table.where(search.weight > 0), free=search.basis.shape[1])
    labels = check_clusters(table.cluster if clusters is None else clusters, len(table))
    labels = labels if labels is None else labels.astype(str)

    # Neither depends on C: other counts of it have the same surface.
    arrays, options = [table.N, table.D, table.loss, weight], (objective, delta, tied, fixed_E)
    minima, certificate = MEMORY.get(arrays, options, search.run)
    theta = minima[:1]
    share_of_E = problem.require_identified(theta, search.objective)
    compute = Compute.of_runs(table.N, table.D, table.C)
    constants = {name: float(value[0]) for name, value in problem.constants_of(theta, centre).items()}
    surface = Surface(**constants, compute=compute)
    residual_sd = 1.4826 * float(np.median(np.abs(np.log(table.loss / surface.predict(table.N, table.D)))))

    def resample() -> np.ndarray:
        drawn = resample_weights(len(table), intervals.resamples, seed=intervals.seed, clusters=labels)
        return search.resample(drawn, minima[:STARTING_MINIMA], residual_sd)

    replicas = MEMORY.get([*arrays, labels], (*options, intervals), resample)
    replicates = Surface(**problem.constants_of(replicas, centre), compute=compute)
    status = problem.status_of(certificate, E_is_free=fixed_E is None, share_of_E=share_of_E)
    return ParametricFit(
        **problem.estimates(surface, replicates, intervals.level, search.basis, status),
        objective=search.value(theta),
        kind=objective,
        delta=delta if objective == "huber" else None,
        status=status,
        certificate=certificate,
        surface=surface,
        replicates=replicates,
        residual_sd=residual_sd,
        free=search.basis,
        level=intervals.level,
    )
