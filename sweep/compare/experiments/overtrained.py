"""Beyond the optimum (Touvron et al. 2023, Fig. 1): does a law fitted at usual D/N hold where models are trained far longer?"""

from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL, judged, seed_noise
from sweep.errors import InputError
from sweep.fit import Intervals, ParametricFit, RunTable, fit_parametric, predict_runs, runs_from_frame
from sweep.fit.result import Estimate, Refused, attempt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

USUAL = 100  # D/N up to which the law is fitted
TELLING = 0.1  # an interval of a difference of betas that is narrower than this to each side, and holds 0, says they agree
INTERVALS = Intervals(level=LEVEL)
LLAMA = "a 7B model goes on improving past 1T tokens, 143 per parameter (Touvron et al. 2023, Fig. 1)"
SARDANA = (
    "a law fitted at usual tokens per parameter overestimates what more tokens give at extreme ones "
    "(Sardana et al. 2023, arXiv 2401.00448)"
)
ONE_BETA = "one beta, 0.28, for all D/N (Hoffmann et al. 2022, section 3.3)"


def analyse(measured: Measured) -> Outcome:
    """The law of the runs with D/N up to `USUAL`, and what it says of the others.

    Raises:
        InputError: if there are no runs on one of the two sides, or the law cannot be fitted on the near side.
    """
    runs = measured.runs.sort_values(["N", "D"])
    far = (runs["D"] > USUAL * 1.01 * runs["N"]).to_numpy()
    if far.all() or not far.any():
        raise InputError(f"there must be runs with D/N up to {USUAL} and beyond; take grid=horizons")
    usual, beyond = (runs_from_frame(runs[own].reset_index(drop=True)) for own in (~far, far))
    fit = attempt(lambda: fit_parametric(usual, intervals=INTERVALS))
    if isinstance(fit, Refused):
        raise InputError(f"no law of the runs with D/N up to {USUAL}: {fit.reason}")
    predicted = predict_runs(fit, usual, beyond.N, beyond.D, seed=INTERVALS.seed)
    again = attempt(lambda: fit_parametric(beyond, intervals=INTERVALS))
    inside = sum(bool(estimate.contains(loss)) for estimate, loss in zip(predicted, beyond.loss, strict=True))
    off = _mean_residual(fit, usual, beyond)
    rows = [
        {"N": float(N), "D": float(D), "loss": float(loss), "predicted": estimate.to_dict()}
        for N, D, loss, estimate in zip(beyond.N, beyond.D, beyond.loss, predicted, strict=True)
    ]
    return Outcome(
        claims=(_still_falling(runs, fit), _overestimates(off), _same_beta(fit, again)),
        text=(
            f"{len(usual)} runs with D/N up to {USUAL} give alpha = {fit.alpha}, beta = {fit.beta}, E = {fit.E} ({fit.status})",
            f"of {len(beyond)} runs beyond, {inside} lie inside the {LEVEL:.0%} interval of a single run",
        ),
        values={
            "usual": fit.to_dict(),
            "beyond": again.to_dict(),
            "inside": inside,
            "mean_residual": off.to_dict(),
            "predictions": rows,
        },
        draw=lambda figure: _draw(figure, runs, fit),
    )


def _mean_residual(fit: ParametricFit, usual: RunTable, beyond: RunTable) -> Estimate:
    """The mean of measured less predicted loss beyond, in nats, with the uncertainty of the fit and the scatter of runs."""
    scatter = fit.residual_sd * float(np.mean(beyond.loss)) / np.sqrt(len(beyond))
    with np.errstate(all="ignore"):  # a resample may have no surface
        drawn = (beyond.loss - fit.replicates.column().predict(beyond.N, beyond.D)).mean(axis=1)
    drawn = drawn + scatter * np.random.default_rng([INTERVALS.seed, 3]).standard_normal(len(drawn))
    return Estimate.from_resamples(float((beyond.loss - fit.predict(beyond.N, beyond.D)).mean()), drawn, LEVEL)


def _still_falling(runs: "pd.DataFrame", fit: ParametricFit) -> Claim:
    """Whether each size is better at its longest horizon than at the one before."""
    noise, verdicts, found = seed_noise(runs), [], []
    for N, own in runs.groupby("N"):
        means = own.groupby("D")["loss"].agg(["mean", "size"])
        if len(means) < 2:
            verdicts.append(UNCLEAR)
            found.append(f"N = {N:,.0f}: one horizon only")
            continue
        fall = float(means["mean"].iloc[-2] - means["mean"].iloc[-1])
        counts = means["size"].iloc[-2:].tolist()
        # With one seed of each, the runs' scatter about the law stands for that between seeds.
        scatter = 2 * fit.residual_sd * float(means["mean"].iloc[-1]) * np.sqrt(sum(1 / n for n in counts))
        margin = noise.margin(*counts) if noise.freedom else scatter
        verdicts.append(judged(fall - margin, fall + margin))
        before, last = (own["D"] / own["N"]).sort_values().unique()[-2:]
        found.append(f"N = {N:,.0f}: {fall:.4f} ± {margin:.4f} nats less at D/N = {last:.0f} than at {before:.0f}")
    verdict = HOLDS if set(verdicts) == {HOLDS} else FAILS if FAILS in verdicts else UNCLEAR
    return Claim(paper=LLAMA, here="; ".join(found), verdict=verdict)


def _overestimates(off: Estimate) -> Claim:
    low, high = off.interval or (np.nan, np.nan)
    here = f"beyond D/N = {USUAL} the measured loss lies {off} nats above the law's prediction, on average"
    return Claim(paper=SARDANA, here=here, verdict=judged(low, high))


def _same_beta(fit: ParametricFit, again: "ParametricFit | Refused") -> Claim:
    if isinstance(again, Refused):
        return Claim(paper=ONE_BETA, here=f"no law of the runs beyond: {again.reason}", verdict=UNCLEAR)
    drawn = np.asarray(again.replicates.beta) - np.asarray(fit.replicates.beta)
    change = Estimate.from_resamples(again.beta.value - fit.beta.value, drawn, LEVEL)
    here = f"beta = {fit.beta} up to D/N = {USUAL}, {again.beta} beyond: {change.value:+z.3f}"
    if change.interval is None:
        return Claim(paper=ONE_BETA, here=f"{here}, without an interval", verdict=UNCLEAR)
    low, high = change.interval
    agree = HOLDS if max(-low, high) < TELLING else UNCLEAR
    return Claim(paper=ONE_BETA, here=f"{here} ({low:+z.3f} to {high:+z.3f})", verdict=agree if change.contains(0) else FAILS)


def _draw(figure: "Figure", runs: "pd.DataFrame", fit: ParametricFit) -> None:
    """The loss over D/N of each size with the law, and below it what is left."""
    losses, residuals = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for i, (_, own) in enumerate(runs.groupby("N")):
        size, ratio = own["N"].iloc[0], own["D"] / own["N"]
        along = np.geomspace(ratio.min(), ratio.max(), 100)
        losses.plot(ratio, own["loss"], "o", color=f"C{i}", label=f"N = {size:,.0f}")
        losses.plot(along, fit.predict(size, along * size), color=f"C{i}")
        left = own["loss"] - fit.predict(own["N"].to_numpy(), own["D"].to_numpy())
        residuals.plot(ratio, left, "o", color=f"C{i}")
        residuals.plot(left.groupby(ratio).mean(), color=f"C{i}")
    for axis in (losses, residuals):
        axis.axvline(USUAL, color="grey", linestyle=":")
    residuals.axhline(0, color="black", linewidth=0.8)
    losses.set(ylabel="held-out loss (nats per token)", title=f"the law is fitted to the left of D/N = {USUAL}")
    losses.legend(frameon=False)
    residuals.set(xscale="log", xlabel="tokens per parameter $D/N$", ylabel="measured - law")
