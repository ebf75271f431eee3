"""Least squares of valleys, whose constants are each profile's own but for the two of their shape.

The normal equations are solved profile by profile, what is left decides the shape (a Schur complement): the time grows with the
number of profiles, not with its cube.
"""

from dataclasses import dataclass

import numpy as np

USUAL = np.log(0.4)  # what p and q are expected to be, in logs: measured exponents lie between 0.15 and 1
LOWEST, HIGHEST = -4.0, 1.5  # of log p and log q
STEPS, LONGEST = 80, np.array([1, np.inf, 1])  # of the descent, and of one step in a profile's constants


def valley(u: np.ndarray, log_shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The height of the valley of curvature 1 at `u`, its slope, and its derivatives in log p and log q, shape (..., 2)."""
    p, q = np.exp(log_shape)
    left, right = np.exp(np.clip(-p * u, -50, 50)), np.exp(np.clip(q * u, -50, 50))
    below, above, total = (left - 1) / p, (right - 1) / q, p + q
    height = (below + above) / total
    of_p = (-u * left - below) / total - p * height / total
    of_q = (u * right - above) / total - q * height / total
    return height, (right - left) / total, np.stack([of_p, of_q], axis=-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Normal:
    """The normal equations at one point: each profile has its own three constants, and all share `shared`.

    Attributes:
        inverse: of each profile's own block, shape (profiles, 3, 3).
        link: what moves in a profile per unit of a shared constant, negated, shape (profiles, 3, shared).
        shared: the information on the shared constants, once the others follow them, shape (shared, shared).
        gradient: theirs, shape (shared,).
        own: the profiles' gradients, shape (profiles, 3).
    """

    inverse: np.ndarray
    link: np.ndarray
    shared: np.ndarray
    gradient: np.ndarray
    own: np.ndarray

    @classmethod
    def of(cls, J: np.ndarray, K: np.ndarray, r: np.ndarray, prior: np.ndarray, pull: np.ndarray, damping: float) -> "Normal":
        """From the Jacobians of the residuals `r` in a profile's own constants and in the shared ones, the information that is
        known of these beforehand and its gradient, and Levenberg's damping."""
        block, cross = np.einsum("kmi,kmj->kij", J, J), np.einsum("kmi,kmj->kij", J, K)
        block = block + damping * np.einsum("kii->ki", block)[:, :, None] * np.eye(3) + 1e-12 * np.eye(3)
        whole = np.einsum("kmi,kmj->ij", K, K) + prior
        inverse = np.linalg.inv(block)
        link, own = inverse @ cross, np.einsum("kmi,km->ki", J, r)
        shared = whole + damping * np.diag(np.diag(whole)) - np.einsum("kij,kil->jl", cross, link)
        gradient = np.einsum("kmi,km->i", K, r) + pull - np.einsum("kij,ki->j", link, own)
        return cls(inverse=inverse, link=link, shared=shared, gradient=gradient, own=own)

    def step(self) -> tuple[np.ndarray, np.ndarray]:
        """The Newton step of the profiles' constants and of the shared ones."""
        shared = -np.linalg.solve(self.shared, self.gradient)
        return -np.einsum("kij,kj->ki", self.inverse, self.own) - self.link @ shared, shared


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Least squares of the valleys through x = log N and y = loss, shape (profiles, runs), with standard deviations `sd`."""

    x: np.ndarray
    y: np.ndarray
    sd: np.ndarray  # infinite where there is no run
    spread: float  # of log p and log q about the usual

    def residuals(self, own: np.ndarray, log_shape: np.ndarray) -> tuple[np.ndarray, float]:
        height = valley(self.x - own[:, :1], log_shape)[0]
        r = (own[:, 1:2] + np.exp(own[:, 2:]) * height - self.y) / self.sd
        return r, float((r**2).sum() + (((log_shape - USUAL) / self.spread) ** 2).sum())

    def normal(self, own: np.ndarray, log_shape: np.ndarray, damping: float = 0.0, walls: bool = False) -> Normal:
        """The normal equations; with `walls`, two more shared constants raise the two walls by the square of their height."""
        u, curvature = self.x - own[:, :1], np.exp(own[:, 2:])
        height, slope, of_shape = valley(u, log_shape)
        J = np.stack([-curvature * slope, np.ones_like(u), curvature * height], axis=-1) / self.sd[..., None]
        K = curvature[..., None] * of_shape
        prior, pull = np.eye(2) / self.spread**2, (log_shape - USUAL) / self.spread**2
        if walls:
            K = np.concatenate([K, np.stack([curvature * height**2 * (u < 0), curvature * height**2 * (u > 0)], -1)], axis=-1)
            prior, pull = np.pad(prior, (0, 2)), np.pad(pull, (0, 2))
        return Normal.of(J, K / self.sd[..., None], self.residuals(own, log_shape)[0], prior, pull, damping)

    def solve(self, own: np.ndarray, log_shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levenberg and Marquardt's descent from a start."""
        damping, (_, value) = 1e-3, self.residuals(own, log_shape)
        for _ in range(STEPS):
            of_own, of_shape = self.normal(own, log_shape, damping).step()
            tried = own + np.clip(of_own, -LONGEST, LONGEST)
            shape = np.clip(log_shape + np.clip(of_shape, -1, 1), LOWEST, HIGHEST)
            new = self.residuals(tried, shape)[1]
            if not new <= value:
                damping *= 10
                if damping > 1e12:
                    break
                continue
            done = value - new <= 1e-12 * value
            own, log_shape, value, damping = tried, shape, new, max(damping / 10, 1e-9)
            if done:
                break
        return own, log_shape
