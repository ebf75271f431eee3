"""What runs tell about a target, by the Fisher information.

For independent errors of log L of one size, runs with gradients J_i of log L in the surface's constants hold the information
M = sum_i J_i J_i' / sd^2, and a target with gradient g has the variance g' M^-1 g: what c-optimal design minimises (Atkinson,
Donev and Tobias 2007, chapter 10). It needs no losses, so runs can be judged before they are trained.
"""

from collections.abc import Sequence

import numpy as np

from sweep.fit.approaches.parametric import ParametricFit
from sweep.fit.solver.objective import CONSTANTS
from sweep.fit.surface import Surface
from sweep.tables.table import RunTable

EVERYTHING = np.eye(CONSTANTS)
MAX_BELIEFS = 16
STEP = 1e-5  # of the central differences in log-constants and exponents


def expected_sd(
    surface: Surface,
    N: np.ndarray,
    D: np.ndarray,
    *,
    sd: float,
    target: str = "a",
    target_C: float | None = None,
    free: np.ndarray = EVERYTHING,
) -> float:
    """Standard deviation of the target after runs at (N, D) whose log L scatters by `sd`; only the constants in the `free`
    directions are estimated. Infinite if the runs leave a direction open."""
    J = _gradients(surface, N, D) @ free / sd
    g = _target_gradient(surface, target, target_C) @ free
    R = np.asarray(np.linalg.qr(J, mode="r"))  # g' (J'J)^-1 g, without squaring J's condition number
    try:
        return float(np.linalg.norm(np.linalg.solve(R.T, g)))
    except np.linalg.LinAlgError:
        return np.inf


def condition_number(surface: Surface, N: np.ndarray, D: np.ndarray, free: np.ndarray = EVERYTHING) -> float:
    """The largest eigenvalue of the information of runs at (N, D) over the smallest, in the solver's coordinates, with
    centred logs: what a fit's certificate finds at the optimum, but known before any run. Infinite if a direction is open."""
    J = _gradients(surface, N, D)
    J[:, 3] += np.log(N).mean() * J[:, 0]
    J[:, 4] += np.log(D).mean() * J[:, 1]
    values = np.linalg.svd(J @ free, compute_uv=False)
    open_ = len(N) < free.shape[1] or values[-1] <= 1e-12 * values[0]
    return np.inf if open_ else float((values[0] / values[-1]) ** 2)


def surfaces_of(fit: ParametricFit) -> list[Surface]:
    """The fit's surface, and up to `MAX_BELIEFS` - 1 of its replicates, of those with plausible constants."""
    drawn = fit.replicates
    sound = np.isfinite(list(drawn.constants.values())).all(axis=0)
    sound &= (np.minimum(drawn.alpha, drawn.beta) > 0.05) & (np.maximum(drawn.alpha, drawn.beta) < 2)
    chosen = np.stack(list(drawn.constants.values()), axis=1)[sound][: MAX_BELIEFS - 1].tolist()
    return [fit.surface, *(Surface(**dict(zip(drawn.constants, row, strict=True)), compute=drawn.compute) for row in chosen)]


class Belief:
    """One surface that may be true: what the present runs tell about its constants, and what each candidate would tell."""

    def __init__(
        self,
        surface: Surface,
        free: np.ndarray,
        runs: RunTable,
        N: np.ndarray,
        D: np.ndarray,
        sd: float,
        target: str,
        target_C: float | None,
    ) -> None:
        present = _gradients(surface, runs.N, runs.D) @ free / sd
        self.information = present.T @ present
        self.g = _target_gradient(surface, target, target_C) @ free
        self.J = _gradients(surface, N, D) @ free / sd

    def variance(self, chosen: Sequence[int] = ()) -> float:
        """Variance of the target, with the candidates `chosen`."""
        return float(self.g @ self.with_runs(chosen) @ self.g)

    def with_runs(self, chosen: Sequence[int]) -> np.ndarray:
        """Covariance of the constants with the candidates `chosen`, shape (5, 5)."""
        J = self.J[list(chosen)]
        return np.linalg.inv(self.information + J.T @ J)

    def gains(self, covariance: np.ndarray) -> np.ndarray:
        """How much each candidate would reduce the log of the target's variance, given the `covariance` of the constants."""
        reach = self.J @ covariance  # Sherman and Morrison
        share = (reach @ self.g) ** 2 / (1 + np.einsum("ij,ij->i", reach, self.J)) / (self.g @ covariance @ self.g)
        return -np.log1p(-share)


def _gradients(surface: Surface, N: np.ndarray, D: np.ndarray) -> np.ndarray:
    """d log L / d (log A, log B, log E, alpha, beta) of runs, shape (runs, 5)."""
    of_N, of_D = surface.A / N**surface.alpha, surface.B / D**surface.beta
    columns = [of_N, of_D, np.full_like(of_N, surface.E), -np.log(N) * of_N, -np.log(D) * of_D]
    return np.stack(columns, axis=1) / (surface.E + of_N + of_D)[:, None]


def _target_gradient(surface: Surface, target: str, target_C: float | None) -> np.ndarray:
    """The same of the target, by central differences, shape (5,)."""

    def value(shift: np.ndarray) -> float:
        moved = Surface(
            A=surface.A * np.exp(shift[0]),
            B=surface.B * np.exp(shift[1]),
            E=surface.E * np.exp(shift[2]),
            alpha=surface.alpha + shift[3],
            beta=surface.beta + shift[4],
            compute=surface.compute,
        )
        return float(moved.a if target == "a" else moved.frontier_loss(target_C))

    return np.array([(value(STEP * row) - value(-STEP * row)) / (2 * STEP) for row in np.eye(5)])
