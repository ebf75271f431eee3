"""Approach 1: the lower envelope of all training curves (Hoffmann et al. 2022, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.fit.result import Estimate, LawError, PowerLaw
from sweep.fit.table import Curve

MIN_SIZES = 3  # two sizes make a step, not a law


@dataclass(frozen=True, kw_only=True)
class EnvelopeFit:
    """N_opt = N_law(C) and D_opt = D_law(C), through the winners at log-spaced FLOPs.

    Attributes:
        a, b: the exponents of N_opt and D_opt in C.
        N_law, D_law: the laws.
        flops, loss, N, D: the envelope itself, shape (points,): at each C the lowest loss and whose it was.
    """

    a: Estimate
    b: Estimate
    N_law: PowerLaw
    D_law: PowerLaw
    flops: np.ndarray
    loss: np.ndarray
    N: np.ndarray
    D: np.ndarray
    status: str = "converged"

    def to_dict(self) -> dict:
        return {
            "status": self.status,
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "N_coefficient": self.N_law.coefficient,
            "D_coefficient": self.D_law.coefficient,
            "sizes_on_envelope": len(np.unique(self.N)),
            "flops_range": [float(self.flops[0]), float(self.flops[-1])],
        }


def smooth_curve(loss: np.ndarray, sigma: float) -> np.ndarray:
    """`loss`, shape (steps,), smoothed by a Gaussian of `sigma` steps; near the ends by the part of it that fits."""
    if sigma <= 0:
        return loss
    from scipy.ndimage import gaussian_filter1d

    weight = gaussian_filter1d(np.ones_like(loss, dtype=float), sigma, mode="constant")
    return gaussian_filter1d(loss.astype(float), sigma, mode="constant") / weight


def fit_envelope(
    curves: Sequence[Curve], *, points: int = 1500, resamples: int = 200, level: float = 0.8, seed: int = 0
) -> EnvelopeFit:
    """Fit the envelope of `curves`, smoothed already.

    The FLOPs run from the end of the shortest run, before which no run has a decayed rate, to where the third-last size ends:
    beyond, too few sizes compete for the best to mean anything.
    Intervals come from resampling whole curves, as the points of one curve are not independent.

    Raises:
        LawError: if fewer than three sizes are ever best.
    """
    if not curves:
        raise LawError("no_curves", "there are no training curves; Approach 1 needs them beside the table of runs")
    if len({curve.N for curve in curves}) < MIN_SIZES:
        raise LawError(
            "too_few_sizes", f"the curves are of fewer than {MIN_SIZES} sizes; Approach 1 needs more: widen the grid"
        )
    flops = np.geomspace(*_range_of_flops(curves), points)
    N, per_token = (np.array([getattr(curve, name) for curve in curves]) for name in ("N", "flops_per_token"))
    losses = np.stack([_interpolate(curve, flops) for curve in curves])

    def winners(chosen: np.ndarray) -> np.ndarray:
        return chosen[np.argmin(losses[chosen], axis=0)]

    everything = np.arange(len(curves))
    best = winners(everything)
    if (sizes := len(np.unique(N[best]))) < MIN_SIZES:
        raise LawError(
            "too_few_sizes", f"only {sizes} sizes are ever best; Approach 1 needs at least {MIN_SIZES}: widen the grid"
        )
    rng = np.random.default_rng(seed)
    exponents = np.full((resamples, 2), np.nan)
    for i in range(resamples):
        chosen = np.unique(rng.choice(everything, len(curves)))
        won = winners(chosen)
        reached = np.isfinite(losses[won, np.arange(points)])  # a resample may lack the longest run
        if len(np.unique(N[won[reached]])) >= MIN_SIZES:
            x, n, d = flops[reached], N[won[reached]], flops[reached] / per_token[won[reached]]
            exponents[i] = PowerLaw.fit(x, n).exponent, PowerLaw.fit(x, d).exponent
    N_law, D_law = PowerLaw.fit(flops, N[best]), PowerLaw.fit(flops, flops / per_token[best])
    return EnvelopeFit(
        a=Estimate.from_resamples(N_law.exponent, exponents[:, 0], level),
        b=Estimate.from_resamples(D_law.exponent, exponents[:, 1], level),
        N_law=N_law,
        D_law=D_law,
        flops=flops,
        loss=losses[best, np.arange(points)],
        N=N[best],
        D=flops / per_token[best],
    )


def _range_of_flops(curves: Sequence[Curve]) -> tuple[float, float]:
    ends: dict[float, list[float]] = {}
    for curve in curves:
        ends.setdefault(curve.N, []).append(float(curve.tokens[-1] * curve.flops_per_token))
    last_of_each_size = sorted(max(of_size) for of_size in ends.values())
    return min(min(of_size) for of_size in ends.values()), last_of_each_size[-MIN_SIZES]


def _interpolate(curve: Curve, flops: np.ndarray) -> np.ndarray:
    """Loss at `flops`, linear in log-log; infinite where the run was not, so that it never wins there."""
    x = np.log(curve.tokens * curve.flops_per_token)
    # A rounding error must not keep a run from the point where it ends.
    at = np.where(np.isclose(np.log(flops), x[-1], rtol=0, atol=1e-9), x[-1], np.log(flops))
    return np.exp(np.interp(at, x, np.log(curve.loss), left=np.inf, right=np.inf))
