"""Approach 2: IsoFLOP profiles (Hoffmann et al. 2022, section 3.2), and the bias of their parabolas.

A parabola in log N is symmetric; the profile of a surface with alpha != beta is not. Its minimum is therefore biased, and more
so the wider the grid and the further off centre it lies (arXiv 2603.22339). Beside the paper's estimate stand a local cubic,
and the parabola corrected by the bias that it has on the parametric surface of the same runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches.approach import Options, PowerLaws
from sweep.fit.approaches.parametric import fit_parametric
from sweep.fit.approaches.profile import Profile
from sweep.fit.approaches.profiles import (
    MIN_PROFILES,
    TooFewProfiles,
    find_profiles,
    noise_of,
    resample_laws,
    variance_of,
    with_errors,
)
from sweep.fit.result import NO_INTERVALS, Estimate, Intervals, PowerLaw, attempt, positive
from sweep.fit.surface import Compute, Surface
from sweep.tables.table import RunsLike, as_runs

if TYPE_CHECKING:
    from sweep.fit.approaches import Laws

MIN_a, MAX_a = 1e-3, 1.2  # at 1.2 D falls slowly with C; noise reaches further than any frontier


@dataclass(frozen=True, kw_only=True, eq=False)
class IsoflopFit(PowerLaws):
    """Power laws through the minima of the profiles.

    Attributes:
        a_cubic: a by local cubics; None if fewer than three profiles have one.
        a_corrected: a by parabolas without their bias; None if the surface could not be fitted.
        a_bias: what parabolas on this grid add to the a of the fitted surface; None likewise.
        curvature: of the loss in log N about the minimum, the mean over profiles.
        seed_noise: standard deviation of the losses, given or estimated, in nats; NaN if neither.
        profiles: all of them, including those without a minimum.
    """

    name: ClassVar[str] = "isoflop"
    number: ClassVar[int] = 2
    method: ClassVar[str] = "IsoFLOP profiles"
    resampled: ClassVar[str] = "losses about the parabolas"
    variants: ClassVar[dict[str, str]] = {
        "parabolas": "a",
        "parabolas without their bias": "a_corrected",
        "local cubics": "a_cubic",
    }
    by_convention: ClassVar[bool] = False  # counted otherwise, the runs of a planned budget differ in C

    a_cubic: Estimate | None
    a_corrected: Estimate | None
    a_bias: float | None
    curvature: float
    seed_noise: float
    profiles: tuple[Profile, ...]

    @classmethod
    def fit(cls, laws: "Laws") -> "IsoflopFit":
        surface = laws["parametric"].surface if laws["parametric"].fitted else None
        options = laws.options
        return fit_isoflop(laws.runs, surface=surface, seed_noise=options.seed_noise, intervals=options.intervals)

    @property
    def largest(self) -> float:
        return max(profile.C_opt for profile in self.profiles if profile.status == "converged")

    def predict(self, N: Any, D: Any) -> Any:
        """L(N, D): the loss law at C, plus the profiles' mean parabola about N_opt(C)."""
        C = self.compute.flops(positive("N", N), positive("D", D))
        return self.loss_law(C) + self.curvature * np.log(N / self.N_law(C)) ** 2

    def to_dict(self) -> dict[str, Any]:
        own = self.pick("a_cubic", "a_corrected", "a_bias", "curvature", "seed_noise", "profiles")
        return {"status": self.status, **self.laws_to_dict(), **own}

    def remarks(self) -> list[str]:
        lines = []
        if self.a_corrected is not None:
            lines.append(f"a = {self.a_corrected} without the parabolas' bias, which is {self.a_bias:+.4f} on this grid")
        if self.a_cubic is not None:
            lines.append(f"a = {self.a_cubic} by local cubics")
        return lines

    def summary(self) -> str:
        return "\n".join([super().summary(), *(f"  {profile.line()}" for profile in self.profiles)])

    def choices(self, options: Options, unit: str) -> Iterator[tuple[str, str]]:
        yield "Approach 2's minima", "parabolas in log N, refused if concave, at the edge or not bracketed"
        if np.isfinite(self.seed_noise):
            source = "given" if options.seed_noise is not None else "estimated from the residuals"
            yield "Noise between seeds", f"{self.seed_noise:.3g} {unit}, {source}"


def fit_isoflop(
    runs: RunsLike,
    D: ArrayLike | None = None,
    loss: ArrayLike | None = None,
    budget: ArrayLike | None = None,
    *,
    surface: Surface | None = None,
    seed_noise: float | None = None,
    intervals: Intervals = Intervals(),
) -> IsoflopFit:
    """Fit a parabola of loss in log N for each planned budget, then power laws through their minima.

    The laws of N and of the loss are weighted orthogonal regressions in logs, weighted by how well each profile determines its
    minimum; that of D follows from N's and from what C costs. Intervals come from new losses about the parabolas: normal ones
    of standard deviation `seed_noise` if that is given, else the residuals of all profiles, drawn with replacement and scaled
    up for the degrees of freedom of the fit.

    Args:
        runs: a table with a column `budget`, or the N of each run followed by `D`, `loss` and `budget`.
        surface: the parametric surface that gives the parabolas' bias; fitted to the same runs if left out.
        seed_noise: standard deviation of the final loss between seeds, in nats, if it is known.
        intervals: see `Intervals`.

    Raises:
        LawError: "no_budgets" if the runs name no budget, "bad_option" if an option is out of range.
        TooFewProfiles: if fewer than three profiles have a minimum inside their sizes, or the minima follow no power law.
    """
    table = as_runs(runs, D, loss, budget)
    if seed_noise is not None and not positive("seed_noise", seed_noise) < np.inf:
        raise LawError("bad_option", f"seed_noise={seed_noise} is out of range; it must be finite, or left out")
    compute = Compute.of_runs(table.N, table.D, table.C)
    profiles = find_profiles(table)
    if surface is None:
        fit = attempt(lambda: fit_parametric(table, intervals=NO_INTERVALS))
        surface = fit.surface if fit.fitted else None  # type: ignore[union-attr]
    noise, residuals = noise_of([p for p in profiles if p.status == "converged"], seed_noise)
    profiles = tuple(with_errors(profile, surface, noise) for profile in profiles)
    good = [profile for profile in profiles if profile.status == "converged"]

    C = np.array([profile.C_opt for profile in good])
    weight = np.array([1 / variance_of(profile) for profile in good])
    N_law, loss_law = (
        PowerLaw.fit_orthogonal(C, np.array([getattr(profile, name) for profile in good]), weight)
        for name in ("N_opt", "loss_opt")
    )
    if not MIN_a < N_law.exponent < MAX_a:
        raise TooFewProfiles(
            f"the minima follow N_opt ∝ C^{N_law.exponent:.3g}, which no frontier does: the budgets are too close, or the "
            "minima too uncertain; add budgets further apart",
            profiles,
        )
    corrected, cubic = (np.array([getattr(profile, name) for profile in good]) for name in ("N_corrected", "N_cubic"))
    drawn = resample_laws(good, C, weight, seed_noise, residuals, intervals)
    drawn["D"] = _tokens_law(drawn["N"], compute)
    level, a_bias, a_corrected, a_cubic = intervals.level, None, None, None
    if np.isfinite(corrected).all():
        without = PowerLaw.fit_orthogonal(C, corrected, weight).exponent
        a_bias = N_law.exponent - without
        a_corrected = Estimate.from_resamples(without, drawn["N"].exponent - a_bias, level)
    if np.isfinite(cubic).sum() >= MIN_PROFILES:
        a_cubic = Estimate.from_resamples(PowerLaw.fit_orthogonal(C, cubic, weight).exponent, drawn["cubic"].exponent, level)
    D_law = _tokens_law(N_law, compute)
    return IsoflopFit(
        a=Estimate.from_resamples(N_law.exponent, drawn["N"].exponent, level),
        b=Estimate.from_resamples(D_law.exponent, drawn["D"].exponent, level),
        a_cubic=a_cubic,
        a_corrected=a_corrected,
        a_bias=a_bias,
        N_law=N_law,
        D_law=D_law,
        loss_law=loss_law,
        curvature=float(np.mean([profile.coefficients[2] for profile in good])),
        compute=compute,
        seed_noise=noise,
        profiles=profiles,
        replicates={name: drawn[name] for name in ("N", "D", "loss")},
        level=level,
    )


def _tokens_law(N_law: PowerLaw, compute: Compute) -> PowerLaw:
    """D_opt = C / (kappa N_opt^eta)."""
    with np.errstate(invalid="ignore"):
        return PowerLaw(
            coefficient=1 / (compute.kappa * N_law.coefficient**compute.eta), exponent=1 - compute.eta * N_law.exponent
        )
