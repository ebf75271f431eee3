"""What interval of a a grid would give, told before any of its runs is trained: from the Fisher information of its (N, D) on a
surface that is assumed. `tests/sweep/fit/test_expectation.py` compares it with fits of simulated sweeps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches.parametric_problem import ILL_CONDITIONED, require_enough
from sweep.fit.information import condition_number, expected_sd
from sweep.fit.judge.simulate import Simulator
from sweep.fit.result import Estimate, Record, positive
from sweep.fit.solver.search import free_directions
from sweep.fit.surface import CHINCHILLA, Compute, Surface
from sweep.words import counted

REFERENCE_C, SCATTER = 1e20, 0.005
TOO_WIDE = 0.73 - 0.50  # an interval this wide cannot tell Kaplan's exponent from Chinchilla's
COUNTED = {"N": "total", "C": "6N"}  # how a plan counts


@dataclass(frozen=True, kw_only=True)
class Expectation(Record):
    """The a that Approach 3 would give.

    Attributes:
        runs: of the grid.
        a: the assumed exponent, with the interval that a fit would put about it; without one if the runs cannot identify a.
        sd: its standard deviation.
        condition_number: of the information in centred logs; infinite if some constant is left open.
        level: of the interval.
        assumed: the surface and the scatter of the losses, in words.
        problem: why the runs cannot identify a; None if they can.
    """

    runs: int
    a: Estimate
    sd: float
    condition_number: float
    level: float
    assumed: str
    problem: str | None = None

    def line(self) -> str:
        if self.problem and not np.isfinite(self.condition_number):
            return f"a cannot be identified by {counted(self.runs, 'run')}: {self.problem}"
        told = f"condition number {self.condition_number:.2g}; assumed: {self.assumed}"
        if self.problem:
            return f"a cannot be identified by {counted(self.runs, 'run')}: {self.problem}; {told}"
        return (
            f"a = {self.a} is to be expected of {counted(self.runs, 'run')} by Approach 3 ({self.level:.0%} interval); {told}"
        )


def expect(
    N: ArrayLike,
    D: ArrayLike,
    *,
    previous: Mapping[str, Any] | None = None,
    objective: str = "huber",
    delta: float = 1e-3,
    tied: bool = False,
    fixed_E: float | None = None,
    level: float = 0.8,
) -> Expectation:
    """What runs of `N` parameters on `D` tokens, each of shape (runs,), would tell about a.

    The surface is that of an earlier fit, if there is one, with the scatter about it; else it has Chinchilla's E and exponents,
    with A and B such that in the grid's middle each term is what it is in Chinchilla's optimal run of 1e20 FLOPs. The interval
    grows in proportion to the scatter.

    Args:
        previous: fits.json of a fit of such runs.
        objective, delta, tied, fixed_E: of the fit to come; see `fit_parametric`.
        level: of the interval.
    """
    sizes, tokens = np.atleast_1d(positive("N", N)), np.atleast_1d(positive("D", D))
    surface, scatter, source = _assumed(sizes, tokens, previous)
    free = free_directions(tied=tied, fixed_E=fixed_E)
    sd = scatter * inefficiency(objective, delta, scatter)
    assumed = f"{source}; losses that scatter by {100 * scatter:.2g} %, and twice that would double the interval"
    return expectation(sizes, tokens, surface, sd=sd, free=free, level=level, assumed=assumed)


def expectation(
    N: np.ndarray, D: np.ndarray, surface: Surface, *, sd: float, free: np.ndarray, level: float, assumed: str
) -> Expectation:
    """The same on a known surface; `sd` is the error of one run's log L as a measurement, and `free` as of `ParametricFit`."""
    tied = bool((free[3] == free[4]).all())
    a = 1 / (1 + surface.compute.eta) if tied else float(surface.a)
    try:
        require_enough(Simulator(surface=surface).runs(N, D), free=free.shape[1])
    except LawError as error:
        return Expectation(
            runs=len(N),
            a=Estimate(a),
            sd=np.inf,
            condition_number=np.inf,
            level=level,
            assumed=assumed,
            problem=str(error),
        )
    condition, spread = condition_number(surface, N, D, free), expected_sd(surface, N, D, sd=sd, free=free)
    if tied:
        known = Estimate(a, note="by construction, no interval")
        return Expectation(runs=len(N), a=known, sd=0.0, condition_number=condition, level=level, assumed=assumed)
    half = NormalDist().inv_cdf((1 + level) / 2) * spread
    problem = None
    if 2 * half > TOO_WIDE:
        wide = f"its {level:.0%} interval would be {a:.2g} ± {half:.2g}, too wide to tell Kaplan's 0.73 from Chinchilla's 0.50"
        problem = f"{wide}; spread N at each budget, add budgets further apart, or more runs"
    elif condition > ILL_CONDITIONED:
        problem = "some combination of E, A, B, alpha and beta is hardly determined; widen the grid"
    interval = Estimate(a) if problem else Estimate(a, a - half, a + half)
    return Expectation(
        runs=len(N), a=interval, sd=spread, condition_number=condition, level=level, assumed=assumed, problem=problem
    )


def inefficiency(objective: str, delta: float, sd: float) -> float:
    """The standard deviation of the minimum of `objective` over that of least squares, for many normal errors of log L of size
    `sd` (Huber 1964): 1.25 for absolute values, towards 1 for a Huber loss much wider than the errors."""
    if objective not in ("huber", "lad"):
        return 1.0
    k = delta / sd if objective == "huber" and sd > 0 else 0.0
    inside = math.erf(k / math.sqrt(2))
    if inside < 1e-6:
        return math.sqrt(math.pi / 2)
    squares = inside - 2 * k * NormalDist().pdf(k) + k**2 * (1 - inside)
    return math.sqrt(squares) / inside


def _assumed(N: np.ndarray, D: np.ndarray, previous: Mapping[str, Any] | None) -> tuple[Surface, float, str]:
    """The surface, the scatter of log L, and where they are from."""
    known = (previous or {}).get("parametric", {})
    counted = {name: (previous or {}).get("convention", {}).get(name) for name in COUNTED} == COUNTED
    if known.get("status") == "converged" and counted and known.get("residual_sd"):
        constants = {name: known[name]["value"] for name in ("E", "A", "B", "alpha", "beta")}
        surface = Surface(**constants, compute=Compute(**known["compute"]))
        return surface, float(known["residual_sd"]), "the surface of the sweep's last fit"
    N_opt, D_opt = CHINCHILLA.optimal(REFERENCE_C)
    surface = Surface(
        E=CHINCHILLA.E,
        A=CHINCHILLA.A * (np.exp(np.log(N).mean()) / N_opt) ** CHINCHILLA.alpha,
        B=CHINCHILLA.B * (np.exp(np.log(D).mean()) / D_opt) ** CHINCHILLA.beta,
        alpha=CHINCHILLA.alpha,
        beta=CHINCHILLA.beta,
    )
    return surface, SCATTER, f"Chinchilla's surface, its optimum of {REFERENCE_C:g} FLOPs moved to the grid's middle"
