"""What less loss takes: more parameters, more data, or both; and what doubling either still buys.

Kaplan et al. 2020 (arXiv 2001.08361) ask this first. All of it follows from the surface L(N, D), with intervals from its
replicates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.fit.result import Estimate, Record
from sweep.fit.surface import Surface, SurfaceLaw

WAYS = ("more parameters alone", "more data alone", "both, in the best proportion")
ENDLESS = "no amount is enough"


@dataclass(frozen=True, kw_only=True)
class Way(Record):
    """One way to the target.

    Attributes:
        by: one of `WAYS`.
        N, D, C: factors over what the present run has; None for what stays as it is, and all if no amount is enough. An
            infinite end says that for so many resamples none is.
        reason: why no amount is enough.
    """

    by: str
    N: Estimate | None = None
    D: Estimate | None = None
    C: Estimate | None = None
    reason: str | None = None

    def line(self) -> str:
        factors = ", ".join(f"{name} x {factor}" for name, factor in (("N", self.N), ("D", self.D), ("C", self.C)) if factor)
        return f"{self.by}: {self.reason or factors}"


@dataclass(frozen=True, kw_only=True)
class Improvement(Record):
    """How to come from the loss of a run of `N` parameters and `D` tokens to one lower by the share `less`.

    Attributes:
        loss, target: of the surface at (N, D), and the loss to reach, in nats per token.
        ways: by N at this D, by D at this N, and by the least C that reaches the target.
    """

    less: float
    N: float
    D: float
    loss: Estimate
    target: Estimate
    ways: tuple[Way, ...]

    def lines(self) -> list[str]:
        start = f"N = {self.N:.4g}, D = {self.D:.4g}"
        head = f"{100 * self.less:g} % less loss than {start}: from {self.loss} to {self.target}"
        return [head, *(f"  {way.line()}" for way in self.ways)]


def improvement(fit: SurfaceLaw, less: float, N: float, D: float) -> Improvement:
    """What takes the loss at (`N`, `D`) down by the share `less`, between 0 and 1. In every resample the target is that share
    below its own loss at (N, D), for what the question compares are two losses of one law."""
    surface = fit.surface
    now, drawn_now = surface.predict(N, D), fit.replicates.predict(N, D)
    target, drawn_target = (1 - less) * now, (1 - less) * drawn_now
    factors, drawn = _factors(surface, N, D, target), _factors(fit.replicates, N, D, drawn_target)
    # What stays as it is, and what is left of the loss when the rest is infinite.
    held_D = ("D", f"with D = {D:.4g}", surface.E + surface.B / D**surface.beta)
    held_N = ("N", f"with N = {N:.4g}", surface.E + surface.A / N**surface.alpha)
    ways = []
    for way, (fixed, given, limit) in enumerate((held_D, held_N, ("", "with any N and D", surface.E))):
        enough = np.isfinite(drawn[way, 2])
        if np.isfinite(factors[way, 2]):
            found: dict[str, Any] = {
                name: None if name == fixed else Estimate.from_resamples(float(x), xs, fit.level)
                for name, x, xs in zip(("N", "D", "C"), factors[way], drawn[way], strict=True)
            }
        else:
            share = f" ({enough.mean():.0%} of the resamples do reach it)" if enough.any() else ""
            leaves = f"{given} the loss stays above {limit:.4g}, and the target is {target:.4g}{share}"
            found = {"reason": f"{ENDLESS}: {leaves}"}
        ways.append(Way(by=WAYS[way], **found))
    loss, goal = (Estimate.from_resamples(float(x), xs, fit.level) for x, xs in ((now, drawn_now), (target, drawn_target)))
    return Improvement(less=less, N=N, D=D, loss=loss, target=goal, ways=tuple(ways))


def _factors(surface: Surface, N: float, D: float, target: Any) -> np.ndarray:
    """N, D and C over the present ones by each of `WAYS`, shape (ways, 3) or (ways, 3, surfaces); infinite where no amount
    reaches `target`, NaN for resamples whose loss does not fall with N and D."""
    falls = (np.asarray(surface.alpha) > 0) & (np.asarray(surface.beta) > 0)
    one = np.ones(falls.shape)
    with np.errstate(all="ignore"):
        more_N, more_D = surface.size_for_loss(D, target) / N, surface.tokens_for_loss(N, target) / D
        C = np.where(np.isnan(found := surface.budget_for_loss(target)), np.inf, found)
        best_N, best_D = surface.optimal(C)
        now = surface.compute.flops(N, D)
        ways = (
            (more_N, one, surface.compute.flops(more_N * N, D) / now),
            (one, more_D, surface.compute.flops(N, more_D * D) / now),
            (best_N / N, np.where(np.isinf(C), np.inf, best_D) / D, C / now),
        )
    return np.where(falls, np.array(ways, dtype=float), np.nan)


@dataclass(frozen=True, kw_only=True)
class Gain(Record):
    """What a doubling buys at the compute-optimal run of `C` FLOPs: the change of the loss, negative, in nats per token.

    Attributes:
        of_N, of_D: by twice the parameters at the same tokens, and the other way round.
        of_C: by twice the compute, along the frontier.
    """

    C: float
    of_N: Estimate
    of_D: Estimate
    of_C: Estimate

    def line(self) -> str:
        return f"C = {self.C:.3g}: of N at fixed D {self.of_N}, of D at fixed N {self.of_D}, of C {self.of_C}"


def doubling(fit: SurfaceLaw, C: float) -> Gain:
    """What twice N, D or C changes at the optimum of `C` FLOPs, by the surface; each resample starts from its own optimum."""
    value, drawn = _doubled(fit.surface, C), _doubled(fit.replicates, C)
    of = [Estimate.from_resamples(float(x), xs, fit.level) for x, xs in zip(value, drawn, strict=True)]
    return Gain(C=C, of_N=of[0], of_D=of[1], of_C=of[2])


def _doubled(surface: Surface, C: float) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):  # a resample may have no frontier
        N, D = surface.optimal(C)
        now = surface.predict(N, D)
        return surface.predict(2 * N, D) - now, surface.predict(N, 2 * D) - now, surface.frontier_loss(2 * C) - now
