"""Approach 2: IsoFLOP profiles (Hoffmann et al. 2022, section 3.2), with the shape that profiles have.

A parabola in log N is symmetric; real profiles lean, so its minimum is biased, more so the wider and the further off centre the
grid (arXiv 2603.22339). Here the minima are those of valleys that may lean; beside them stand the paper's parabolas, the same
without the bias that they have on a surface that fits, and local cubics.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches.approach import Options, PowerLaws
from sweep.fit.approaches.parametric import fit_parametric
from sweep.fit.approaches.profile import Profile
from sweep.fit.approaches.profiles import Minima, TooFewProfiles, find_minima
from sweep.fit.approaches.valleys import Valleys
from sweep.fit.result import NO_INTERVALS, Estimate, Intervals, attempt, positive
from sweep.fit.solver.loss_law import fit_loss_law
from sweep.fit.solver.regression import fit_power_law
from sweep.fit.surface import Compute, Surface
from sweep.tables.table import RunsLike, as_runs

if TYPE_CHECKING:
    from sweep.fit.approaches import Laws

MIN_a, MAX_a = 1e-3, 1.2  # at 1.2 D falls slowly with C; noise reaches further than any frontier


@dataclass(frozen=True, kw_only=True, eq=False)
class IsoflopFit(PowerLaws):
    """Power laws through the minima of the profiles.

    Attributes:
        a_parabola: a by the paper's parabolas; None if fewer than three profiles have one.
        a_corrected: a by parabolas without their bias; None if no surface fits the runs.
        a_bias: what parabolas on this grid add to the a of that surface; None likewise.
        a_cubic: a by local cubics; None if fewer than three profiles have one.
        chi2: of the minima about the law by their own errors, per degree of freedom; NaN if these are not known.
        scatter: standard deviation of log N_opt about the law beyond those errors; NaN likewise.
        loss_chi2: as `chi2`, of the losses there about their law.
        seed_noise: standard deviation of the losses, given or estimated, in nats; NaN if neither.
        shape_p: p-value of the test that the profiles have the shape of the valleys, as weighted; NaN if not tested.
        profiles: all of them, including those without a minimum.
        minima: what was fitted to the others.
    """

    name: ClassVar[str] = "isoflop"
    number: ClassVar[int] = 2
    method: ClassVar[str] = "IsoFLOP profiles"
    form: ClassVar[str] = "N_opt = k C^a and D_opt = k′ C^b; the loss there E + k″ C^-c, between the budgets"
    resampled: ClassVar[str] = "errors of the minima, and their scatter about the law"
    variants: ClassVar[dict[str, str]] = {
        "valleys": "a",
        "parabolas, as in the paper": "a_parabola",
        "parabolas without their bias": "a_corrected",
        "local cubics": "a_cubic",
    }
    has_other_sizes: ClassVar[bool] = True
    by_convention: ClassVar[bool] = False  # counted otherwise, the runs of a planned budget differ in C

    a_parabola: Estimate | None
    a_corrected: Estimate | None
    a_bias: float | None
    a_cubic: Estimate | None
    chi2: float
    scatter: float
    loss_chi2: float
    seed_noise: float
    shape_p: float
    profiles: tuple[Profile, ...]
    minima: Minima = field(repr=False)
    intervals: Intervals

    @property
    def valleys(self) -> Valleys:
        return self.minima.valleys

    @classmethod
    def fit(cls, laws: "Laws") -> "IsoflopFit":
        surface = laws["parametric"].surface if laws["parametric"].fitted else None
        options = laws.options
        return fit_isoflop(laws.runs, surface=surface, seed_noise=options.seed_noise, intervals=options.intervals)

    @property
    def largest(self) -> float:
        return float(self.minima.C.max())

    def penalty(self, C: float, factor: float) -> Estimate:
        """How much higher the loss is at `C` FLOPs with `factor` times N_opt, in nats."""
        fit = self.minima.height(float(np.log(factor)))
        return Estimate.from_resamples(float(fit.law(C)), fit.draws(self.intervals)(C), self.level)

    def predict(self, N: Any, D: Any) -> Any:
        """L(N, D): the loss law at C, plus the height of the valley at N / N_opt(C)."""
        C = self.compute.flops(positive("N", N), positive("D", D))
        return self.loss_law(C) + self.minima.curvature(C) * self.minima.valleys.height(np.log(N / self.N_law(C)))

    def to_dict(self) -> dict[str, Any]:
        estimates = self.pick("a_parabola", "a_cubic", "a_corrected", "a_bias")
        judged = self.pick("chi2", "scatter", "loss_chi2", "seed_noise", "shape_p", "profiles")
        return {"status": self.status, **self.laws_to_dict(), **estimates, **judged, "shape": list(self.valleys.shape)}

    def remarks(self) -> list[str]:
        lines = [self.minima.told()]
        if np.isfinite(self.chi2):
            beyond = f"; the sizes scatter by {self.scatter:.0%} beyond their errors" if self.scatter > 0 else ""
            of_loss = f", their losses with {self.loss_chi2:.2g}" if np.isfinite(self.loss_chi2) else ""
            lines.append(f"the minima lie about their law with χ² = {self.chi2:.2g} per degree of freedom{of_loss}{beyond}")
        bias = f"parabolas without their bias, which is {self.a_bias or 0:+z.4f} on this grid"
        others = (self.a_parabola, "the paper's parabolas"), (self.a_corrected, bias), (self.a_cubic, "local cubics")
        lines += [f"a = {value} by {how}" for value, how in others if value is not None]
        return lines

    def summary(self) -> str:
        return "\n".join([super().summary(), *(f"  {profile.line()}" for profile in self.profiles)])

    def choices(self, options: Options, unit: str) -> Iterator[tuple[str, str]]:
        yield "Approach 2's minima", "valleys of one shape that may lean; refused if concave, at the edge or not bracketed"
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
    """Fit the valleys of loss in log N at each planned budget, then power laws through their minima.

    The law of N is a generalised least-squares line in logs through the minima, with their errors and with the scatter that
    these do not explain (see `regress`); that of D follows from N's and from what C costs; that of the loss is E + k C^-c, and
    is believed up to the largest budget. Intervals are of Student's t.

    Args:
        runs: a table with a column `budget`, or the N of each run followed by `D`, `loss` and `budget`.
        surface: the parametric surface that gives the parabolas' bias, if it fits; fitted to the same runs if left out.
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
    minima = find_minima(table, seed_noise)
    if surface is None:
        fit = attempt(lambda: fit_parametric(table, intervals=NO_INTERVALS))
        surface = fit.surface if fit.fitted else None  # type: ignore[union-attr]
    if surface is not None and minima.agree_with(surface):
        minima = minima.on(surface)
    valleys, level = minima.valleys, intervals.level
    C = minima.C
    law = fit_power_law(C, valleys.log_N, valleys.covariance((1, 0, 0)), valleys.freedom)
    if not MIN_a < law.law.exponent < MAX_a:
        raise TooFewProfiles(
            f"the minima follow N_opt ∝ C^{law.law.exponent:.3g}, which no frontier does: the budgets are too close, or the "
            "minima too uncertain; add budgets further apart",
            minima.profiles,
        )
    drawn, D_law = law.draws(intervals), compute.tokens_law(law.law)
    of_loss = fit_loss_law(C, valleys.loss, valleys.covariance((0, 1, 0)), valleys.freedom, intervals)
    beside = minima.other_exponents(intervals)
    corrected = beside.get("corrected")
    return IsoflopFit(
        a=Estimate.from_resamples(float(law.law.exponent), drawn.exponent, level),
        b=Estimate.from_resamples(float(D_law.exponent), 1 - compute.eta * drawn.exponent, level),
        a_parabola=beside.get("parabola"),
        a_corrected=corrected,
        a_bias=beside["parabola"].value - corrected.value if corrected else None,
        a_cubic=beside.get("cubic"),
        chi2=law.regression.chi2,
        scatter=law.regression.scatter,
        loss_chi2=of_loss.chi2,
        N_law=law.law,
        D_law=D_law,
        loss_law=of_loss.law,
        compute=compute,
        seed_noise=valleys.noise if valleys.freedom else np.nan,
        shape_p=valleys.p_value,
        profiles=minima.profiles,
        minima=minima,
        replicates={"N": drawn, "D": lambda C: compute.tokens(drawn(C), C), "loss": of_loss.draws},
        level=level,
        intervals=intervals,
    )
