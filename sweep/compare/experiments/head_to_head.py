"""Kaplan's counting against Chinchilla's (Hoffmann et al. 2022, Fig. A4): both laws' answers at a larger budget.

Both laws are the parametric surface, fitted to the same small runs; one counts all parameters and C = 6 N D, the other, as
Kaplan et al. 2020 did, only those without embeddings, in N and in C. Each is asked for the size of the model at the large
budget, and the loss there is read off the profile that was measured at this budget.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.compare.experiment import UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL, judged
from sweep.errors import InputError, LawError
from sweep.fit import Intervals, ParametricFit, fit_parametric, runs_from_frame
from sweep.fit.kaplan.counting import Counting
from sweep.fit.result import Estimate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

INTERVALS = Intervals(level=LEVEL)
DEGREE, MIN_SIZES = 3, 5  # of the polynomial in log N through the large profile, which leans; and what it needs
GRID = 400  # sizes at which a profile is drawn, and its lowest loss looked for
KAPLAN = {"N": "N_non_embedding", "C": "C_kaplan"}
STEEPER = "Kaplan et al.'s N_opt grows as C^0.73, Chinchilla's as C^0.50 (Hoffmann et al. 2022, table 2)"
BETTER = (
    "the 2.80B model of Chinchilla's law beats the 4.74B model of Kaplan et al.'s at 1e21 FLOPs (Hoffmann et al. 2022, Fig. A4)"
)


@dataclass(frozen=True, kw_only=True)
class LargeProfile:
    """The loss at the large budget, a polynomial in log N.

    Attributes:
        budget: FLOPs.
        N: smallest and largest size measured.
        centre: of log N.
        coefficients, covariance: of the polynomial, lowest power first.
        freedom: degrees of freedom of the covariance.
    """

    budget: float
    N: tuple[float, float]
    centre: float
    coefficients: np.ndarray
    covariance: np.ndarray
    freedom: int

    @classmethod
    def through(cls, runs: "pd.DataFrame") -> "LargeProfile":
        """The profile through the runs of one budget. Raises InputError if they are too few."""
        log_N, loss = np.log(runs["N"].to_numpy(dtype=float)), runs["loss"].to_numpy(dtype=float)
        budget, freedom = float(runs["budget"].iloc[0]), len(runs) - DEGREE - 1
        if (sizes := runs["N"].nunique()) < MIN_SIZES:
            raise InputError(f"the profile at budget {budget:g} has {sizes} sizes; at least {MIN_SIZES} tell the loss between")
        centre = float(log_N.mean())
        design = np.vander(log_N - centre, DEGREE + 1, increasing=True)
        coefficients = np.linalg.lstsq(design, loss, rcond=None)[0]
        variance = float(((loss - design @ coefficients) ** 2).sum()) / freedom
        return cls(
            budget=budget,
            N=(float(runs["N"].min()), float(runs["N"].max())),
            centre=centre,
            coefficients=coefficients,
            covariance=variance * np.linalg.inv(design.T @ design),
            freedom=freedom,
        )

    def powers(self, N: Any) -> np.ndarray:
        """Powers of log N - centre, shape (sizes, DEGREE + 1); NaN outside the sizes that were measured."""
        N = np.atleast_1d(np.asarray(N, dtype=float))
        within = (N >= self.N[0]) & (N <= self.N[1])
        return np.vander(np.where(within, np.log(N) - self.centre, np.nan), DEGREE + 1, increasing=True)

    def loss(self, N: Any) -> np.ndarray:
        """Loss at sizes `N`, shape (sizes,); NaN outside those that were measured."""
        return self.powers(N) @ self.coefficients

    def difference(self, N: tuple[float, np.ndarray], other: tuple[float, np.ndarray]) -> Estimate:
        """The loss at `other` less that at `N`, each a size and what it may be instead, in the same resamples; NaN if one is
        outside the sizes that were measured, and without an interval if one may be."""
        apart = self.powers(np.append(*other)) - self.powers(np.append(*N))
        losses = apart @ self.coefficients
        error = np.sqrt(np.einsum("ij,jk,ik->i", apart, self.covariance, apart))[1:]
        noise = error * np.random.default_rng(INTERVALS.seed).standard_t(self.freedom, len(error))
        return _estimate(losses[0], losses[1:] + noise)

    def optimum(self) -> float:
        """The size of the lowest loss among those measured."""
        sizes = np.geomspace(*self.N, GRID)
        return float(sizes[self.loss(sizes).argmin()])


def analyse(measured: Measured) -> Outcome:
    """Fit both laws to all budgets but the largest, ask them for that one, and compare the losses of their answers.

    Raises:
        InputError: if there is no smaller budget, a law cannot be fitted to them, or the large profile has too few sizes.
    """
    runs = measured.runs[measured.runs["budget"].notna()].reset_index(drop=True)
    large = runs["budget"] > 0.99 * runs["budget"].max()
    small = runs[~large].reset_index(drop=True)
    if small.empty:
        raise InputError("there must be smaller budgets than the one that is compared; take grid=[isoflop,around]")
    profile = LargeProfile.through(runs[large])
    fits = {}
    for name, columns in (("all", {}), ("kaplan", KAPLAN)):
        try:
            fits[name] = fit_parametric(runs_from_frame(small, columns), intervals=INTERVALS)
        except LawError as error:
            raise InputError(f"no law of the runs below budget {profile.budget:g}, counted as {name}: {error}") from error
    ours, theirs = fits["all"], fits["kaplan"]
    counting = Counting.of(runs["N"], runs["N_non_embedding"])
    N = _estimate(ours.surface.optimal(profile.budget)[0], ours.replicates.optimal(profile.budget)[0])
    kaplan_N = _estimate(
        counting.answers(theirs.surface, profile.budget)[0], counting.answers(theirs.replicates, profile.budget)
    )
    steeper = _estimate(theirs.a.value - ours.a.value, np.asarray(theirs.replicates.a) - np.asarray(ours.replicates.a))
    gain = profile.difference(
        (N.value, ours.replicates.optimal(profile.budget)[0]),
        (kaplan_N.value, counting.answers(theirs.replicates, profile.budget)),
    )
    off = "" if N.contains(profile.optimum()) else ", outside the law's interval"
    factor = profile.budget / small["budget"].max()
    values = {
        "budget": profile.budget,
        "factor": float(factor),
        "a": ours.a.to_dict(),
        "a_kaplan": theirs.a.to_dict(),
        "N": N.to_dict(),
        "N_kaplan": kaplan_N.to_dict(),
        "N_measured": profile.optimum(),
        "gain": gain.to_dict(),
    }
    return Outcome(
        claims=(_steeper(ours, theirs, steeper), _better(N, kaplan_N, gain)),
        text=(
            f"fitted to {len(small)} runs of up to {small['budget'].max():.3g} FLOPs; asked at {factor:.3g} times that",
            f"the lowest loss there is at N = {profile.optimum():,.0f}{off}; with all parameters counted the law says {N}, by "
            f"Kaplan's counting {kaplan_N}; intervals of {LEVEL:.0%}",
        ),
        values=values,
        draw=lambda figure: _draw(figure, runs, (ours, theirs), counting, profile, (N.value, kaplan_N.value)),
    )


def _estimate(value: Any, drawn: Any) -> Estimate:
    return Estimate.from_resamples(float(value), np.asarray(drawn, dtype=float), LEVEL)


def _steeper(ours: ParametricFit, theirs: ParametricFit, steeper: Estimate) -> Claim:
    low, high = steeper.interval or (np.nan, np.nan)
    here = (
        f"N_opt grows as C to the {ours.a} with all parameters counted, to the {theirs.a} by Kaplan's counting: {steeper} more"
    )
    return Claim(paper=STEEPER, here=here, verdict=judged(low, high))


def _better(N: Estimate, kaplan_N: Estimate, gain: Estimate) -> Claim:
    sizes = f"N = {N.value:,.0f} against {kaplan_N.value:,.0f} by Kaplan's counting"
    if np.isnan(gain.value):
        return Claim(paper=BETTER, here=f"{sizes}, of which one is outside the sizes that were measured", verdict=UNCLEAR)
    low, high = gain.interval or (np.nan, np.nan)
    interval = "no interval: one of them may be larger or smaller than all that were measured"
    interval = f"{low:+z.4f} to {high:+z.4f}" if gain.interval else interval
    here = f"{sizes}: {gain.value:+z.4f} nats ({interval}) for the second"
    if kaplan_N.value < N.value:  # whichever wins, not because the other is too large
        return Claim(paper=BETTER, here=f"{here}, which is the smaller model here, unlike the paper's", verdict=UNCLEAR)
    return Claim(paper=BETTER, here=here, verdict=judged(low, high))


def _draw(
    figure: "Figure",
    runs: "pd.DataFrame",
    fits: tuple[ParametricFit, ParametricFit],
    counting: Counting,
    profile: LargeProfile,
    answers: tuple[float, float],
) -> None:
    """N_opt over C by both laws, and the measured profile at the large budget with both answers."""
    laws, losses = figure.subplots(1, 2)
    best = runs.loc[runs.groupby("budget")["loss"].idxmin()]
    laws.plot(best["budget"], best["N"], "o", color="grey", label="lowest loss")
    C = np.geomspace(runs["budget"].min(), runs["budget"].max(), 20)
    laws.plot(C, fits[0].surface.optimal(C)[0], color="C0", label="all parameters")
    laws.plot(C, [counting.answers(fits[1].surface, each)[0] for each in C], "--", color="C1", label="Kaplan's counting")
    laws.set(xscale="log", yscale="log", xlabel="compute $C$ (FLOPs)", ylabel="optimal $N$, all parameters")
    laws.legend(frameon=False)
    own = runs[runs["budget"] > 0.99 * profile.budget]
    sizes = np.geomspace(*profile.N, GRID)
    losses.plot(own["N"], own["loss"], "o", color="grey")
    losses.plot(sizes, profile.loss(sizes), color="grey")
    for i, N in enumerate(answers):
        losses.axvline(N, color=f"C{i}", linestyle=("-", "--")[i])
    losses.set(xscale="log", xlabel="parameters $N$", ylabel="held-out loss (nats per token)")
    losses.xaxis.set_minor_formatter(lambda N, _: f"{N:,.0f}" if f"{N:e}"[0] in "25" else "")  # all digits overlap
    losses.set_title(f"at {profile.budget:.3g} FLOPs")
