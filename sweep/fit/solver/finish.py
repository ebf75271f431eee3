"""The end of a search: the last digits of least absolute deviations, and the evidence for the optimum."""

from dataclasses import dataclass

import numpy as np

from sweep.fit.result import Record
from sweep.fit.solver.objective import Objective

LOOPS = 60
ZERO = 1e-11  # a residual, in units of log L


@dataclass(frozen=True, kw_only=True)
class Certificate(Record):
    """The evidence for the optimum.

    Attributes:
        gradient_norm: of the objective at the optimum, in (a, b, e, alpha, beta) with centred logs; for least absolute
            deviations, of the smallest subgradient.
        hessian_eigenvalues: there, ascending; of the free directions.
        condition_number: the largest over the smallest, infinite if that is not positive beyond rounding.
        starts: how many pairs of exponents, each with its best A, B and E, were followed to their minimum.
        basin_share: the share of them that ended at the optimum.
        next_basin: the objective of the next-best minimum that a start ended in; None if there was no other.
        stationary: whether the gradient is zero up to rounding.
    """

    gradient_norm: float
    hessian_eigenvalues: tuple[float, ...]
    condition_number: float
    starts: int
    basin_share: float
    next_basin: float | None
    stationary: bool

    def line(self) -> str:
        basin = f", next basin {self.next_basin:.6g}" if self.next_basin else ""
        return (
            f"{self.basin_share:.0%} of {self.starts} starts end here; gradient {self.gradient_norm:.1g}, condition number "
            f"{self.condition_number:.2g}{basin}"
        )


def polish_lad(objective: Objective, theta: np.ndarray, weight: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, float]:
    """The minimum of sum_i w_i |r_i| next to `theta`, shape (1, 5), and the norm of its smallest subgradient.

    There some residuals are exactly zero, and Newton's method fails. This is sequential linear programming in a trust region
    (Fletcher and Sainz de la Maza 1989): each step minimises the sum of |r + J d|, and is taken if the true sum falls.
    """
    from scipy.optimize import lsq_linear

    radius, value = 1e-2, float((weight * np.abs(objective.residuals(theta)[0])).sum())
    for _ in range(LOOPS):
        step = _linear_program(objective.residuals(theta)[0], _jacobian(objective, theta) @ basis, weight, radius)
        trial = theta + basis @ step
        there = float((weight * np.abs(objective.residuals(trial)[0])).sum())
        if there < value:
            theta, value, radius = trial, there, 2 * radius
        else:
            radius = 0.25 * min(radius, float(np.abs(step).max()))
        if radius < 1e-14:
            break
    r, J = objective.residuals(theta)[0], _jacobian(objective, theta) @ basis
    zero = np.abs(r) < ZERO
    rest = J[~zero].T @ (weight * np.sign(r))[~zero]
    if not zero.any():
        return theta, float(np.linalg.norm(rest))
    # A residual of zero pulls with any strength up to its weight.
    pull = lsq_linear(J[zero].T, -rest, bounds=(-weight[zero], weight[zero]))
    return theta, float(np.linalg.norm(J[zero].T @ pull.x + rest))


def _linear_program(r: np.ndarray, J: np.ndarray, weight: np.ndarray, radius: float) -> np.ndarray:
    """argmin over |d| <= radius of sum w |r + J d|, by its dual, which has one row for each of the few d: the largest r'z -
    radius sum |s| over |z| <= w, with J'z = s. The multipliers of the rows are d."""
    from scipy.optimize import linprog

    free = J.shape[1]
    solution = linprog(
        np.concatenate([-r, np.full(2 * free, radius)]),
        A_eq=np.hstack([J.T, np.eye(free), -np.eye(free)]),
        b_eq=np.zeros(free),
        bounds=[*zip(-weight, weight, strict=True), *[(0, None)] * (2 * free)],
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return np.zeros(free) if solution.x is None else np.clip(solution.eqlin.marginals, -radius, radius)


def _jacobian(objective: Objective, theta: np.ndarray) -> np.ndarray:
    """dr / d theta, shape (n, 5)."""
    of_N, of_D, E = (np.broadcast_to(term, (1, len(objective.x)))[0] for term in objective.terms(theta))
    scale = 1 / (of_N + of_D + E) if objective.space == "log" else 1.0
    return np.stack([of_N, of_D, E, -objective.x * of_N, -objective.y * of_D], axis=1) * np.atleast_1d(scale)[:, None]
