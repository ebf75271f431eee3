"""Batch sizes: how steps and tokens trade off, the critical batch size, and whether the gradient noise scale predicts it.

Kaplan et al. 2020 (arXiv 2001.08361), section 5.1 and Figs. 10 and 18, after McCandlish et al. 2018 (arXiv 1812.06162). Runs
differ in optimizer.batch_tokens. Their rate must be constant after the warm-up (schedule.final_fraction=1), for what a
cosine gains at its end is no measure of the batch. Intervals are of resampled runs, within each size.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import isotonic_regression

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.errors import LawError
from sweep.fit.kaplan.critical_batch import lines
from sweep.fit.kaplan.fits import fit_size_steps_law
from sweep.fit.kaplan.law_fit import line
from sweep.fit.kaplan.laws import optimal_exponents
from sweep.fit.kaplan.table import BatchCurve, steps_to_loss
from sweep.fit.kaplan.two_terms import TwoTerms
from sweep.fit.result import MIN_KNOWN, NO_INTERVALS, Estimate, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LEVELS = 6  # losses, of each size
MIN_REACHING, MIN_RANGE = 3, 1.05  # batch sizes that go through a loss; the highest of those losses over the lowest
NEAR = 0.02  # in log loss: evaluations whose gradients are averaged for a level, or half the way to the next
RESAMPLES, CONFIDENCE = 200, 0.8
SAME_SIZE, PREDICTED = 1.5, 2.0  # factors within which B_crit does not depend on N, and the noise scale predicts it
MISFIT = 0.1  # of the steps, that is no objection to a hyperbola
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
FOR_FITS = "to correct L(N, S) in a sweep over N and D of this text, give its fit fit.critical_batch="
EXPONENTS = ("alpha_C", "N", "B", "S")


@dataclass(frozen=True, kw_only=True)
class Level:
    """One loss of one size: B and S, rows of `reached`, and what follows, each of shape (1 + resamples,), all runs first."""

    N: int
    loss: float
    B: np.ndarray
    S: np.ndarray
    B_crit: np.ndarray
    S_min: np.ndarray
    E_min: np.ndarray
    noise: np.ndarray

    def misfit(self) -> np.ndarray:
        """Log residuals of S = S_min + E_min / B, shape (rows,)."""
        return np.log((self.S_min[0] + self.E_min[0] / self.B) / self.S)


def analyse(measured: Measured) -> Outcome:
    """Fit S_min and E_min at several losses, B_crit(L) = B_star / L^(1 / alpha_B) through all of them, L(N, S_min) and the
    optimum that follows, and compare B_crit with the noise scale.

    Raises:
        LawError: "unreached" if no loss is reached by three batch sizes; "too_few_levels" if fewer than two have a B_crit in
            nine of ten resamples, without which a loss is left out.
    """
    runs = measured.runs.reset_index(drop=True)
    rows, counts = reached(measured), _draw(runs)
    levels = [_level(group, measured, runs, counts, rows) for _, group in rows.groupby(["N", "loss"])]
    levels = [level for level in levels if np.isfinite(level.B_crit[0]) and np.isfinite(level.B_crit).mean() >= MIN_KNOWN]
    if len(levels) < 2:
        raise LawError("too_few_levels", f"{len(levels)} losses have a critical batch size, and the law needs 2: vary B more")
    power, B_star = _power(levels)
    sizes = sorted({level.N for level in levels})
    ends = [_power([level for level in levels if level.N == N]) for N in (sizes[0], sizes[-1])]
    middle = np.exp(np.mean([np.log(level.loss) for level in levels]))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "B_star": B_star,
            "inverse_alpha_B": power,
            "B_crit": B_star / middle**power,
            "noise_over_B_crit": np.exp(np.mean([np.log(level.noise / level.B_crit) for level in levels], axis=0)),
            "large_over_small": np.divide(*(B / middle**p for p, B in reversed(ends))),
        }
    steps, why_not = _optimum(rows, runs, counts, power, B_star)
    found = {name: _estimate(of) for name, of in {**values, **steps}.items()}
    misfit = float(np.sqrt(np.mean(np.concatenate([level.misfit() for level in levels]) ** 2)))
    text = [
        f"{len(runs)} runs, {len(sizes)} sizes, {runs.batch_tokens.nunique()} batch sizes; {CONFIDENCE:.0%} intervals",
        *(_line(level) for level in levels),
        f"B_crit(L) = B_star / L^(1 / alpha_B): B_star = {found['B_star']} tokens, 1 / alpha_B = {found['inverse_alpha_B']}",
        *[f"{FOR_FITS}'{{B_star: {B_star[0]:.4g}, alpha_B: {1 / power[0]:.4g}}}'"] * ((found["inverse_alpha_B"].low or 0) > 0),
        *([f"no optimum: {why_not}"] if why_not else []),
        *([] if "grad_sq" in measured.evaluations else ["no noise scale: it is measured with evaluation.noise_scale=true"]),
    ]
    return Outcome(
        claims=tuple(_claims(found, misfit, float(middle), sizes, "grad_sq" in measured.evaluations)),
        text=tuple(text),
        values={
            **{name: plain(of) for name, of in found.items() if np.isfinite(of.value)},
            "loss": float(middle),
            "misfit": misfit,
            "levels": [_values(level) for level in levels],
        },
        draw=lambda figure: _draw_both(figure, levels, power, B_star),
    )


def reached(measured: Measured) -> "pd.DataFrame":
    """Columns run_id, N, B, S and loss: the steps after which each run's held-out loss first came down to each level. A curve
    that fluctuates is replaced by the closest one that falls (isotonic regression): a first crossing would be too early."""
    import pandas as pd

    parts = []
    for N in sorted(set(map(int, measured.runs.N))):
        same = measured.runs[measured.runs.N == N]
        curves, run_ids = [], list(same.run_id)
        for run_id, B in zip(same.run_id, same.batch_tokens, strict=True):
            along = measured.evaluations[measured.evaluations.run_id == run_id].sort_values("step")
            falling = isotonic_regression(along.loss.to_numpy(dtype=float), increasing=False).x
            curves.append(BatchCurve(batch_tokens=float(B), steps=along.step.to_numpy(dtype=float), loss=falling))
        levels = _levels(N, curves)
        for run_id, curve in zip(run_ids, curves, strict=True):
            if ((curve.loss[0] > levels) & (curve.loss[-1] <= levels)).any():
                B, S, loss = steps_to_loss([curve], levels)
                parts.append(pd.DataFrame({"run_id": run_id, "N": N, "B": B, "S": S, "loss": np.round(loss, 9)}))
    return pd.concat(parts, ignore_index=True)


def _levels(N: int, curves: list[BatchCurve]) -> np.ndarray:
    """Losses that as many batch sizes as possible go through, evenly spaced in logs. Raises LawError if not even three do."""
    batches = sorted({curve.batch_tokens for curve in curves})
    first, last = (
        np.array([choose(curve.loss[i] for curve in curves if curve.batch_tokens == B) for B in batches])
        for i, choose in ((0, min), (-1, max))
    )
    candidates = np.geomspace(first.max(), last.min(), 1000)
    through = ((candidates[:, None] < first) & (candidates[:, None] >= last)).sum(axis=1)
    for wanted in range(len(batches), MIN_REACHING - 1, -1):
        good = candidates[through >= wanted]
        if len(good) and good.max() > MIN_RANGE * good.min():
            return np.geomspace(good.max(), good.min(), LEVELS + 2)[1:-1]
    reason = f"{MIN_REACHING} batch sizes reach no range of losses in common at N = {N:,}"
    raise LawError("unreached", f"{reason}: train longer, or set evaluation.points higher")


def _draw(runs: "pd.DataFrame") -> np.ndarray:
    """How often each run counts, shape (1 + resamples, runs): once, then as drawn with replacement within each size."""
    rng, counts = np.random.default_rng(0), np.ones((1 + RESAMPLES, len(runs)))
    for _, same in runs.groupby("N"):
        counts[1:, same.index] = rng.multinomial(len(same), np.full(len(same), 1 / len(same)), size=RESAMPLES)
    return counts


def _level(group: "pd.DataFrame", measured: Measured, runs: "pd.DataFrame", counts: np.ndarray, rows: "pd.DataFrame") -> Level:
    number = dict(zip(runs.run_id, runs.index, strict=True))
    N, loss = int(group.N.iloc[0]), float(group.loss.iloc[0])
    B, S = group.B.to_numpy(), group.S.to_numpy()
    B_crit, S_min, E_min = lines(B, S, counts[:, [number[run_id] for run_id in group.run_id]])
    noise = np.full(len(counts), np.nan)
    if "grad_sq" in measured.evaluations:
        # Over all evaluations of this size near this loss, |G|^2 and S apart: a mean of ratios would be biased.
        every = np.sort(np.log(rows[rows.N == N].loss.unique()))
        half = max(NEAR, np.diff(every).mean() / 2)
        near = measured.evaluations[measured.evaluations.run_id.isin(runs.run_id[runs.N == N])].dropna(subset=["grad_sq"])
        near = near[np.abs(np.log(near.loss / loss)) <= half]
        weight = counts[:, [number[run_id] for run_id in near.run_id]]
        variance, square = weight @ near.grad_var.to_numpy(), weight @ near.grad_sq.to_numpy()
        noise = np.divide(variance, square, out=noise, where=square > 0)
    return Level(N=N, loss=loss, B=B, S=S, B_crit=B_crit, S_min=S_min, E_min=E_min, noise=noise)


def _power(levels: list[Level]) -> tuple[np.ndarray, np.ndarray]:
    """1 / alpha_B and B_star of the line through the levels' log B_crit, each of shape (1 + resamples,)."""
    B_crit = np.stack([level.B_crit for level in levels], axis=1)
    used = np.isfinite(B_crit)
    intercept, slope = line(np.log([level.loss for level in levels]), np.log(np.where(used, B_crit, 1)), used.astype(float))
    return -slope, np.exp(intercept)


def _optimum(
    rows: "pd.DataFrame", runs: "pd.DataFrame", counts: np.ndarray, power: np.ndarray, B_star: np.ndarray
) -> tuple[dict[str, np.ndarray], str]:
    """alpha_N and alpha_S of L(N, S_min), with S_min by the measured B_crit, and the optimal exponents, each of shape
    (1 + resamples,); or why there are none."""
    number = dict(zip(runs.run_id, runs.index, strict=True))
    of_row = np.array([number[run_id] for run_id in rows.run_id])
    N, B, S, loss = (rows[name].to_numpy(dtype=float) for name in ("N", "B", "S", "loss"))
    if power[0] <= 0:
        return {}, "B_crit does not grow as the loss falls"
    S_min = S / (1 + B_star[:, None] / loss ** power[:, None] / B)
    try:
        law = fit_size_steps_law(N, S_min[0], loss, intervals=NO_INTERVALS).law
    except LawError as error:
        return {}, f"L(N, S_min) is not fitted: {error}"
    x, y = np.log(N / law.N_c), np.log(S_min / law.S_c)  # each resample starts from the law of all runs
    theta, found = np.array([[0.0, law.alpha_N, 0.0, law.alpha_S]]), np.full((len(counts), 2 + len(EXPONENTS)), np.nan)
    for k, weight in enumerate(counts[:, of_row]):
        problem = TwoTerms(x=x, y=y[k], log_loss=np.log(loss), coupled=False)
        _, alpha_N, _, alpha_S = problem.descend(theta, weight[None])[0]
        if min(alpha_N, alpha_S, power[k]) > 0:
            optimum = optimal_exponents(alpha_N, alpha_S, 1 / power[k])
            found[k] = alpha_N, alpha_S, *(getattr(optimum, name) for name in EXPONENTS)
    return dict(zip(("alpha_N", "alpha_S", *(f"optimal_{name}" for name in EXPONENTS)), found.T, strict=True)), ""


def _claims(found: dict[str, Estimate], misfit: float, loss: float, sizes: list[int], noise: bool) -> list[Claim]:
    power, ratio = found["inverse_alpha_B"], found["noise_over_B_crit"]
    claims = [
        Claim(
            paper="steps and tokens to a loss trade off as (S/S_min - 1)(E/E_min - 1) = 1 (equation 5.1, Fig. 18)",
            here=f"steps lie {misfit:.1%} (root mean square) from such hyperbolas",
            verdict=HOLDS if misfit <= MISFIT else FAILS,
        ),
        Claim(
            paper="B_crit grows as the loss falls, as L^-4.8, 1 / alpha_B with alpha_B = 0.21 (equation 1.4, Fig. 10)",
            here=f"as L^-p with p = {power}; B_crit = {found['B_crit']} tokens at L = {loss:.3f}",
            verdict=_verdict(power, 0.0, np.inf),
        ),
    ]
    if len(sizes) > 1:
        of = found["large_over_small"]
        paper = "B_crit depends on the loss and not on the size of the model (Fig. 10)"
        here = f"at L = {loss:.3f}, B_crit of {sizes[-1]:,} parameters is {of} times that of {sizes[0]:,}"
        here = here if np.isfinite(of.value) else "one of the two sizes has a critical batch size at one loss only"
        claims.append(Claim(paper=paper, here=here, verdict=_verdict(of, 1 / SAME_SIZE, SAME_SIZE)))
    if noise:
        paper = "the gradient noise scale predicts B_crit (McCandlish et al. 2018; Kaplan et al., Fig. 10)"
        here = f"the noise scale is {ratio} times B_crit; within a factor of {PREDICTED:g} counts as predicted"
        here = here if np.isfinite(ratio.value) else "noise hides the gradient: its |G|^2 is not positive at one of the losses"
        claims.append(Claim(paper=paper, here=here, verdict=_verdict(ratio, 1 / PREDICTED, PREDICTED)))
    if "optimal_N" in found:
        N, B, S, of_C = (found[f"optimal_{name}"] for name in ("N", "B", "S", "alpha_C"))
        paper = "compute goes mostly into size: N as C^0.73, B as C^0.24, S as C^0.03; L falls as C^-0.050 (section 6)"
        here = f"by L(N, S_min) and B_crit(L), N as C^{N}, B as C^{B}, S as C^{S}; the loss falls as C^-{of_C}"
        claims.append(Claim(paper=paper, here=here, verdict=_verdict(N, 0.5, np.inf)))
    return claims


def _verdict(of: Estimate, low: float, high: float) -> str:
    """Whether the interval of `of` lies between `low` and `high`, wholly outside, or neither."""
    if of.low is None or of.high is None:
        return UNCLEAR
    return HOLDS if low < of.low and of.high < high else FAILS if of.high < low or of.low > high else UNCLEAR


def _estimate(of: np.ndarray) -> Estimate:
    return Estimate.from_resamples(of[0], of[1:], CONFIDENCE)


def _values(level: Level) -> dict[str, Any]:
    estimates = {name: plain(_estimate(getattr(level, name))) for name in ("S_min", "E_min", "B_crit", "noise")}
    return {"N": level.N, "loss": level.loss, "batches": len(np.unique(level.B)), **estimates}


def _line(level: Level) -> str:
    B_crit, noise = _estimate(level.B_crit), _estimate(level.noise)
    beside = f", noise scale {noise}" if np.isfinite(noise.value) else ""
    least = f"L = {level.loss:.3f}: S_min = {level.S_min[0]:.4g}, E_min = {level.E_min[0]:.4g}"
    return f"  N = {level.N:,}, {least}, B_crit = {B_crit}{beside}"


def _draw_both(figure: "Figure", levels: list[Level], power: np.ndarray, B_star: np.ndarray) -> None:
    """Steps against tokens of the largest size (Fig. 18), and B_crit and the noise scale against the loss (Fig. 10)."""
    import matplotlib as mpl

    figure.set_size_inches(11, 4.8)
    trade, critical = figure.subplots(1, 2)
    largest = [level for level in levels if level.N == max(level.N for level in levels)]
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(largest)))
    for level, colour in zip(sorted(largest, key=lambda level: -level.loss), colours, strict=True):
        B = np.geomspace(level.B.min() / 2, level.B.max() * 2, 200)
        S = level.S_min[0] + level.E_min[0] / B
        trade.plot(B * S, S, color=colour, linewidth=1.2)
        trade.scatter(level.B * level.S, level.S, s=18, color=[colour], label=f"L = {level.loss:.3f}", zorder=3)
    trade.set(xscale="log", yscale="log", xlabel="tokens $E = B S$", ylabel="optimizer steps $S$")
    trade.set_title(f"{largest[0].N:,} parameters: $(S/S_{{min}} - 1)(E/E_{{min}} - 1) = 1$", fontsize=10)

    ends = sorted(level.loss for level in levels)
    loss = np.geomspace(ends[0] / 1.01, ends[-1] * 1.01, 60)
    with np.errstate(invalid="ignore", over="ignore"):
        drawn = B_star[1:, None] / loss ** power[1:, None]
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    critical.fill_between(loss, low, high, color="0.5", alpha=0.2, linewidth=0, label=f"{CONFIDENCE:.0%} interval")
    critical.plot(loss, B_star[0] / loss ** power[0], color="0.2", label=f"$B^*/L^p$, p = $1/\\alpha_B$ = {power[0]:.2f}")
    for i, N in enumerate(sorted({level.N for level in levels})):
        colour, marker = COLOURS[i % len(COLOURS)], "osD^"[i % 4]
        same = [level for level in levels if level.N == N]
        x = [level.loss for level in same]
        critical.scatter(
            x, [level.B_crit[0] for level in same], s=24, color=colour, marker=marker, label=f"$B_{{crit}}$, N = {N:,}"
        )
        if np.isfinite([level.noise[0] for level in same]).any():
            noise = [level.noise[0] for level in same]
            critical.plot(x, noise, color=colour, linestyle="--", label=f"noise scale, N = {N:,}")
    critical.set(xscale="log", yscale="log", xlabel="held-out loss (nats per token)", ylabel="tokens per step")
    critical.invert_xaxis()
    for set_formatter in (critical.xaxis.set_major_formatter, critical.xaxis.set_minor_formatter):
        set_formatter("{x:.2f}")
    critical.set_title("the critical batch size and the gradient noise scale", fontsize=10)
    trade.legend(fontsize=8, frameon=False)
    critical.legend(fontsize=8, frameon=False)
