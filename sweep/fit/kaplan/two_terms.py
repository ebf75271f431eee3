"""Least squares in log L of a sum of two power laws, under a power w:

    log L = w LSE(u_1 / w, u_2 / w),   u_1 = c_1 - a_1 x,   u_2 = c_2 - a_2 y

L(N, S_min) of Kaplan et al. 2020 has w = 1; L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D has w = a_2 = alpha_D.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

STEPS = 500
START_EXPONENTS, START_BALANCE = (0.05, 0.15, 0.4, 1.0), (-4.0, -2.0, 0.0, 2.0, 4.0)  # balance: log of the terms' ratio


@dataclass(frozen=True, kw_only=True)
class TwoTerms:
    """The problem. Solutions are rows theta = (c_1, a_1, c_2, a_2); any number K of them is worked on as one batch.

    Attributes:
        x, y: the logs of both variables less their means, shape (points,).
        log_loss: shape (points,).
        coupled: whether w is a_2; else it is 1.
    """

    x: np.ndarray
    y: np.ndarray
    log_loss: np.ndarray
    coupled: bool

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """The best solution of many starts, shape (4,), and the gradient of half the sum of squares there."""
        starts = self._starts()
        theta, value, gradient = self.descend(starts, np.ones((len(starts), len(self.x))))
        best = int(np.argmin(value))
        return theta[best], gradient[best]

    def descend(self, theta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Levenberg and Marquardt's method from each row of `theta`, shape (K, 4); no row's objective ever rises.

        Args:
            weight: how much each point counts for each row, shape (K, points).

        Returns:
            The solutions, half their weighted sums of squares, shape (K,), and the gradients, shape (K, 4).
        """
        theta = theta.copy()
        value, gradient, hessian = self._objective(theta, weight)
        damping = np.full(len(theta), 1e-2)
        moving = np.arange(len(theta))
        for _ in range(STEPS):
            diagonal = np.einsum("kii->ki", hessian[moving])
            # The floor keeps a direction that moves nothing from being singular.
            added = damping[moving, None] * (diagonal + 1e-6 * diagonal.max(axis=1, keepdims=True))
            step = np.linalg.solve(hessian[moving] + added[:, None] * np.eye(4), -gradient[moving, :, None])[..., 0]
            step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
            trial = theta[moving] + step
            found = self._objective(trial, weight[moving])
            better = found[0] < value[moving]
            chosen = moving[better]
            theta[chosen], value[chosen], gradient[chosen], hessian[chosen] = (part[better] for part in (trial, *found))
            damping[moving] = np.maximum(damping[moving] * np.where(better, 0.2, 5.0), 1e-10)
            moving = moving[(damping[moving] < 1e8) & (np.abs(step).max(axis=1) > 1e-12)]
            if not len(moving):
                break
        return theta, value, gradient

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log L, shape (K, points), and its derivatives by theta, shape (K, 4, points)."""
        w, scaled, total = self._terms(theta)
        share = np.exp(scaled - total[:, None])
        J = np.stack([share[:, 0], -share[:, 0] * self.x, share[:, 1], -share[:, 1] * self.y], axis=1)
        if self.coupled:
            J[:, 3] += total - (share * scaled).sum(axis=1)  # d(w LSE(u / w)) / dw is the entropy of the shares
        return w * total, J

    def shares(self, theta: np.ndarray) -> np.ndarray:
        """The share of each term in the sum, shape (K, 2, points)."""
        _, scaled, total = self._terms(theta)
        return np.exp(scaled - total[:, None])

    def _terms(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """w, shape (K, 1); u / w, shape (K, 2, points); and its log-sum-exp, shape (K, points)."""
        c_1, a_1, c_2, a_2 = (column[:, None] for column in theta.T)
        w = np.where(a_2 > 0, a_2, np.nan) if self.coupled else np.ones_like(a_2)  # a trial that gives NaN is never better
        scaled = np.stack([c_1 - a_1 * self.x, c_2 - a_2 * self.y], axis=1) / w[:, None]
        with np.errstate(invalid="ignore"):
            return w, scaled, np.logaddexp(scaled[:, 0], scaled[:, 1])

    def _objective(self, theta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half the weighted sums of squares, their gradients and Gauss and Newton's Hessians."""
        prediction, J = self.evaluate(theta)
        residual, WJ = prediction - self.log_loss, weight[:, None] * J
        gradient = np.einsum("kip,kp->ki", WJ, residual)
        return 0.5 * (weight * residual**2).sum(axis=1), gradient, np.einsum("kip,kjp->kij", WJ, J)

    def _starts(self) -> np.ndarray:
        """Starts over all exponents and ratios of the terms, shape (starts, 4), each with the right mean log L."""
        a_1, a_2, balance = np.array(list(product(START_EXPONENTS, START_EXPONENTS, START_BALANCE))).T
        theta = np.stack([np.zeros_like(a_1), a_1, balance * (a_2 if self.coupled else 1), a_2], axis=1)
        theta[:, ::2] += (self.log_loss - self.evaluate(theta)[0]).mean(axis=1, keepdims=True)
        return theta
