"""The laws of Kaplan et al. 2020 (arXiv 2001.08361), their published constants, and what follows from them.

    ScaleLaw        L(X) = (X_c / X)^alpha                                            equations 1.1 to 1.3
    SizeDataLaw     L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D       equation 1.5
    SizeStepsLaw    L(N, S_min) = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S           equation 1.6
    CriticalBatch   B_crit(L) = B* / L^(1 / alpha_B)                                  equation 1.4

N parameters without embeddings, D tokens, L nats per token, B tokens, S optimizer steps, C PF-days; losses are for the paper's
tokenizer and text, so the scales X_c mean little elsewhere. Every method takes numbers or arrays that broadcast. The laws are
fitted in `sweep.fit.kaplan.fits` and `critical_batch`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sweep.errors import LawError
from sweep.fit.result import PowerLaw

PF_DAY = 8.64e19  # FLOPs


@dataclass(frozen=True, kw_only=True)
class ScaleLaw:
    """L(X) = (scale / X)^exponent: the loss where only X is scarce. `scale` has the unit of X."""

    equation: ClassVar[str] = "L(X) = (scale / X)^exponent"
    scale: float
    exponent: float

    def predict(self, X: Any) -> Any:
        """Loss at X."""
        return (self.scale / np.asarray(X, dtype=float)) ** self.exponent


@dataclass(frozen=True, kw_only=True)
class SizeDataLaw:
    """L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D: the lowest loss of N parameters on D tokens."""

    equation: ClassVar[str] = "L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D"
    N_c: float
    D_c: float
    alpha_N: float
    alpha_D: float

    def predict(self, N: Any, D: Any) -> Any:
        """Loss of N parameters and D tokens; D may be infinite."""
        return (self.N_c / np.asarray(N, dtype=float)) ** self.alpha_N * (1 + self.overfitting(N, D))

    def overfitting(self, N: Any, D: Any) -> Any:
        """L(N, D) / L(N, inf) - 1 = (1 + (N / N_c)^(alpha_N / alpha_D) D_c / D)^alpha_D - 1: equation 4.3."""
        return np.expm1(self.alpha_D * np.log1p(self._D_of_one(N) / np.asarray(D, dtype=float)))

    def data_bound(self, N: Any, overfitting: float = 0.02) -> Any:
        """The tokens that keep L(N, D) / L(N, inf) - 1 at `overfitting`, a positive number: equation 4.4.

        Raises:
            LawError: "bad_input" if `overfitting` is not positive: no finite D has so little.
        """
        if not overfitting > 0:
            raise LawError("bad_input", f"overfitting = {overfitting:g} needs more than any finite D; give a positive number")
        return self._D_of_one(N) / np.expm1(np.log1p(overfitting) / self.alpha_D)

    def _D_of_one(self, N: Any) -> Any:
        """The tokens at which the two terms are equal."""
        return self.D_c * (np.asarray(N, dtype=float) / self.N_c) ** (self.alpha_N / self.alpha_D)


@dataclass(frozen=True, kw_only=True)
class SizeStepsLaw:
    """L(N, S_min) = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S: N parameters after S_min steps at a batch far above B_crit."""

    equation: ClassVar[str] = "L(N, S_min) = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S"
    N_c: float
    S_c: float
    alpha_N: float
    alpha_S: float

    def predict(self, N: Any, S_min: Any) -> Any:
        """Loss of N parameters after S_min steps."""
        of_size = (self.N_c / np.asarray(N, dtype=float)) ** self.alpha_N
        return of_size + (self.S_c / np.asarray(S_min, dtype=float)) ** self.alpha_S

    def early_stopping_bound(self, N: Any, D: Any, size_data_law: SizeDataLaw) -> Any:
        """The S_min before which training on D tokens need not stop: S_c / [L(N, D) - L(N, inf)]^(1 / alpha_S), equation 5.7.

        Both losses are of `size_data_law`, for the two laws need not agree on L(N, inf). Infinite for infinite D.
        """
        excess = size_data_law.predict(N, np.inf) * size_data_law.overfitting(N, D)
        with np.errstate(divide="ignore"):
            return self.S_c / excess ** (1 / self.alpha_S)


@dataclass(frozen=True, kw_only=True)
class CriticalBatch:
    """B_crit(L) = B_star / L^(1 / alpha_B): the tokens per step at which both steps and tokens are twice their least."""

    equation: ClassVar[str] = "B_crit(L) = B_star / L^(1 / alpha_B)"
    B_star: float
    alpha_B: float

    def predict(self, loss: Any) -> Any:
        """B_crit in tokens, at `loss`."""
        return self.B_star / np.asarray(loss, dtype=float) ** (1 / self.alpha_B)

    def S_min(self, S: Any, B: Any, loss: Any) -> Any:
        """The steps to `loss` at a batch far above B_crit, if it took S steps of B tokens: equation 5.4."""
        return S / (1 + self.predict(loss) / B)

    def C_min(self, C: Any, B: Any, loss: Any) -> Any:
        """The compute to `loss` at a batch far below B_crit, if it took C with B tokens a step, in C's unit: equation 5.5."""
        return C / (1 + B / self.predict(loss))


# Published: tables 2, 3 and 5, equation 5.3 and table 6. L(C) is the law of optimally allocated compute, C_min.
L_N = ScaleLaw(scale=8.8e13, exponent=0.076)
L_D = ScaleLaw(scale=5.4e13, exponent=0.095)
L_C = ScaleLaw(scale=3.1e8, exponent=0.050)
L_ND = SizeDataLaw(N_c=6.4e13, D_c=1.8e13, alpha_N=0.076, alpha_D=0.103)
L_NS = SizeStepsLaw(N_c=6.5e13, S_c=2.1e3, alpha_N=0.077, alpha_S=0.76)
B_CRIT = CriticalBatch(B_star=2e8, alpha_B=0.21)
N_OF_C = PowerLaw(coefficient=1.3e9, exponent=0.73)
D_OF_C = PowerLaw(coefficient=4e10, exponent=0.26)  # equation 6.7; table 6 has 2e10 and 0.27, which is 2 C / (6 N_OF_C)
