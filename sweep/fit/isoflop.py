"""Approach 2: IsoFLOP profiles (Hoffmann et al. 2022, section 3.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.fit.result import Estimate, LawError, PowerLaw
from sweep.fit.table import RunTable

MIN_PROFILES = 3


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The runs of one budget and the parabola loss = c0 + c1 x + c2 x^2 through them, x = log N - centre.

    Attributes:
        budget: planned FLOPs.
        N, D, loss: the runs, shape (runs,), N ascending.
        status: "converged", or why there is no minimum: "too_few_sizes", "concave" or "edge".
        reason: the same in words.
        centre, coefficients: of the parabola (c0, c1, c2); empty if there are too few sizes.
        N_opt, D_opt, loss_opt: the minimum; NaN unless converged.
    """

    budget: float
    N: np.ndarray
    D: np.ndarray
    loss: np.ndarray
    status: str
    reason: str = ""
    centre: float = np.nan
    coefficients: tuple[float, ...] = ()
    N_opt: float = np.nan
    D_opt: float = np.nan
    loss_opt: float = np.nan

    def parabola(self, N: np.ndarray) -> np.ndarray:
        """Loss of the fitted parabola at sizes `N`."""
        return np.polynomial.polynomial.polyval(np.log(N) - self.centre, self.coefficients)

    def to_dict(self) -> dict:
        values: dict = {"budget": self.budget, "runs": len(self.N), "status": self.status}
        if self.status == "converged":
            return values | {"N_opt": self.N_opt, "D_opt": self.D_opt, "loss_opt": self.loss_opt}
        return values | {"reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class IsoflopFit:
    """N_opt = N_law(C) and D_opt = D_law(C) through the minima of the profiles.

    Attributes:
        a, b: the exponents of N_opt and D_opt in C.
        N_law, D_law: the laws.
        profiles: all of them, those without a minimum too.
    """

    a: Estimate
    b: Estimate
    N_law: PowerLaw
    D_law: PowerLaw
    profiles: tuple[Profile, ...]
    status: str = "converged"

    def to_dict(self) -> dict:
        return {
            "status": self.status,
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "N_coefficient": self.N_law.coefficient,
            "D_coefficient": self.D_law.coefficient,
            "profiles": [profile.to_dict() for profile in self.profiles],
        }


class TooFewProfiles(LawError):
    """Fewer than three budgets have an interior minimum; `profiles` says what became of each."""

    def __init__(self, reason: str, profiles: tuple[Profile, ...]) -> None:
        super().__init__("too_few_profiles", reason)
        self.profiles = profiles

    def to_dict(self) -> dict:
        return {**super().to_dict(), "profiles": [profile.to_dict() for profile in self.profiles]}


def fit_isoflop(runs: RunTable, *, resamples: int = 200, level: float = 0.8, seed: int = 0) -> IsoflopFit:
    """A parabola of loss in log N for each planned budget, then power laws through their minima.

    Intervals come from a residual bootstrap: profiles have too few runs to resample runs. Each replicate adds to a
    profile's parabola its own residuals, drawn with replacement and scaled up by the degrees of freedom the fit took.

    Raises:
        LawError: if the runs name no budget.
        TooFewProfiles: if fewer than three profiles have a minimum inside their sizes.
    """
    budgets = np.unique(runs.budget[np.isfinite(runs.budget)])
    if not len(budgets):
        raise LawError("no_budgets", "no run names a planned budget; Approach 2 needs a column that groups runs by it")
    profiles = tuple(
        fit_profile(float(budget), part.N, part.D, part.loss)
        for budget in budgets
        for part in [runs.where(runs.budget == budget)]
    )
    good = [profile for profile in profiles if profile.status == "converged"]
    if len(good) < MIN_PROFILES:
        refused = "; ".join(f"{p.budget:.3g}: {p.reason}" for p in profiles if p.status != "converged")
        raise TooFewProfiles(
            f"{len(good)} of {len(profiles)} profiles have an interior minimum; power laws need at least {MIN_PROFILES} "
            f"({refused or 'add budgets'})",
            profiles,
        )
    N_law, D_law = _laws(good)
    rng = np.random.default_rng(seed)
    exponents = np.full((resamples, 2), np.nan)
    if all(len(profile.N) == 3 for profile in good):
        resamples, exponents = 0, exponents[:0]  # each parabola meets its three runs: there are no residuals to resample
    for i in range(resamples):
        replicates = [_replicate(profile, rng) for profile in good]
        if all(replicate.status == "converged" for replicate in replicates):
            exponents[i] = [law.exponent for law in _laws(replicates)]
    return IsoflopFit(
        a=Estimate.from_resamples(N_law.exponent, exponents[:, 0], level),
        b=Estimate.from_resamples(D_law.exponent, exponents[:, 1], level),
        N_law=N_law,
        D_law=D_law,
        profiles=profiles,
    )


def fit_profile(budget: float, N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> Profile:
    """The parabola through one budget's runs; a minimum is accepted only if it is one, and lies between the sizes."""
    order = np.argsort(N, kind="stable")
    N, D, loss = N[order], D[order], loss[order]
    runs: dict[str, Any] = {"budget": budget, "N": N, "D": D, "loss": loss}
    if len(np.unique(N)) < 3:
        return Profile(**runs, status="too_few_sizes", reason="a parabola needs 3 sizes")
    centre = float(np.log(N).mean())
    x = np.log(N) - centre
    coefficients = tuple(np.polynomial.polynomial.polyfit(x, loss, 2))
    fitted: dict[str, Any] = {**runs, "centre": centre, "coefficients": coefficients}
    if coefficients[2] <= 0:
        return Profile(**fitted, status="concave", reason="the parabola opens downwards: sizes too close, or noise")
    minimum = -coefficients[1] / (2 * coefficients[2])
    if not x[0] < minimum < x[-1]:
        side = "smaller" if minimum <= x[0] else "larger"
        return Profile(**fitted, status="edge", reason=f"the minimum is not bracketed: add {side} sizes")
    return Profile(
        **fitted,
        status="converged",
        N_opt=float(np.exp(centre + minimum)),
        D_opt=float(np.exp(np.interp(minimum, x, np.log(D)))),
        loss_opt=float(np.polynomial.polynomial.polyval(minimum, coefficients)),
    )


def _replicate(profile: Profile, rng: np.random.Generator) -> Profile:
    fitted = profile.parabola(profile.N)
    runs = len(profile.N)
    # Three coefficients were fitted: scaled like this, the residuals vary as the noise does.
    residuals = (profile.loss - fitted) * np.sqrt(runs / max(runs - 3, 1))
    return fit_profile(profile.budget, profile.N, profile.D, fitted + rng.choice(residuals, runs))


def _laws(profiles: list[Profile]) -> tuple[PowerLaw, PowerLaw]:
    C, N, D = (np.array([getattr(profile, name) for profile in profiles]) for name in ("budget", "N_opt", "D_opt"))
    return PowerLaw.fit(C, N), PowerLaw.fit(C, D)
