"""The laws of Kaplan et al. 2020 (arXiv 2001.08361), their published constants, and what follows from them.

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
LR_AT_ONE, LR_PER_LOG_N = 0.003239, -0.0001395  # equation D.1


@dataclass(frozen=True, kw_only=True)
class ScaleLaw:
    """Equations 1.1 to 1.3: the loss where only X is scarce. `scale` has the unit of X."""

    equation: ClassVar[str] = "L(X) = (scale / X)^exponent"
    scale: float
    exponent: float

    def predict(self, X: Any) -> Any:
        return (self.scale / np.asarray(X, dtype=float)) ** self.exponent


@dataclass(frozen=True, kw_only=True)
class SizeDataLaw:
    """Equation 1.5: the lowest loss of N parameters on D tokens."""

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
    """Equation 1.6: the loss of N parameters after S_min steps at a batch far above B_crit."""

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
    """Equation 1.4: the tokens per step at which both steps and tokens are twice their least."""

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


def learning_rate(N: float) -> float:
    """Adam's rate for N parameters without embeddings, the paper's rule of thumb: 0.003239 - 0.0001395 ln N.

    Raises:
        LawError: "bad_input" if N is below 1, "out_of_range" if it is so large (1.2e10) that the rate is not positive.
    """
    if not N >= 1:
        raise LawError("bad_input", f"N = {N:g} is not a number of parameters; give at least 1")
    rate = LR_AT_ONE + LR_PER_LOG_N * float(np.log(N))
    if rate <= 0:
        largest = np.exp(-LR_AT_ONE / LR_PER_LOG_N)
        raise LawError("out_of_range", f"the rule's rate is not positive at N = {N:g}; it holds below {largest:.2g} parameters")
    return rate


@dataclass(frozen=True, kw_only=True)
class OptimalExponents:
    """How the compute-efficient frontier grows: L falls as C^-alpha_C, and N, B, S and D = B S grow as C to the others."""

    alpha_C: float
    N: float
    B: float
    S: float
    D: float


def optimal_exponents(alpha_N: float, alpha_S: float, alpha_B: float) -> OptimalExponents:
    """The exponents in C_min that follow from those of L(N, S_min) and B_crit(L): equations 6.4, 6.5, B.7, B.9 and B.10.

    The published constants give alpha_C 0.052, as in B.7, and N 0.68; equations 6.4 and 6.5 print 0.054 and 0.71.

    Raises:
        LawError: "bad_input" if an exponent is not positive and finite.
    """
    for name, alpha in (("alpha_N", alpha_N), ("alpha_S", alpha_S), ("alpha_B", alpha_B)):
        if not 0 < alpha < np.inf:
            raise LawError("bad_input", f"{name} = {alpha:g}; an exponent must be positive and finite: fit it again")
    alpha_C = 1 / (1 / alpha_S + 1 / alpha_B + 1 / alpha_N)
    B, S = alpha_C / alpha_B, alpha_C / alpha_S
    return OptimalExponents(alpha_C=alpha_C, N=alpha_C / alpha_N, B=B, S=S, D=B + S)


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Where compute-efficient training would beat the loss its own data allows: C in PF-days, N, D in tokens and the loss."""

    C: float
    N: float
    D: float
    loss: float


def contradiction(
    *, L_C: ScaleLaw = L_C, L_D: ScaleLaw = L_D, N_of_C: PowerLaw = N_OF_C, D_of_C: PowerLaw | None = None
) -> Contradiction:
    """The compute at which L_C(C) falls below L_D(D(C)): section 6.3 and figure 15.

    Args:
        L_C: loss of optimally allocated compute, in PF-days.
        L_D: loss of a large model on D tokens.
        N_of_C: the optimal size at C PF-days.
        D_of_C: the tokens seen at C PF-days; if None one epoch at the critical batch, D = 2 C / (6 N), equation 6.7. The point
            depends on it strongly: the published constants give 1.7e4 PF-days so, and 1.1e5 with `D_OF_C`, the paper's rounding
            of the same growth. The paper itself says 1e4, and that it is uncertain by an order of magnitude either way.

    Raises:
        LawError: "never_meet" if data grows so fast that L_D(D(C)) falls at least as fast as L_C.
    """
    if D_of_C is None:
        D_of_C = PowerLaw(coefficient=2 * PF_DAY / (6 * N_of_C.coefficient), exponent=1 - N_of_C.exponent)
    closing = L_C.exponent - L_D.exponent * D_of_C.exponent  # how fast the two losses approach, in logs
    if closing <= 0:
        rates = f"C^-{L_D.exponent * D_of_C.exponent:.3g}, no slower than L_C as C^-{L_C.exponent:.3g}"
        raise LawError("never_meet", f"L_D(D(C)) falls as {rates}: with these exponents data never holds compute back")
    gap = L_C.exponent * np.log(L_C.scale) - L_D.exponent * np.log(L_D.scale / D_of_C.coefficient)  # at one PF-day
    C = float(np.exp(gap / closing))
    return Contradiction(C=C, N=float(N_of_C(C)), D=float(D_of_C(C)), loss=float(L_C.predict(C)))
