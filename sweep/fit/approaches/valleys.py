"""The shape of IsoFLOP profiles, shared by all budgets of a table.

Along a line of equal compute, a sum of power laws of N and D is, in u = log(N / N_opt),

    L = L_opt + curvature / (p + q) * [(exp(-p u) - 1) / p + (exp(q u) - 1) / q]

with p = alpha and q = beta on Chinchilla's surface. Each budget has its own N_opt, L_opt and curvature; p and q, how steep the
two sides are, are the same for all. Unlike a parabola (the limit of small p and q) the valley may lean, and unlike a surface it
asks nothing of how E, A and B hold together across budgets, nor of its own walls: runs high above the minimum count less as
soon as a test says that the shape does not hold there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.fit.lack_of_fit import roughness
from sweep.fit.solver.valley import USUAL, Normal, Problem, valley

SPREAD = 1.5  # of log p and log q about the usual
MIN_SPARE = 4  # residuals beyond three constants a profile; with fewer, p and q are taken to be the usual ones
DOUBTFUL, CONTENT = 0.1, 0.3  # p-values of the test of shape: below the first the walls are weighed down, up to the second
MISFITS = (0.0, *(0.01 * 2.0 ** np.arange(8)))  # of the shape, as shares of the height above the minimum
ROUNDS, SETTLED = 12, 1e-3  # of the noise, which weighs the runs and follows from their residuals
ROUNDING = 2e-6  # of the loss: noise that is lower is rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Valleys:
    """The valleys fitted to some profiles.

    Attributes:
        log_N, loss, log_curvature: of the minimum of each profile, shape (profiles,).
        log_shape: log p and log q, shape (2,).
        noise: standard deviation of a loss about its valley, in nats, at the median loss.
        freedom: degrees of freedom it was estimated from; infinite if it was given, 0 if there are none.
        misfit: standard deviation of the shape, as a share of the height above the minimum.
        weight: how much each run counts, 0 to 1, shape (profiles, runs); 0 where there is none.
        p_value: of the test of shape, as weighted; NaN if there were too few runs to test it.
    """

    log_N: np.ndarray
    loss: np.ndarray
    log_curvature: np.ndarray
    log_shape: np.ndarray
    noise: float
    freedom: float
    misfit: float
    weight: np.ndarray
    p_value: float
    normal: Normal

    @property
    def shape(self) -> tuple[float, float]:
        """p and q."""
        p, q = np.exp(self.log_shape).tolist()
        return p, q

    def covariance(self, local: Sequence[float], shared: np.ndarray | None = None) -> np.ndarray:
        """Of one quantity of each profile, shape (profiles, profiles).

        Args:
            local: its derivatives in log N_opt, L_opt and the log of the curvature.
            shared: those in log p and log q, shape (2,).
        """
        normal, own = self.normal, np.asarray(local)
        through = (0 if shared is None else shared) - np.einsum("kij,i->kj", normal.link, own)
        alone = np.einsum("i,kij,j->k", own, normal.inverse, own)
        return np.diag(alone) + through @ np.linalg.inv(normal.shared) @ through.T

    def height(self, u: np.ndarray) -> np.ndarray:
        """The valley of curvature 1 at u = log(N / N_opt), shape as `u`."""
        return valley(u, self.log_shape)[0]

    def log_height(self, u: float) -> tuple[np.ndarray, np.ndarray]:
        """The log of how much higher the loss is at log N = log N_opt + `u`, shape (profiles,), and its covariance."""
        height, _, of_shape = valley(np.array(u), self.log_shape)
        return self.log_curvature + np.log(height), self.covariance((0, 0, 1), of_shape / height)


def fit_valleys(
    x: Sequence[np.ndarray], y: Sequence[np.ndarray], start: Sequence[tuple[float, float, float]], noise: float | None = None
) -> Valleys:
    """The valleys through profiles.

    Args:
        x, y: log N and loss of the runs of each profile, at least three.
        start: near the minimum of each profile: log N, loss and curvature.
        noise: standard deviation of a loss, in nats, if it is known; else it comes from the residuals, as a share of the loss.
    """
    from scipy.special import fdtrc

    runs = np.array([len(each) for each in x])
    there = np.arange(runs.max()) < runs[:, None]
    X, Y = np.zeros(there.shape), np.zeros(there.shape)
    X[there], Y[there] = np.concatenate(x), np.concatenate(y)
    middle, spare = float(np.median(Y[there])), int(runs.sum()) - 3 * len(runs)
    leans = spare >= MIN_SPARE
    freedom = spare - 2 * leans
    own, shape = np.array(start, dtype=float), np.full(2, USUAL)
    own[:, 2] = np.log(own[:, 2])
    estimated = noise is None and freedom > 0
    # Weighed down enough, every valley goes through the three runs at its minimum, and there is no noise left.
    rough = roughness(x, [losses / middle for losses in y]) * middle
    scale = np.ones_like(Y) if noise is not None else Y / middle
    sigma, spread, p_value = noise or 1e-3 * middle, SPREAD if leans else 1e-3, np.nan
    for misfit in MISFITS:
        for _ in range(ROUNDS):
            sd = np.where(there, np.hypot(sigma * scale, misfit * np.maximum(Y - own[:, 1:2], 0)), np.inf)
            problem = Problem(x=X, y=Y, sd=sd, spread=spread)
            own, shape = problem.solve(own, shape)
            squares = float((problem.residuals(own, shape)[0] ** 2).sum())
            least = max(ROUNDING * middle, rough if misfit else 0)
            found = max(sigma * (squares / freedom) ** 0.5, least) if estimated else sigma
            if abs(np.log(found / sigma)) < SETTLED:
                break
            sigma = found
        if not leans or freedom <= 2 or (estimated and sigma <= ROUNDING * middle):
            break
        gain = _gain(problem.normal(own, shape, walls=True))
        left = max(squares - gain, 1e-9) / (freedom - 2)
        p_value = float(fdtrc(2, freedom - 2, gain / 2 / left) if estimated else np.exp(-gain / 2))
        if p_value > (CONTENT if misfit else DOUBTFUL):
            break
    return Valleys(
        log_N=own[:, 0],
        loss=own[:, 1],
        log_curvature=own[:, 2],
        log_shape=shape,
        noise=sigma,
        freedom=np.inf if noise is not None else max(freedom, 0),
        misfit=misfit,
        weight=(sigma * scale / sd) ** 2,
        p_value=p_value,
        normal=problem.normal(own, shape),
    )


def _gain(normal: Normal) -> float:
    """By how much the sum of squares falls, to first order, once the walls may rise or sink."""
    both, shape = normal.gradient, normal.gradient[:2]
    ridge = 1e-9 * np.diag(np.diag(normal.shared))
    return float(
        both @ np.linalg.solve(normal.shared + ridge, both) - shape @ np.linalg.solve((normal.shared + ridge)[:2, :2], shape)
    )
