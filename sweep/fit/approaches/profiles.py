"""All IsoFLOP profiles of a table: which have a minimum, where it is, and how precisely."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.profile import Profile, fit_profile, minimum_of_cubic, vertex
from sweep.fit.approaches.valleys import Valleys, fit_valleys
from sweep.fit.result import Estimate, Intervals, plain
from sweep.fit.solver.regression import PowerFit, fit_power_law
from sweep.fit.surface import Surface
from sweep.tables.table import RunTable

MIN_PROFILES = 3
MIN_SPAN = 2.0 * (1 - 1e-6)  # of the budgets: a factor of two, short of rounding
NAMED = 5  # refused profiles that a message names
HALF_WEIGHT = 0.5  # a run that counts less lies where the shape does not hold
MANY = 1e9  # degrees of freedom of a noise that is given
MISFIT = 0.01  # p-value below which a surface does not fit, and so cannot correct a parabola


class TooFewProfiles(LawError):
    """Fewer than three budgets have an interior minimum; `profiles` has the reason for each."""

    def __init__(self, reason: str, profiles: tuple[Profile, ...]) -> None:
        super().__init__("too_few_profiles", reason)
        self.profiles = profiles

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "profiles": plain(self.profiles)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Minima:
    """The profiles of a table, those with a minimum among them, and the valleys through these."""

    profiles: tuple[Profile, ...]
    good: tuple[Profile, ...]
    valleys: Valleys

    @property
    def C(self) -> np.ndarray:
        """Of the minima, shape (good,)."""
        return np.array([profile.C_opt for profile in self.good])

    def told(self) -> str:
        """Whether the profiles have the shape of the valleys, for readers."""
        if np.isnan(self.valleys.p_value):
            return "the profiles have too few runs to test their shape"
        if not self.valleys.misfit:
            return f"the profiles have one shape (p = {self.valleys.p_value:.2g})"
        far = np.count_nonzero(self.valleys.weight[self.valleys.weight > 0] < HALF_WEIGHT)
        shape = f"the profiles' shape holds to {self.valleys.misfit:.0%} of the height above the minimum"
        return f"{shape} (p = {self.valleys.p_value:.2g}); runs higher up that count less than half: {far}"

    def height(self, u: float) -> PowerFit:
        """How much higher the loss is at log N = log N_opt + `u`, as a power law of C."""
        log_height, covariance = self.valleys.log_height(u)
        return fit_power_law(self.C, log_height, covariance, self.valleys.freedom)

    def curvature(self, C: Any) -> Any:
        """Of the valley at `C` FLOPs, by a power law."""
        return np.exp(np.polyval(np.polyfit(np.log(self.C), self.valleys.log_curvature, 1), np.log(C)))

    def on(self, surface: Surface) -> "Minima":
        """The same with the bias that the parabolas have on `surface`."""

        def biased(profile: Profile) -> Profile:
            at = vertex(profile.x, surface.predict(profile.N, profile.D))[0]
            return replace(profile, N_bias=float(profile.centre + at - np.log(surface.optimal(profile.C_opt)[0])))

        known = {id(profile): biased(profile) for profile in self.good}
        profiles = tuple(known.get(id(profile), profile) for profile in self.profiles)
        return replace(self, profiles=profiles, good=tuple(known.values()))

    def agree_with(self, surface: Surface) -> bool:
        """Whether the runs lie no further from `surface` than the noise about the valleys explains (an F test)."""
        from scipy.special import fdtrc

        residuals = np.concatenate([each.loss - surface.predict(each.N, each.D) for each in self.good])
        spare = len(residuals) - len(surface.constants)
        if not self.valleys.freedom or spare < 1:
            return False
        ratio = float((residuals**2).sum()) / spare / self.valleys.noise**2
        return bool(fdtrc(spare, min(self.valleys.freedom, MANY), ratio) > MISFIT)

    def other_exponents(self, intervals: Intervals) -> dict[str, Estimate]:
        """a by other minima of the same profiles, where at least three have one: "parabola", the paper's, through all runs of a
        profile; "corrected", the same less its bias; "cubic", a local cubic."""
        parabola = np.array([(np.log(each.N_parabola), _variance_of_parabola(each)) for each in self.good])
        bias = np.array([each.N_bias for each in self.good])
        cubic = np.array([minimum_of_cubic(np.log(p.N), p.loss, float(np.log(p.N_opt))) for p in self.good])
        estimates = {}
        for name, log_N, variance in (
            ("parabola", *parabola.T),
            ("corrected", parabola[:, 0] - bias, parabola[:, 1]),
            ("cubic", *cubic.T),
        ):
            known = np.isfinite(log_N)
            if known.sum() >= MIN_PROFILES:
                errors = np.diag(self.valleys.noise**2 * variance[known])
                fit = fit_power_law(self.C[known], log_N[known], errors, self.valleys.freedom)
                estimates[name] = Estimate.from_resamples(fit.law.exponent, fit.draws(intervals).exponent, intervals.level)
        return estimates


def find_minima(table: RunTable, noise: float | None = None) -> Minima:
    """The profiles of all budgets.

    Args:
        table: the runs.
        noise: standard deviation of a loss, in nats, if it is known.

    Raises:
        LawError: "no_budgets" if no run names one.
        TooFewProfiles: if fewer than three have a minimum, or these lie too close for a power law.
    """
    budgets = np.unique(table.budget[np.isfinite(table.budget)])
    if not len(budgets):
        raise LawError("no_budgets", "no run names a planned budget; Approach 2 needs a column that groups runs by it")
    profiles = [
        fit_profile(float(value), table.N[own], table.D[own], table.C[own], table.loss[own])
        for value in budgets
        for own in [table.budget == value]
    ]
    while True:
        chosen = [i for i, profile in enumerate(profiles) if profile.status == "converged"]
        _require(profiles)
        good = [profiles[i] for i in chosen]
        start = [(float(np.log(each.N_opt)), each.loss_opt, each.curvature) for each in good]
        valleys = fit_valleys([np.log(each.N) for each in good], [each.loss for each in good], start, noise)
        lost = [i for i, at in zip(chosen, valleys.log_N, strict=True) if not _inside(profiles[i], at)]
        if not lost:
            break
        for i in lost:
            reason = "the minimum of the valley lies beyond the sizes: add some there"
            profiles[i] = replace(profiles[i], status="edge", reason=reason, N_opt=np.nan, D_opt=np.nan, C_opt=np.nan)
    filled = _filled(good, valleys)
    for i, profile in zip(chosen, filled, strict=True):
        profiles[i] = profile
    return Minima(profiles=tuple(profiles), good=filled, valleys=valleys)


def _inside(profile: Profile, log_N: float) -> bool:
    return bool(np.log(profile.N[0]) < log_N < np.log(profile.N[-1]))


def _require(profiles: Sequence[Profile]) -> None:
    minima = [profile.budget for profile in profiles if profile.status == "converged"]
    if len(minima) < MIN_PROFILES:
        refused = [f"{p.budget:.3g}: {p.reason}" for p in profiles if p.status != "converged"]
        more = [f"and {len(refused) - NAMED} more"] if len(refused) > NAMED else []
        raise TooFewProfiles(
            f"profiles with an interior minimum: {len(minima)} of {len(profiles)}; power laws need at least {MIN_PROFILES} "
            f"({'; '.join(refused[:NAMED] + more) or 'add budgets'})",
            tuple(profiles),
        )
    if max(minima) < MIN_SPAN * min(minima):
        raise TooFewProfiles(
            f"the budgets lie within a factor of {max(minima) / min(minima):.2g}; a power law needs at least a factor of 2: "
            "add budgets further apart",
            tuple(profiles),
        )


def _filled(profiles: Sequence[Profile], valleys: Valleys) -> tuple[Profile, ...]:
    """The profiles with their minima by the valleys."""
    variance_N, variance_loss = (np.diag(valleys.covariance(of)) for of in ((1, 0, 0), (0, 1, 0)))
    known = valleys.freedom > 0
    filled = []
    for i, profile in enumerate(profiles):
        at = float(valleys.log_N[i])
        filled.append(
            profile.at(
                at,
                loss_opt=float(valleys.loss[i]),
                N_se=float(variance_N[i] ** 0.5) if known else np.nan,
                loss_se=float(variance_loss[i] ** 0.5) if known else np.nan,
                curvature=float(np.exp(valleys.log_curvature[i])),
                log_shape=tuple(valleys.log_shape.tolist()),
                weight=valleys.weight[i, : len(profile.N)],
                N_cubic=float(np.exp(minimum_of_cubic(np.log(profile.N), profile.loss, at)[0])),
            )
        )
    return tuple(filled)


def _variance_of_parabola(profile: Profile) -> float:
    """Variance of the minimum in log N, for losses of variance 1, by the delta method on x = -c1 / (2 c2)."""
    _, c1, c2 = profile.coefficients
    gradient = np.array([0, -1 / (2 * c2), c1 / (2 * c2**2)])
    design = np.vander(profile.x, 3, increasing=True)
    return float(gradient @ np.linalg.inv(design.T @ design) @ gradient)
