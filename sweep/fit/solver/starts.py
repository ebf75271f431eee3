"""Where to start: for given exponents the surface is linear in A, B and E, so their best values are one small linear solve.

This is variable projection (Golub and Pereyra 1973) on the least squares of relative residuals, which the objective is to
second order. The paper's grid of 4,500 starts has only 25 different pairs of exponents; for each, its 180 choices of
(A, B, E) lead to one and the same point, found here in one step.
"""

import numpy as np

from sweep.fit.solver.objective import Objective

MIN_SHARE = 0.05  # of the mean loss: a start with a tiny term crawls, and one with a term of zero stays there


def solve_linear(
    objective: Objective, weight: np.ndarray, exponents: np.ndarray, *, tied: bool = False, fixed_E: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For every weighting and every pair of exponents the best (A, B, E), and its misfit.

    Args:
        objective: the runs.
        weight: of the runs, shape (R, n).
        exponents: grid of alpha and of beta, shape (G,), all positive.
        tied: only pairs with alpha = beta.
        fixed_E: E, where it is not free.

    Returns:
        theta, shape (R, pairs, 5), and the misfit, shape (R, pairs): the sum of squared relative residuals.
    """
    scale = np.exp(-objective.z) if objective.space == "log" else np.ones_like(objective.z)
    target = np.ones_like(scale) if objective.space == "log" else objective.z
    alpha, beta = (grid.ravel() for grid in np.meshgrid(exponents, exponents, indexing="ij"))
    if tied:
        alpha = beta = exponents
    u, v = np.exp(-alpha * objective.x[:, None]) * scale[:, None], np.exp(-beta * objective.y[:, None]) * scale[:, None]
    if fixed_E is not None:
        target = target - fixed_E * scale
    # Normal equations of target ~ A u + B v + E scale, weighted; matrix products over the runs.
    uu, vv, uv, ut, vt = (weight @ product for product in (u * u, v * v, u * v, u * target[:, None], v * target[:, None]))
    us, vs = weight @ (u * scale[:, None]), weight @ (v * scale[:, None])
    ss, st, tt = (weight @ product[:, None] for product in (scale * scale, scale * target, target * target))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without E first: two by two. It also serves where three by three would have E below zero.
        determinant = uu * vv - uv * uv
        A, B, E = (ut * vv - vt * uv) / determinant, (vt * uu - ut * uv) / determinant, np.zeros_like(uu)
        if fixed_E is None:
            # E from the Schur complement of (A, B), then A and B given E.
            p, q = (us * vv - vs * uv) / determinant, (vs * uu - us * uv) / determinant
            E = np.maximum((st - p * ut - q * vt) / (ss - p * us - q * vs), 0.0)
            A, B = A - E * p, B - E * q
    typical = np.exp(objective.z).mean() if objective.space == "log" else objective.z.mean()
    least = MIN_SHARE * typical
    A, B, E = (np.where(coefficient > least, coefficient, least) for coefficient in (A, B, E))  # NaN too
    if fixed_E is not None:
        e = np.full_like(A, np.log(fixed_E) if fixed_E > 0 else -np.inf)
        E = np.zeros_like(A)
    else:
        e = np.log(E)
    misfit = tt + A * (A * uu - 2 * ut) + B * (B * vv - 2 * vt) + E * (E * ss - 2 * st)
    misfit = misfit + 2 * (A * B * uv + A * E * us + B * E * vs)
    grids = (np.broadcast_to(grid, A.shape) for grid in (alpha, beta))
    return np.stack([np.log(A), np.log(B), e, *grids], axis=-1), misfit
