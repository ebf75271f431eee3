"""Consequences of the laws of Kaplan et al. 2020 (arXiv 2001.08361): the learning rate, the growth of the compute-efficient
frontier, and the compute at which the laws contradict each other."""

from dataclasses import dataclass

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.laws import L_C, L_D, N_OF_C, PF_DAY, ScaleLaw
from sweep.fit.result import PowerLaw

LR_AT_ONE, LR_PER_LOG_N = 0.003239, -0.0001395  # equation D.1


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
        raise LawError(
            "never_meet",
            f"L_D(D(C)) falls as C^-{L_D.exponent * D_of_C.exponent:.3g}, no slower than L_C as C^-{L_C.exponent:.3g}: "
            "with these exponents data never holds compute back",
        )
    gap = L_C.exponent * np.log(L_C.scale) - L_D.exponent * np.log(L_D.scale / D_of_C.coefficient)  # at one PF-day
    C = float(np.exp(gap / closing))
    return Contradiction(C=C, N=float(N_of_C(C)), D=float(D_of_C(C)), loss=float(L_C.predict(C)))
