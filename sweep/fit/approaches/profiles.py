"""All IsoFLOP profiles of a table: which have a minimum, how precise and how biased it is, and what new losses would make of
it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.profile import Profile, fit_profile, minima_of_cubics, minima_of_parabolas
from sweep.fit.result import Intervals, PowerLaw, plain
from sweep.fit.surface import Surface
from sweep.tables.table import RunTable

MIN_PROFILES = 3
MIN_SPAN = 2.0 * (1 - 1e-6)  # of the budgets: a factor of two, short of rounding


class TooFewProfiles(LawError):
    """Fewer than three budgets have an interior minimum; `profiles` has the reason for each."""

    def __init__(self, reason: str, profiles: tuple[Profile, ...]) -> None:
        super().__init__("too_few_profiles", reason)
        self.profiles = profiles

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "profiles": plain(self.profiles)}


def find_profiles(table: RunTable) -> tuple[Profile, ...]:
    """The profiles of all budgets.

    Raises:
        LawError: "no_budgets" if no run names one.
        TooFewProfiles: if fewer than three have a minimum, or these lie too close for a power law.
    """
    budgets = np.unique(table.budget[np.isfinite(table.budget)])
    if not len(budgets):
        raise LawError("no_budgets", "no run names a planned budget; Approach 2 needs a column that groups runs by it")
    profiles = tuple(
        fit_profile(float(value), table.N[own], table.D[own], table.C[own], table.loss[own])
        for value in budgets
        for own in [table.budget == value]
    )
    minima = [profile.C_opt for profile in profiles if profile.status == "converged"]
    if len(minima) < MIN_PROFILES:
        refused = "; ".join(f"{p.budget:.3g}: {p.reason}" for p in profiles if p.status != "converged")
        raise TooFewProfiles(
            f"{len(minima)} of {len(profiles)} profiles have an interior minimum; power laws need at least {MIN_PROFILES} "
            f"({refused or 'add budgets'})",
            profiles,
        )
    if max(minima) < MIN_SPAN * min(minima):
        raise TooFewProfiles(
            f"the budgets lie within a factor of {max(minima) / min(minima):.2g}; a power law needs at least a factor of 2: "
            "add budgets further apart",
            profiles,
        )
    return profiles


def noise_of(profiles: Sequence[Profile], known: float | None) -> tuple[float, np.ndarray]:
    """The standard deviation of a loss about its parabola, and all residuals, scaled up to the same spread.

    It is `known` if that is given, and NaN if no profile has more than three runs."""
    residuals, freedom = [], 0
    for profile in profiles:
        if (spare := len(profile.N) - 3) > 0:
            residuals.append((profile.loss - profile.parabola(profile.N)) * np.sqrt(len(profile.N) / spare))
            freedom += spare
    pooled = np.concatenate(residuals) if residuals else np.empty(0)
    if known is not None:
        return known, pooled
    return (float(np.sqrt(np.mean(pooled**2))) if freedom else np.nan), pooled


def with_errors(profile: Profile, surface: Surface | None, noise: float) -> Profile:
    """The profile with the standard error of its minimum, and the bias of its parabola on `surface`."""
    if profile.status != "converged":
        return profile
    bias = np.nan
    if surface is not None:
        at, _ = minima_of_parabolas(profile.x, surface.predict(profile.N, profile.D)[None])
        bias = float(profile.centre + at[0] - np.log(surface.optimal(profile.C_opt)[0]))
    return replace(profile, N_se=noise * float(np.sqrt(variance_of(profile))), N_bias=bias)


def variance_of(profile: Profile) -> float:
    """Variance of log N_opt, for losses of variance 1, by the delta method on x = -c1 / (2 c2)."""
    _, c1, c2 = profile.coefficients
    gradient = np.array([0, -1 / (2 * c2), c1 / (2 * c2**2)])
    design = np.vander(profile.x, 3, increasing=True)
    return float(gradient @ np.linalg.inv(design.T @ design) @ gradient)


def resample_laws(
    profiles: Sequence[Profile],
    C: np.ndarray,
    weight: np.ndarray,
    seed_noise: float | None,
    residuals: np.ndarray,
    intervals: Intervals,
) -> dict[str, PowerLaw]:
    """The laws "N", "loss" and "cubic" (of N, by cubics) through the minima of resampled losses; NaN where fewer than three
    profiles keep a minimum.

    Without known noise and without residuals (three runs a profile) there are no resamples.
    """
    rng, resamples = np.random.default_rng(intervals.seed), intervals.resamples
    if seed_noise is None and not len(residuals):
        resamples = 0
    points: dict[str, list[np.ndarray]] = {name: [] for name in ("N", "loss", "cubic")}
    for profile in profiles:
        shape = (resamples, len(profile.N))
        noise = (
            rng.choice(residuals, shape) if seed_noise is None and resamples else rng.standard_normal(shape) * (seed_noise or 0)
        )
        losses = profile.parabola(profile.N) + noise
        at, low = minima_of_parabolas(profile.x, losses)
        points["N"].append(profile.centre + at)
        points["loss"].append(np.log(low))
        near = float(np.log(profile.N_opt)) - profile.centre
        points["cubic"].append(profile.centre + minima_of_cubics(profile.x, losses, near))
    return {name: _laws(np.log(C), np.stack(logs, axis=1), weight) for name, logs in points.items()}


def _laws(log_C: np.ndarray, logs: np.ndarray, weight: np.ndarray) -> PowerLaw:
    """The power law through each row of `logs`, shape (resamples, profiles), without its NaNs."""
    known = np.isfinite(logs)
    law = PowerLaw.fit_orthogonal_logs(np.broadcast_to(log_C, logs.shape), np.where(known, logs, 0), weight * known)
    enough = known.sum(axis=1) >= MIN_PROFILES
    return PowerLaw(coefficient=np.where(enough, law.coefficient, np.nan), exponent=np.where(enough, law.exponent, np.nan))
