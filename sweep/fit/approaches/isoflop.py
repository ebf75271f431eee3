"""Approach 2: IsoFLOP profiles (Hoffmann et al. 2022, section 3.2), and what their parabolas get wrong.

A parabola in log N is symmetric; the profile of a surface with alpha != beta is not. Its minimum is therefore biased, the more
the wider the grid and the further it lies off-centre (arXiv 2603.22339). Beside the paper's estimate stand a local cubic, and
the parabola corrected by the bias that it has on the parametric surface of the same runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches.parametric import fit_parametric
from sweep.fit.approaches.profile import Profile, fit_profile, minima_of_cubics, minima_of_parabolas
from sweep.fit.result import Estimate, PowerLaw, check_intervals, positive
from sweep.fit.surface import Compute, Surface
from sweep.tables.table import RunsLike, RunTable, as_runs

MIN_PROFILES = 3
MIN_SPAN = 2.0  # of the budgets
MAX_a = 1.2  # with D falling ever so slowly; noise reaches further than any frontier


@dataclass(frozen=True, kw_only=True, eq=False)
class IsoflopFit:
    """N_opt = N_law(C) and D_opt = D_law(C) through the minima of the profiles.

    Attributes:
        a, b: the exponents of N_opt and D_opt in C, by the paper's parabolas.
        a_cubic: a by local cubics; None if fewer than three profiles have one.
        a_corrected: a by parabolas without their bias; None if the surface could not be fitted.
        a_bias: what parabolas on this grid add to the a of the fitted surface; None likewise.
        N_law, D_law, loss_law: power laws of N_opt, D_opt and the loss there.
        curvature: of loss in log N about the minimum, the mean over profiles.
        compute: what C the runs cost.
        seed_noise: standard deviation of the losses, known or estimated, in nats; NaN if neither.
        profiles: all of them, those without a minimum too.
        replicates: the three laws for each resample, coefficients and exponents of shape (resamples,).
        level: of the intervals.
    """

    a: Estimate
    b: Estimate
    a_cubic: Estimate | None
    a_corrected: Estimate | None
    a_bias: float | None
    N_law: PowerLaw
    D_law: PowerLaw
    loss_law: PowerLaw
    curvature: float
    compute: Compute
    seed_noise: float
    profiles: tuple[Profile, ...]
    replicates: dict[str, PowerLaw] = field(repr=False)
    level: float
    status: str = "converged"

    def optimal(self, C: Any) -> tuple[Any, Any]:
        """(N_opt, D_opt) at budgets `C`."""
        return self.N_law(positive("C", C)), self.D_law(C)

    def predict(self, N: Any, D: Any) -> Any:
        """L(N, D): the loss law at C, plus the profiles' mean parabola about N_opt(C)."""
        C = self.compute.flops(positive("N", N), positive("D", D))
        return self.loss_law(C) + self.curvature * np.log(N / self.N_law(C)) ** 2

    def to_dict(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "a_cubic": self.a_cubic.to_dict() if self.a_cubic else None,
            "a_corrected": self.a_corrected.to_dict() if self.a_corrected else None,
            "a_bias": self.a_bias,
            "N_coefficient": self.N_law.coefficient,
            "D_coefficient": self.D_law.coefficient,
            "loss_law": dict(vars(self.loss_law)),
            "curvature": self.curvature,
            "seed_noise": self.seed_noise if np.isfinite(self.seed_noise) else None,
            "profiles": [profile.to_dict() for profile in self.profiles],
        }

    def summary(self) -> str:
        """For a reader."""
        lines = ["Approach 2, IsoFLOP profiles", f"  a = {self.a}   b = {self.b}"]
        if self.a_corrected is not None:
            lines.append(f"  a = {self.a_corrected} without the parabolas' bias, which is {self.a_bias:+.4f} on this grid")
        if self.a_cubic is not None:
            lines.append(f"  a = {self.a_cubic} by local cubics")
        return "\n".join(lines + [f"  {profile.line()}" for profile in self.profiles])


class TooFewProfiles(LawError):
    """Fewer than three budgets have an interior minimum; `profiles` says what became of each."""

    def __init__(self, reason: str, profiles: tuple[Profile, ...]) -> None:
        super().__init__("too_few_profiles", reason)
        self.profiles = profiles

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "profiles": [profile.to_dict() for profile in self.profiles]}


def fit_isoflop(
    runs: RunsLike,
    D: ArrayLike | None = None,
    loss: ArrayLike | None = None,
    budget: ArrayLike | None = None,
    *,
    surface: Surface | None = None,
    seed_noise: float | None = None,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
) -> IsoflopFit:
    """A parabola of loss in log N for each planned budget, then power laws through their minima.

    The laws of N and of the loss are weighted orthogonal regressions in logs, weighted by how well each profile fixes its
    minimum; that of D follows from N's and what C costs. Intervals come from new losses about the parabolas: normal ones of
    standard deviation `seed_noise` if that is known, else the residuals of all profiles, drawn with replacement and scaled
    up by what the fit took from them.

    Args:
        runs: a table with a column `budget`, or the N of each run followed by `D`, `loss` and `budget`.
        surface: the parametric surface that tells the parabolas' bias; fitted to the same runs if left out.
        seed_noise: standard deviation of the final loss between seeds, in nats, if it is known.
        resamples, level, seed: of the intervals.

    Raises:
        LawError: if the runs name no budget.
        TooFewProfiles: if fewer than three profiles have a minimum inside their sizes.
    """
    table = as_runs(runs, D, loss, budget)
    check_intervals(resamples, level, seed)
    if seed_noise is not None and not positive("seed_noise", seed_noise) < np.inf:
        raise LawError("bad_option", f"seed_noise={seed_noise} is out of range; it must be finite, or left out")
    compute = Compute.of_runs(table.N, table.D, table.C)
    profiles = _profiles(table)
    if surface is None:
        try:
            surface = fit_parametric(table, resamples=0).surface
        except LawError:  # the bias is then not known, and reported so
            surface = None
    noise, residuals = _noise([p for p in profiles if p.status == "converged"], seed_noise)
    profiles = tuple(_with_errors(profile, surface, noise) for profile in profiles)
    good = [profile for profile in profiles if profile.status == "converged"]

    C = np.array([profile.C_opt for profile in good])
    weight = np.array([1 / _variance(profile) for profile in good])
    N_law, loss_law = (
        PowerLaw.fit_orthogonal(C, np.array([getattr(profile, name) for profile in good]), weight)
        for name in ("N_opt", "loss_opt")
    )
    if not 0 < N_law.exponent < MAX_a:
        raise TooFewProfiles(
            f"the minima follow N_opt ∝ C^{N_law.exponent:.3g}, which no frontier does: the budgets are too close, or the "
            "minima too uncertain; add budgets further apart",
            profiles,
        )
    corrected, cubic = (np.array([getattr(profile, name) for profile in good]) for name in ("N_corrected", "N_cubic"))
    drawn = _replicates(good, C, weight, seed_noise, residuals, resamples, seed)
    drawn["D"] = _tokens_law(drawn["N"], compute)
    a_bias = a_corrected = a_cubic = None
    if np.isfinite(corrected).all():
        without = PowerLaw.fit_orthogonal(C, corrected, weight).exponent
        a_bias = N_law.exponent - without
        a_corrected = Estimate.from_resamples(without, drawn["N"].exponent - a_bias, level)
    if np.isfinite(cubic).sum() >= MIN_PROFILES:
        a_cubic = Estimate.from_resamples(PowerLaw.fit_orthogonal(C, cubic, weight).exponent, drawn["cubic"].exponent, level)
    return IsoflopFit(
        a=Estimate.from_resamples(N_law.exponent, drawn["N"].exponent, level),
        b=Estimate.from_resamples(_tokens_law(N_law, compute).exponent, drawn["D"].exponent, level),
        a_cubic=a_cubic,
        a_corrected=a_corrected,
        a_bias=a_bias,
        N_law=N_law,
        D_law=_tokens_law(N_law, compute),
        loss_law=loss_law,
        curvature=float(np.mean([profile.coefficients[2] for profile in good])),
        compute=compute,
        seed_noise=noise,
        profiles=profiles,
        replicates={name: drawn[name] for name in ("N", "D", "loss")},
        level=level,
    )


def _profiles(table: RunTable) -> tuple[Profile, ...]:
    """The profiles of all budgets. Raises LawError if there is no budget, or fewer than three have a minimum."""
    budgets = np.unique(table.budget[np.isfinite(table.budget)])
    if not len(budgets):
        raise LawError("no_budgets", "no run names a planned budget; Approach 2 needs a column that groups runs by it")
    profiles = tuple(
        fit_profile(float(value), part.N, part.D, part.C, part.loss)
        for value in budgets
        for part in [table.where(table.budget == value)]
    )
    minima = [profile.C_opt for profile in profiles if profile.status == "converged"]
    found = len(minima)
    if found >= MIN_PROFILES and max(minima) < MIN_SPAN * min(minima):
        raise TooFewProfiles(
            f"the budgets lie within a factor of {max(minima) / min(minima):.2g}; a power law needs at least {MIN_SPAN:g}: "
            "add budgets further apart",
            profiles,
        )
    if found < MIN_PROFILES:
        refused = "; ".join(f"{p.budget:.3g}: {p.reason}" for p in profiles if p.status != "converged")
        raise TooFewProfiles(
            f"{found} of {len(profiles)} profiles have an interior minimum; power laws need at least {MIN_PROFILES} "
            f"({refused or 'add budgets'})",
            profiles,
        )
    return profiles


def _noise(profiles: Sequence[Profile], known: float | None) -> tuple[float, np.ndarray]:
    """The standard deviation of a loss about its parabola, and all residuals, scaled up to vary as that does."""
    residuals, freedom = [], 0
    for profile in profiles:
        if (spare := len(profile.N) - 3) > 0:
            residuals.append((profile.loss - profile.parabola(profile.N)) * np.sqrt(len(profile.N) / spare))
            freedom += spare
    pooled = np.concatenate(residuals) if residuals else np.empty(0)
    if known is not None:
        return known, pooled
    return (float(np.sqrt(np.mean(pooled**2))) if freedom else np.nan), pooled


def _with_errors(profile: Profile, surface: Surface | None, noise: float) -> Profile:
    """The profile with the standard error of its minimum, and the bias of its parabola on `surface`."""
    if profile.status != "converged":
        return profile
    bias = np.nan
    if surface is not None:
        at, _ = minima_of_parabolas(profile.x, surface.predict(profile.N, profile.D)[None])
        bias = float(profile.centre + at[0] - np.log(surface.optimal(profile.C_opt)[0]))
    return replace(profile, N_se=noise * float(np.sqrt(_variance(profile))), N_bias=bias)


def _variance(profile: Profile) -> float:
    """Of log N_opt, for losses of variance 1, by the delta method on x = -c1 / (2 c2)."""
    _, c1, c2 = profile.coefficients
    gradient = np.array([0, -1 / (2 * c2), c1 / (2 * c2**2)])
    design = np.vander(profile.x, 3, increasing=True)
    return float(gradient @ np.linalg.inv(design.T @ design) @ gradient)


def _tokens_law(N_law: PowerLaw, compute: Compute) -> PowerLaw:
    """D_opt = C / (kappa N_opt^eta)."""
    with np.errstate(invalid="ignore"):
        return PowerLaw(
            coefficient=1 / (compute.kappa * N_law.coefficient**compute.eta), exponent=1 - compute.eta * N_law.exponent
        )


def _cubic_exponents(C: np.ndarray, N: np.ndarray, weight: np.ndarray, drawn: np.ndarray) -> tuple[float, np.ndarray]:
    """a by the cubics' minima, and its replicates about it: they were drawn about parabolas, which are elsewhere."""
    value = PowerLaw.fit_orthogonal(C, N, weight).exponent
    return value, drawn - np.nanmedian(drawn) + value if np.isfinite(drawn).any() else drawn


def _replicates(
    profiles: Sequence[Profile],
    C: np.ndarray,
    weight: np.ndarray,
    seed_noise: float | None,
    residuals: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, PowerLaw]:
    """The laws of `resamples` new sets of losses, by name; NaN where fewer than three profiles keep a minimum.

    Without known noise and without residuals (three runs a profile) there are none.
    """
    rng = np.random.default_rng(seed)
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
        points["cubic"].append(profile.centre + minima_of_cubics(profile, losses))
    return {name: _laws(np.log(C), np.stack(logs, axis=1), weight) for name, logs in points.items()}


def _laws(log_C: np.ndarray, logs: np.ndarray, weight: np.ndarray) -> PowerLaw:
    """The power law through each row of `logs`, shape (resamples, profiles), NaN left out."""
    known = np.isfinite(logs)
    law = PowerLaw.fit_orthogonal_logs(np.broadcast_to(log_C, logs.shape), np.where(known, logs, 0), weight * known)
    enough = known.sum(axis=1) >= MIN_PROFILES
    return PowerLaw(coefficient=np.where(enough, law.coefficient, np.nan), exponent=np.where(enough, law.exponent, np.nan))
