"""The parametric loss surface and its frontier in closed form (Hoffmann et al. 2022, section 3.3 and equation 4)."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sweep.errors import LawError
from sweep.fit.result import PowerLaw, Record

FAR_OFF = 0.3  # in log C
PLAUSIBLE_ETA = (0.5, 1.5)


@dataclass(frozen=True, kw_only=True)
class Compute(Record):
    """The cost of training: C = kappa N^eta D FLOPs. The default is the paper's C = 6 N D; `eta` differs from 1 under
    conventions that count parameters in one way and FLOPs in another, or include attention's quadratic part."""

    kappa: float = 6.0
    eta: float = 1.0

    @classmethod
    def of_runs(cls, N: np.ndarray, D: np.ndarray, C: np.ndarray) -> "Compute":
        """The law through runs of `N` parameters, `D` tokens and `C` FLOPs, each of shape (runs,): least squares in logs.

        Raises:
            LawError: "mixed_counting" if C / D is not a power of N, for then N_opt is not a power of C either.
        """
        if np.allclose(C, 6 * N * D, rtol=1e-6):
            return cls()
        slope, intercept = np.polyfit(np.log(N), np.log(C / D), 1)
        if not PLAUSIBLE_ETA[0] <= slope <= PLAUSIBLE_ETA[1]:
            reason = f"C / D grows as N^{slope:.2g} over the runs, where it should grow about as N"
            raise LawError("mixed_counting", f"{reason}: check the columns of N, D and C")
        off = float(np.quantile(np.abs(np.log(C / D) - slope * np.log(N) - intercept), 0.9))
        if off > FAR_OFF:
            raise LawError(
                "mixed_counting",
                f"C / D is not a power of N: a tenth of the runs are off by {np.expm1(off):.0%} or more, as when N leaves out "
                "embeddings whose FLOPs C counts; use an N and a C that are counted alike",
            )
        return cls(kappa=float(np.exp(intercept)), eta=float(slope))

    def flops(self, N: Any, D: Any) -> Any:
        """C of training `N` parameters on `D` tokens."""
        return self.kappa * N**self.eta * D

    def tokens(self, N: Any, C: Any) -> Any:
        """D that a budget of `C` FLOPs buys for `N` parameters."""
        return C / (self.kappa * N**self.eta)

    def tokens_law(self, N_law: PowerLaw) -> PowerLaw:
        """The law of D_opt that a law of N_opt implies: D_opt = C / (kappa N_opt^eta)."""
        coefficient = 1 / (self.kappa * N_law.coefficient**self.eta)
        return PowerLaw(coefficient=coefficient, exponent=1 - self.eta * N_law.exponent)


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token.

    The constants are numbers, or arrays of one shape to evaluate many surfaces at once (`column` prepares bootstrap
    replicates for that).
    """

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any
    compute: Compute = Compute()

    @property
    def constants(self) -> dict[str, Any]:
        """E, A, B, alpha and beta by name."""
        return {name: getattr(self, name) for name in ("E", "A", "B", "alpha", "beta")}

    @property
    def a(self) -> Any:
        """Exponent of N_opt in C: beta / (alpha + eta beta)."""
        return self.beta / (self.alpha + self.compute.eta * self.beta)

    @property
    def b(self) -> Any:
        """Exponent of D_opt in C: alpha / (alpha + eta beta), which is 1 - eta a."""
        return self.alpha / (self.alpha + self.compute.eta * self.beta)

    @property
    def G(self) -> Any:
        """N_opt = G (C / kappa)^a: G = (alpha A / (eta beta B))^(1 / (alpha + eta beta))."""
        eta = self.compute.eta
        return (self.alpha * self.A / (eta * self.beta * self.B)) ** (1 / (self.alpha + eta * self.beta))

    def predict(self, N: Any, D: Any) -> Any:
        """L(N, D)."""
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    def optimal(self, C: Any) -> tuple[Any, Any]:
        """(N_opt, D_opt) at budgets of `C` FLOPs."""
        N = self.G * (C / self.compute.kappa) ** self.a
        return N, self.compute.tokens(N, C)

    def frontier_loss(self, C: Any) -> Any:
        """L(N_opt(C), D_opt(C)): the lowest loss that `C` FLOPs can buy."""
        return self.predict(*self.optimal(C))

    def penalty(self, C: Any, factor: Any) -> Any:
        """How much higher the loss is with `factor` times N_opt at budgets of `C` FLOPs."""
        N = factor * self.optimal(C)[0]
        return self.predict(N, self.compute.tokens(N, C)) - self.frontier_loss(C)

    def budget_for_size(self, N: Any) -> Any:
        """C at which `N` parameters are optimal."""
        return self.compute.kappa * (N / self.G) ** (1 / self.a)

    def budget_for_loss(self, loss: Any) -> Any:
        """The least C that reaches `loss`; NaN where `loss` is not above E, which no budget reaches.

        On the frontier both terms fall as the same power of C, so the reducible loss is one power law.
        """
        decay = self.alpha * self.a
        reducible = self.frontier_loss(1.0) - self.E
        gap = np.asarray(loss - self.E, dtype=float)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(gap > 0, (reducible / gap) ** (1 / decay), np.nan)[()]

    def tokens_for_loss(self, N: Any, loss: Any) -> Any:
        """D that brings `N` parameters to `loss`; infinite where no D does."""
        gap = np.asarray(loss - self.E - self.A / N**self.alpha, dtype=float)
        with np.errstate(over="ignore"):
            return np.where(gap > 0, (self.B / np.maximum(gap, 1e-300)) ** (1 / self.beta), np.inf)[()]

    def size_for_loss(self, D: Any, loss: Any) -> Any:
        """N that brings `D` tokens to `loss`; infinite where no N does."""
        gap = np.asarray(loss - self.E - self.B / D**self.beta, dtype=float)
        with np.errstate(over="ignore"):
            return np.where(gap > 0, (self.A / np.maximum(gap, 1e-300)) ** (1 / self.alpha), np.inf)[()]

    def column(self) -> "Surface":
        """Constants of shape (surfaces,) as (surfaces, 1), so that they broadcast against runs or budgets."""
        columns = {name: np.asarray(values)[:, None] for name, values in self.constants.items()}
        return Surface(**columns, compute=self.compute)


class SurfaceLaw(Protocol):
    """A law with a surface: what the questions need of it."""

    @property
    def surface(self) -> Surface:
        """The constants."""

    @property
    def replicates(self) -> Surface:
        """The constants as they may be, shape (resamples,)."""

    @property
    def level(self) -> float:
        """Of the intervals."""


# Hoffmann et al. 2022 (arXiv 2203.15556), section 3.3, with the digits of the paper's TeX source.
CHINCHILLA = Surface(E=math.exp(0.5267228), A=math.exp(6.0073404), B=math.exp(6.0179186), alpha=0.33917084, beta=0.2849083)
# Besiroglu et al. 2024 (arXiv 2404.10102), fitted to 240 points of the same paper's Fig. 4.
BESIROGLU = Surface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
