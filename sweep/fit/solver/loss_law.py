"""The loss along the frontier: L = E + k C^-gamma, which Chinchilla's surface has exactly on its frontier."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.fit.result import Intervals, Record
from sweep.fit.solver.regression import regress

SLOWEST, FASTEST = 1e-3, 3.0  # of gamma
GRID = 60


@dataclass(frozen=True, kw_only=True)
class LossLaw(Record):
    """L = E + coefficient * C^-exponent, in nats per token; E is not negative."""

    E: float
    coefficient: float
    exponent: float

    def __call__(self, C: Any) -> Any:
        return self.E + self.coefficient * np.asarray(C, dtype=float) ** -self.exponent


@dataclass(frozen=True, kw_only=True, eq=False)
class LossDraws:
    """Laws of the loss as they may be, to first order about the best one.

    Within the range that was fitted this is good however little the single constants are known.

    Attributes:
        law: the best.
        changes: of E (left out where it is 0), of the falling part at `middle` and of the exponent, shape (draws, 3 or 2).
        middle: a C in the range.
    """

    law: LossLaw
    changes: np.ndarray
    middle: float

    def __call__(self, C: float) -> np.ndarray:
        """The loss at `C`, shape (draws,)."""
        gradient = _gradient(
            np.array([C / self.middle]), self.law.exponent, self.law.coefficient * self.middle**-self.law.exponent
        )
        return self.law(C) + self.changes @ gradient[0, 3 - self.changes.shape[1] :]


@dataclass(frozen=True, kw_only=True, eq=False)
class LossFit:
    """The law, its draws, and how the points scatter about it; see `Regression`."""

    law: LossLaw
    draws: LossDraws
    chi2: float
    scatter: float


def fit_loss_law(C: np.ndarray, loss: np.ndarray, covariance: np.ndarray, freedom: float, intervals: Intervals) -> LossFit:
    """Fit the law by weighted least squares, E and k in closed form for each gamma.

    Args:
        C: shape (points,), at least three.
        loss: nats per token, shape (points,).
        covariance: of the errors of the losses, shape (points, points).
        freedom: that they are known with; see `regress`.
        intervals: of the draws.
    """
    from scipy.optimize import minimize_scalar

    middle = float(np.exp(np.log(C).mean()))
    weight = np.linalg.inv(covariance + np.eye(len(C)) * 1e-9 * np.diag(covariance).mean())
    root = np.linalg.cholesky(weight).T

    def solve(log_gamma: float) -> tuple[float, np.ndarray]:
        """The sum of squares, and E and k at this gamma; E = 0 where it would be negative."""
        X = np.stack([np.ones_like(C), (C / middle) ** -np.exp(log_gamma)], axis=1)
        constants = np.linalg.lstsq(root @ X, root @ loss, rcond=None)[0]
        if constants[0] < 0:
            constants = np.append(0, np.linalg.lstsq(root @ X[:, 1:], root @ loss, rcond=None)[0])
        return float(((root @ (loss - X @ constants)) ** 2).sum()), constants

    grid = np.linspace(np.log(SLOWEST), np.log(FASTEST), GRID)
    best = int(np.argmin([solve(value)[0] for value in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    log_gamma = float(
        minimize_scalar(lambda value: solve(value)[0], bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
    )
    gamma, (E, scale) = float(np.exp(log_gamma)), solve(log_gamma)[1]
    law = LossLaw(E=float(E), coefficient=float(scale * middle**gamma), exponent=gamma)
    X = _gradient(C / middle, gamma, scale)[:, int(E == 0) :]
    about = regress(X, loss - law(C), covariance, freedom)
    changes = about.draw(intervals) - about.beta  # to first order the law is at its best already
    return LossFit(law=law, draws=LossDraws(law=law, changes=changes, middle=middle), chi2=about.chi2, scatter=about.scatter)


def _gradient(c: np.ndarray, gamma: float, scale: float) -> np.ndarray:
    """Of E + scale c^-gamma in E, scale and gamma, shape (points, 3)."""
    fallen = c**-gamma
    return np.stack([np.ones_like(c), fallen, -scale * np.log(c) * fallen], axis=1)
