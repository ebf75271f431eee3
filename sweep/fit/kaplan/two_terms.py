"""Least squares in log L of a sum of two power laws, raised to a power w:

    log L = w LSE(u_1 / w, u_2 / w),   u_1 = c_1 - a_1 x,   u_2 = c_2 - a_2 y

L(N, S_min) of Kaplan et al. 2020 has w = 1; L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D has w = a_2 = alpha_D.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from sweep.fit.solver.newton import MAX_LOOKED_AT, Evaluation, minimise, polish, subset

START_EXPONENTS, START_BALANCE = (0.05, 0.15, 0.4, 1.0), (-4.0, -2.0, 0.0, 2.0, 4.0)  # balance: log of the terms' ratio


@dataclass(frozen=True, kw_only=True)
class TwoTerms:
    """The problem. Solutions are rows theta = (c_1, a_1, c_2, a_2); any number K of them is one batch.

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
        """The best solution of many starts, shape (4,), and the gradient of half the sum of squares there, shape (4,)."""
        look = self._part(subset(len(self.x), MAX_LOOKED_AT))
        found = look.descend(look.starts(), np.ones(len(look.x)))
        best = look.evaluate(found, np.ones(len(look.x))).value.argmin()
        weight = np.ones(len(self.x))
        theta = polish(self, self.descend(found[best : best + 1], weight), weight, np.inf)
        return theta[0], self.evaluate(theta, weight).gradient[:, 0]

    def descend(self, theta: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Minima reached from each row of `theta`, shape (K, 4), for the points' `weight`, shape (points,) or (K, points)."""
        return minimise(self, theta, weight, [np.inf])

    def predict(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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

    def evaluate(self, theta: np.ndarray, weight: np.ndarray, delta: float = np.inf) -> Evaluation:
        """Half the weighted sums of squares with gradients and Hessians; see `newton.Objective`. `delta` is not used."""
        w, scaled, total = self._terms(theta)
        prediction, J = self.predict(theta)
        residual = prediction - self.log_loss
        pull = np.broadcast_to(weight, residual.shape) * residual
        # w LSE(u / w) is the perspective of LSE: its Hessian in (u_1, u_2, w) has rank one.
        share = np.exp(scaled - total[:, None])
        bend = pull * share[:, 0] * share[:, 1] / w
        g = np.stack([np.ones_like(bend), *np.broadcast_arrays(-self.x, -1.0, self.y, bend)[:3]], axis=1)
        if self.coupled:
            g[:, 3] -= scaled[:, 0] - scaled[:, 1]
        hessian = (np.broadcast_to(weight, residual.shape)[:, None] * J) @ J.transpose(0, 2, 1)
        hessian += (bend[:, None] * g) @ g.transpose(0, 2, 1)
        gradient = (J @ pull[..., None])[..., 0]
        return Evaluation(0.5 * (pull * residual).sum(axis=1), gradient.T, hessian.transpose(1, 2, 0))

    def starts(self) -> np.ndarray:
        """Starts over all exponents and ratios of the terms, shape (starts, 4), each with the right mean log L."""
        a_1, a_2, balance = np.array(list(product(START_EXPONENTS, START_EXPONENTS, START_BALANCE))).T
        theta = np.stack([np.zeros_like(a_1), a_1, balance * (a_2 if self.coupled else 1), a_2], axis=1)
        theta[:, ::2] += (self.log_loss - self.predict(theta)[0]).mean(axis=1, keepdims=True)
        return theta

    def _part(self, chosen: np.ndarray) -> "TwoTerms":
        return TwoTerms(x=self.x[chosen], y=self.y[chosen], log_loss=self.log_loss[chosen], coupled=self.coupled)

    def _terms(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """w, shape (K, 1); u / w, shape (K, 2, points); and its log-sum-exp, shape (K, points)."""
        c_1, a_1, c_2, a_2 = (column[:, None] for column in theta.T)
        w = np.where(a_2 > 0, a_2, np.nan) if self.coupled else np.ones_like(a_2)  # a trial that gives NaN is never better
        scaled = np.stack([c_1 - a_1 * self.x, c_2 - a_2 * self.y], axis=1) / w[:, None]
        with np.errstate(invalid="ignore"):
            return w, scaled, np.logaddexp(scaled[:, 0], scaled[:, 1])
