"""Gopher against Chinchilla (Hoffmann et al. 2022, section 4): a model four times too large, at equal compute."""

from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL, SeedNoise, judged, seed_noise
from sweep.errors import InputError
from sweep.fit import Intervals, Surface, fit_parametric, runs_from_frame
from sweep.fit.result import Estimate, Refused, attempt, plain
from sweep.fit.surface import CHINCHILLA

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TIMES = 4.0  # Gopher's 280B over Chinchilla's 70B
NEAR = 1.5  # the two are so far from that ratio at most, as the ladder has no others


def analyse(measured: Measured) -> Outcome:
    """Of each budget the largest model and the one nearest to a quarter of its size: by how much the smaller one is better, and
    what share of the compute the larger one wastes: what the best models do not need to reach its loss.

    Raises:
        InputError: if no budget has two such models.
    """
    runs = measured.runs[measured.runs["budget"].notna()]
    noise = seed_noise(runs)
    duels = _judge(runs, _pairs(runs), noise)
    verdicts = [judged(low, high) for low, high in zip(duels["low"], duels["high"], strict=True)]
    law, large = float(CHINCHILLA.predict(70e9, 1.4e12)), float(CHINCHILLA.predict(280e9, 300e9))
    paper = (
        "at Gopher's compute Chinchilla, four times smaller and trained longer, is better (Hoffmann et al. 2022, section 4; by "
        f"the paper's law {law:.3f} against {large:.3f} nats)"
    )
    claim = Claim(
        paper=paper,
        here="; ".join(_line(duel) for _, duel in duels.iterrows()),
        verdict=FAILS if FAILS in verdicts else UNCLEAR if UNCLEAR in verdicts else HOLDS,
    )
    known = f"{noise.sd:.4f} nats with {noise.freedom} degrees of freedom" if noise.freedom else "unknown: one seed of each"
    return Outcome(
        claims=(claim,),
        text=(f"noise between seeds {known}; intervals of {LEVEL:.0%}",),
        values=plain({"duels": duels.to_dict("records"), "seed_sd": noise.sd, "freedom": noise.freedom}),
        draw=lambda figure: _draw(figure, runs, duels),
    )


def _pairs(runs: "pd.DataFrame") -> "pd.DataFrame":
    """A row for each budget: N, D, mean loss and number of runs of the smaller model, and of the larger one as large_…"""
    import pandas as pd

    rows = []
    for budget, own in runs.groupby("budget"):
        sizes = own.groupby("N").agg(D=("D", "mean"), loss=("loss", "mean"), seeds=("loss", "size")).reset_index()
        off = np.abs(np.log(TIMES * sizes["N"] / sizes["N"].max()))
        if off.min() <= np.log(NEAR):
            small, large = sizes.loc[off.idxmin()], sizes.iloc[-1].add_prefix("large_")
            rows.append({"budget": budget, **small, **large})
    if not rows:
        raise InputError("no budget has a model and one four times as large; take grid=around with factors such as [1, 4]")
    return pd.DataFrame(rows)


def _judge(runs: "pd.DataFrame", pairs: "pd.DataFrame", noise: SeedNoise) -> "pd.DataFrame":
    """`pairs` with gain, the larger model's loss less the smaller's, and its interval, low to high; and with the share of the
    compute that is wasted, by the surface through all runs, and its interval, wasted_low to wasted_high."""
    counts = pairs[["seeds", "large_seeds"]].to_numpy(dtype=int)
    gain = pairs["large_loss"] - pairs["loss"]
    margin = np.array([noise.margin(*each) for each in counts.tolist()])
    wasted = np.full((3, len(pairs)), np.nan)
    fit = attempt(lambda: fit_parametric(runs_from_frame(runs), intervals=Intervals(level=LEVEL)))
    if not isinstance(fit, Refused):
        value, drawn = _wasted(fit.surface, pairs), _wasted(fit.replicates.column(), pairs)
        ends = [Estimate.from_resamples(each, own, LEVEL).interval for each, own in zip(value, drawn.T, strict=True)]
        wasted = np.vstack([value, *np.array([end or (np.nan, np.nan) for end in ends]).T])
    shares = dict(zip(("wasted", "wasted_low", "wasted_high"), wasted, strict=True))
    return pairs.assign(gain=gain, low=gain - margin, high=gain + margin, **shares)


def _wasted(surface: Surface, pairs: "pd.DataFrame") -> np.ndarray:
    """1 - C'/C for the least compute that reaches the larger model's loss, C', and the smaller one's, C; shape (pairs,)."""
    with np.errstate(all="ignore"):  # a resample may have no frontier
        needed = [
            surface.budget_for_loss(surface.predict(pairs[N].to_numpy(), pairs[D].to_numpy()))
            for N, D in (("large_N", "large_D"), ("N", "D"))
        ]
        return 1 - needed[0] / needed[1]


def _line(duel: "pd.Series") -> str:
    text = (
        f"C = {duel.budget:.3g}: loss {duel.loss:.4f} with N = {duel.N:,.0f} (D/N = {duel.D / duel.N:.3g}), "
        f"{duel.large_loss:.4f} with N = {duel.large_N:,.0f} (D/N = {duel.large_D / duel.large_N:.2g}), "
        f"{duel.gain:+z.4f} "
    )
    text += "(no interval: one seed)" if np.isnan(duel.low) else f"({duel.low:+z.4f} to {duel.high:+z.4f})"
    if np.isnan(duel.wasted):
        return text
    ends = "" if np.isnan(duel.wasted_low) else f" ({duel.wasted_low:.0%} to {duel.wasted_high:.0%})"
    return f"{text}, {duel.wasted:.0%}{ends} of the compute wasted"


def _draw(figure: "Figure", runs: "pd.DataFrame", duels: "pd.DataFrame") -> None:
    """The losses of each budget over N, and the two models that are compared."""
    axis = figure.add_subplot()
    for i, (budget, own) in enumerate(runs.groupby("budget")):
        sizes = own.groupby("N")["loss"].mean()
        axis.plot(own["N"], own["loss"], ".", color=f"C{i}", alpha=0.5)
        axis.plot(sizes.index, sizes, color=f"C{i}", label=f"C = {budget:.3g}")
    for _, duel in duels.iterrows():
        axis.plot([duel.N, duel.large_N], [duel.loss, duel.large_loss], "o", color="black", fillstyle="none")
        axis.annotate(f"{duel.gain:+z.3f}", (duel.large_N, duel.large_loss), textcoords="offset points", xytext=(6, 4))
    axis.set(xscale="log", xlabel="parameters $N$", ylabel="held-out loss (nats per token)")
    axis.set_title("equal compute: a model that fits the budget, and one four times too large")
    axis.legend(frameon=False)
