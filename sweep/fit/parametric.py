"""Approach 3: the parametric loss surface (Hoffmann et al. 2022, section 3.3).

    L(N, D) = E + A / N^alpha + B / D^beta

fitted by the sum over runs of Huber_delta(LSE(a - alpha log N, b - beta log D, e) - log L), with A = exp a, B = exp b,
E = exp e. The 4,500 starts of the paper run side by side as one batch through a safeguarded Newton method with exact
gradient and Hessian, first on a wide Huber loss, whose basins are broad; the best distinct points then follow delta down
to its value. Logs are centred, which cuts the Hessian's condition number a thousandfold.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from sweep.fit.result import Estimate, LawError
from sweep.fit.table import RunTable

MIN_RUNS = 6  # one more than there are constants
SCREEN_STEPS, SURVIVORS = 12, 48
WIDE_DELTA = 0.1
FLAT_GRADIENT = 1e-7  # of the summed objective, per unit of log-constant
STEEPEST = 5  # exponents that were ever measured are below 1; the start grid ends at 2
NEGLIGIBLE_TERM, NEGLIGIBLE_E = 1e-3, 0.02  # shares of the predicted loss


@dataclass(frozen=True, kw_only=True)
class ParametricFit:
    """The surface, its compute-optimal frontier for C = 6 N D, and how it was reached.

    Attributes:
        E, A, B, alpha, beta: the constants, nats per token.
        a, b: exponents of N_opt and D_opt in C: beta / (alpha + beta) and alpha / (alpha + beta).
        objective: the summed Huber loss at the optimum.
        gradient_norm: of the objective there, in (a, b, e, alpha, beta) with centred logs.
        delta: of the Huber loss.
        status: "converged"; "bound" if E is next to nothing at the optimum, so that these runs do not tell it from zero; or
            "flat" if the gradient did not vanish.
    """

    E: Estimate
    A: Estimate
    B: Estimate
    alpha: Estimate
    beta: Estimate
    a: Estimate
    b: Estimate
    objective: float
    gradient_norm: float
    delta: float
    status: str

    def predict(self, N: np.ndarray, D: np.ndarray) -> np.ndarray:
        """L(N, D)."""
        return self.E.value + self.A.value / N**self.alpha.value + self.B.value / D**self.beta.value

    def optimal(self, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N_opt, D_opt) at budgets `C` = 6 N D: equation 4 of the paper."""
        alpha, beta = self.alpha.value, self.beta.value
        G = (alpha * self.A.value / (beta * self.B.value)) ** (1 / (alpha + beta))
        return G * (C / 6) ** self.a.value, (C / 6) ** self.b.value / G

    def to_dict(self) -> dict:
        names = ("E", "A", "B", "alpha", "beta", "a", "b")
        values = {name: getattr(self, name).to_dict() for name in names}
        scalars = {name: getattr(self, name) for name in ("objective", "gradient_norm", "delta", "status")}
        return values | scalars


@dataclass(frozen=True)
class _Problem:
    """Centred logs of the runs, shape (runs,), and how often each run counts, shape (runs,) or (problems, runs)."""

    x: np.ndarray  # log N - its mean
    y: np.ndarray  # log D - its mean
    z: np.ndarray  # log L
    weight: np.ndarray

    def of(self, chosen: np.ndarray) -> "_Problem":
        """The problems that `chosen` selects; all problems share one weight if it has one axis."""
        return self if self.weight.ndim == 1 else _Problem(self.x, self.y, self.z, self.weight[chosen])


def fit_parametric(
    runs: RunTable, *, delta: float = 1e-3, resamples: int = 200, level: float = 0.8, seed: int = 0
) -> ParametricFit:
    """Fit the surface to the final losses of `runs`.

    Args:
        runs: at least six, with at least three different N and three different D.
        delta: where the Huber loss of the log residuals turns linear.
        resamples: bootstrap resamples of runs, each polished from the best points of the full fit.
        level: of the central intervals.
        seed: of the resamples.

    Raises:
        LawError: if there are too few runs, or the optimum runs off to where a constant has no meaning.
    """
    if len(runs) < MIN_RUNS or min(len(np.unique(runs.N)), len(np.unique(runs.D))) < 3:
        raise LawError(
            "too_few_runs",
            f"{len(runs)} runs of {len(np.unique(runs.N))} sizes and {len(np.unique(runs.D))} horizons; Approach 3 needs at "
            f"least {MIN_RUNS} runs, 3 sizes and 3 horizons",
        )
    log_N, log_D = np.log(runs.N), np.log(runs.D)
    centre = np.array([log_N.mean(), log_D.mean()])
    problem = _Problem(log_N - centre[0], log_D - centre[1], np.log(runs.loss), np.ones(len(runs)))

    screened = _newton(_starts(centre), problem, max(delta, WIDE_DELTA), SCREEN_STEPS)
    survivors = _best_distinct(screened, problem, delta)
    solutions = _follow_delta(survivors, problem, delta)
    value, gradient, _ = _objective(solutions, problem, delta)
    best = int(np.argmin(value))
    theta = solutions[best]
    shares = _largest_shares(theta, problem)
    _require_identified(theta, shares)

    replicas = _bootstrap(_best_distinct(solutions, problem, delta, keep=4), problem, delta, resamples, seed)
    point, spread = _constants(theta[None], centre)[0], _constants(replicas, centre)
    estimates = {
        name: Estimate.from_resamples(point[i], spread[:, i], level)
        for i, name in enumerate(("A", "B", "E", "alpha", "beta", "a", "b"))
    }
    gradient_norm = float(np.linalg.norm(gradient[best]))
    return ParametricFit(
        **estimates,
        objective=float(value[best]),
        gradient_norm=gradient_norm,
        delta=delta,
        status="flat" if gradient_norm > FLAT_GRADIENT else "bound" if shares[2] < NEGLIGIBLE_E else "converged",
    )


def _starts(centre: np.ndarray) -> np.ndarray:
    """The paper's 4,500 starts (a, b, e, alpha, beta), shape (4500, 5), in centred coordinates."""
    offsets, exponents = np.arange(0, 26, 5.0), np.arange(0, 2.1, 0.5)
    grid = np.array(list(product(offsets, offsets, np.arange(-1, 1.1, 0.5), exponents, exponents)))
    grid[:, :2] -= grid[:, 3:] * centre  # a - alpha log N = (a - alpha mean) - alpha (log N - mean)
    return grid


def _constants(theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Rows (A, B, E, alpha, beta, a, b) of solutions in centred coordinates, shape (solutions, 5)."""
    exponents = theta[:, 3:]
    # A resample can leave a constant unidentified and infinite; intervals leave such resamples out.
    with np.errstate(over="ignore"):
        AB = np.exp(theta[:, :2] + exponents * centre)
    total = exponents.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ab = exponents[:, ::-1] / total
    return np.hstack([AB, np.exp(theta[:, 2:3]), exponents, ab])


def _objective(theta: np.ndarray, problem: _Problem, delta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (K,), gradients (K, 5) and Hessians (K, 5, 5) of the Huber sum at `theta`, shape (K, 5)."""
    terms, peak, total = _terms(theta, problem)
    residual = peak + np.log(total) - problem.z
    share = terms / total[:, None]  # softmax of the three terms: d log-prediction / d term, shape (K, 3, runs)
    small = np.abs(residual) <= delta
    loss = np.where(small, 0.5 * residual**2, delta * (np.abs(residual) - 0.5 * delta))
    slope = problem.weight * np.clip(residual, -delta, delta)
    curvature = problem.weight * small
    J = _jacobian(share, problem)
    gradient = np.einsum("kr,kir->ki", slope, J)
    # Second derivatives of log-sum-exp: diag(share) - share share^T, in the coordinates of theta.
    hessian = np.einsum("kir,kjr->kij", J * (curvature - slope)[:, None], J) + _second(share, slope, problem)
    return (problem.weight * loss).sum(axis=1), gradient, hessian


def _terms(theta: np.ndarray, problem: _Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """exp of the three logs minus their maximum, shape (K, 3, runs), that maximum and the sum, each (K, runs)."""
    a, b, e, alpha, beta = (column[:, None] for column in theta.T)
    logs = np.stack([a - alpha * problem.x, b - beta * problem.y, np.broadcast_to(e, (len(theta), len(problem.x)))], axis=1)
    peak = logs.max(axis=1)
    terms = np.exp(logs - peak[:, None])
    return terms, peak, terms.sum(axis=1)


def _values(theta: np.ndarray, problem: _Problem, delta: float) -> np.ndarray:
    """`_objective` without derivatives, shape (K,)."""
    _, peak, total = _terms(theta, problem)
    size = np.abs(peak + np.log(total) - problem.z)
    return (problem.weight * np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))).sum(axis=1)


def _jacobian(share: np.ndarray, problem: _Problem) -> np.ndarray:
    """Derivative of the log-prediction by (a, b, e, alpha, beta), shape (K, 5, runs)."""
    return np.concatenate([share, -share[:, :1] * problem.x, -share[:, 1:2] * problem.y], axis=1)


def _second(share: np.ndarray, slope: np.ndarray, problem: _Problem) -> np.ndarray:
    """Sum over runs of slope times the diag(share) part of the log-prediction's Hessian, shape (K, 5, 5)."""
    K = len(share)
    result = np.zeros((K, 5, 5))
    for constant, exponent, log in ((0, 3, problem.x), (1, 4, problem.y)):
        moment = slope * share[:, constant]
        result[:, constant, constant] = moment.sum(axis=1)
        result[:, constant, exponent] = result[:, exponent, constant] = -(moment @ log)
        result[:, exponent, exponent] = moment @ log**2
    result[:, 2, 2] = (slope * share[:, 2]).sum(axis=1)
    return result


def _newton(theta: np.ndarray, problem: _Problem, delta: float, steps: int) -> np.ndarray:
    """`steps` safeguarded Newton steps from each row of `theta`, shape (K, 5); no row's objective ever rises.

    Directions of negative curvature are descended, not climbed (|eigenvalues|), and the damping of each row adapts.
    """
    theta = theta.copy()
    damping = np.full(len(theta), 1e-3)
    moving = np.arange(len(theta))
    for _ in range(steps):
        value, gradient, hessian = _objective(theta[moving], problem.of(moving), delta)
        eigenvalues, vectors = np.linalg.eigh(hessian)
        scale = np.abs(eigenvalues) + damping[moving, None] * np.abs(eigenvalues).max(axis=1, keepdims=True) + 1e-300
        step = -np.einsum("kij,kj->ki", vectors, np.einsum("kji,kj->ki", vectors, gradient) / scale)
        step *= np.minimum(1, 5 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        trial = _values(theta[moving] + step, problem.of(moving), delta)
        better = trial < value
        theta[moving[better]] += step[better]
        damping[moving] = np.clip(damping[moving] * np.where(better, 0.1, 8.0), 1e-15, 1e6)
        moving = moving[better | (damping[moving] < 1e5)]
        if not len(moving):
            break
    return theta


def _follow_delta(theta: np.ndarray, problem: _Problem, delta: float) -> np.ndarray:
    """Solutions at `delta`, reached through ever narrower Huber losses, whose kinks trap a direct descent."""
    for width in np.geomspace(max(delta, WIDE_DELTA), delta, 9):
        theta = _newton(theta, problem, float(width), 40)
    return _newton(theta, problem, delta, 200)


def _best_distinct(theta: np.ndarray, problem: _Problem, delta: float, keep: int = SURVIVORS) -> np.ndarray:
    """The `keep` rows of lowest objective at `delta` that differ from one another."""
    order = np.argsort(_values(theta, problem, delta))
    rounded = np.round(theta[order], 3)
    _, first = np.unique(rounded, axis=0, return_index=True)
    return theta[order[np.sort(first)[:keep]]]


def _bootstrap(theta: np.ndarray, problem: _Problem, delta: float, resamples: int, seed: int) -> np.ndarray:
    """Solutions of resampled problems, shape (resamples, 5), each the best that any row of `theta` leads to."""
    runs, starts = len(problem.z), len(theta)
    counts = np.random.default_rng(seed).multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    resampled = _Problem(problem.x, problem.y, problem.z, np.repeat(counts, starts, axis=0).astype(float))
    solutions = _follow_delta(np.tile(theta, (resamples, 1)), resampled, delta)
    values = _values(solutions, resampled, delta).reshape(resamples, starts)
    return solutions.reshape(resamples, starts, 5)[np.arange(resamples), values.argmin(axis=1)]


def _largest_shares(theta: np.ndarray, problem: _Problem) -> np.ndarray:
    """The largest share that each term, of N, of D and E, has in the predicted loss of any run; shape (3,)."""
    terms, _, total = _terms(theta[None], problem)
    return (terms / total[:, None])[0].max(axis=1)


def _require_identified(theta: np.ndarray, shares: np.ndarray) -> None:
    """Raises LawError if the term of N or of D is nowhere a thousandth of the loss, or an exponent is impossible."""
    for name, share in zip(("A / N^alpha", "B / D^beta"), shares[:2], strict=True):
        if share < NEGLIGIBLE_TERM:
            raise LawError("unidentified", f"the term {name} vanishes at the optimum: the runs do not show it; widen the grid")
    for name, exponent in zip(("alpha", "beta"), theta[3:], strict=True):
        if not 0 < exponent < STEEPEST:
            reason = f"{name} = {exponent:.3g} at the optimum is not between 0 and {STEEPEST}: widen the grid"
            raise LawError("unidentified", reason)
