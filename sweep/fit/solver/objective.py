"""The objective of Approach 3 for a whole batch of constants at once, with exact gradient and Hessian.

    sum_i w_i Huber_delta(r_i),   r_i = log(A / N_i^alpha + B / D_i^beta + E) - log L_i   (or without the logs)

in theta = (a, b, e, alpha, beta), where A = exp(a + alpha mean log N), B = exp(b + beta mean log D), E = exp e: with logs
centred, the Hessian of the 240 points that Besiroglu et al. 2024 (arXiv 2404.10102) digitised has a condition number of 1e4,
without 1e7. K rows of theta and n runs make arrays of shape (K, n); sums over runs of products with 1, x, y, x^2, y^2, xy are
matrix products. Vectors and matrices of the batch have the batch as their last axis: (5, K) and (5, 5, K).
"""

import numpy as np

from sweep.fit.solver.newton import Evaluation

CONSTANTS = 5  # a, b, e, alpha, beta
MIN_SHARE = 0.05  # of the mean loss: a start with a tiny term crawls, and one with a term of zero stays there


class Objective:
    """The runs, prepared.

    Args:
        x, y: log N and log D without their means, shape (n,).
        z: log L, or L if `space` is "linear", shape (n,).
        space: "log" or "linear": what residuals are differences of.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, space: str = "log") -> None:
        self.x, self.y, self.z, self.space = x, y, z, space
        one = np.ones_like(x)
        self._x, self._y = np.stack([one, x, x * x], axis=1), np.stack([one, y, y * y], axis=1)
        self._xy = np.stack([one, x, y, x * y], axis=1)

    def part(self, chosen: np.ndarray) -> "Objective":
        """The runs that `chosen`, indices of shape (runs,), selects."""
        return Objective(self.x[chosen], self.y[chosen], self.z[chosen], self.space)

    def terms(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A / N^alpha (K, n), B / D^beta (K, n) and E (K, 1) at `theta` (K, 5)."""
        a, b, e, alpha, beta = (theta[:, i : i + 1] for i in range(CONSTANTS))
        return np.exp(a - alpha * self.x), np.exp(b - beta * self.y), np.exp(e)

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        """r, shape (K, n)."""
        of_N, of_D, E = self.terms(theta)
        total = of_N + of_D + E
        return (np.log(total) if self.space == "log" else total) - self.z

    def values(self, theta: np.ndarray, weight: np.ndarray, delta: float) -> np.ndarray:
        """The objective alone, shape (K,); `weight` is of shape (n,) or (K, n)."""
        r = self.residuals(theta)
        slope = np.clip(r, -delta, delta)
        return (weight * slope * (r - 0.5 * slope)).sum(axis=1)

    def evaluate(self, theta: np.ndarray, weight: np.ndarray, delta: float) -> Evaluation:
        """Value, gradient and Hessian at `theta` (K, 5) for `weight` (n,) or (K, n)."""
        log = self.space == "log"
        # s: what r gains when the log of a term does: the term's share of the prediction, or in linear space the term.
        s_N, s_D, s_E = self.terms(theta)
        r = s_N + s_D
        r += s_E
        if log:
            np.divide(s_N, r, out=s_N)
            np.divide(s_D, r, out=s_D)
            np.log(r, out=r)
        r -= self.z
        slope = np.clip(r, -delta, delta)
        g = weight * slope
        q = np.where(r == slope, weight, 0.0)  # the Huber loss curves where it is not clipped
        r -= 0.5 * slope
        value = np.einsum("kn,kn->k", g, r)
        # With f_k = d log(term k) / d theta and J = sum_k s_k f_k, the Hessian is the sum over runs of
        # q J J' + g sum_k s_k f_k f_k', where the log takes off g J J'.
        if log:
            q -= g
        q_N, q_D = q * s_N, q * s_D
        P_N, P_D, P = q_N @ self._x[:, :2], q_D @ self._y[:, :2], q.sum(axis=1)
        ND = (q_N * s_D) @ self._xy
        q_N *= s_N
        q_D *= s_D
        NN, DD = q_N @ self._x, q_D @ self._y
        s_N *= g
        s_D *= g
        g_N, g_D, g_E = s_N @ self._x, s_D @ self._y, g.sum(axis=1)
        if log:  # shares add up to one
            NE = P_N - NN[:, :2] - ND[:, :2]
            DE = P_D - DD[:, :2] - ND[:, ::2]
            EE = P - P_N[:, 0] - P_D[:, 0] - NE[:, 0] - DE[:, 0]
            g_E = g_E - g_N[:, 0] - g_D[:, 0]
        else:
            E = s_E[:, 0]
            NE, DE, EE, g_E = s_E * P_N, s_E * P_D, E * E * P, E * g_E
        gradient = np.stack([g_N[:, 0], g_D[:, 0], g_E, -g_N[:, 1], -g_D[:, 1]])
        NN += g_N
        DD += g_D
        upper = [
            [NN[:, 0], ND[:, 0], NE[:, 0], -NN[:, 1], -ND[:, 2]],
            [DD[:, 0], DE[:, 0], -ND[:, 1], -DD[:, 1]],
            [EE + g_E, -NE[:, 1], -DE[:, 1]],
            [NN[:, 2], ND[:, 3]],
            [DD[:, 2]],
        ]
        hessian = np.empty((CONSTANTS, CONSTANTS, len(theta)))
        for i, row in enumerate(upper):
            for j, entry in enumerate(row, start=i):
                hessian[i, j] = hessian[j, i] = entry
        return Evaluation(value, gradient, hessian)


def solve_linear(
    objective: Objective, weight: np.ndarray, exponents: np.ndarray, *, tied: bool = False, fixed_E: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For every weighting and every pair of exponents the best (A, B, E), and its misfit.

    For given exponents the surface is linear in A, B and E: variable projection (Golub and Pereyra 1973) on the least squares
    of relative residuals, which the objective is to second order. The paper's grid of 4,500 starts has 25 pairs of exponents,
    and for each 180 choices of (A, B, E), which all lead to the one point found here.

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
