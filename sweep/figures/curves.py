"""The figures of the training curves: as they are, the tokens that they take to a loss, and their collapse."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweep.figures import style
from sweep.figures.style import C_LABEL, D_LABEL, HIGHLIGHT, N_LABEL
from sweep.fit import Collapse, Curve, Fits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = 5  # of loss, for the tokens that they take
MIN_SIZES = 3  # that reach a level
MIN_RANGE = 1.02  # of the levels: less is noise
MAX_NAMED = 5  # runs that stand out
OUTLIERS: tuple[object, ...] = ("-", (0, (6, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 2)))


def draw_learning(fits: Fits) -> "Figure":
    """Training loss against tokens and against FLOPs, coloured by size, the longest run of each thick (LLaMA, Fig. 1)."""
    from sweep.figures.ticks import scientific

    figure, axes = style.panels(2, 12, 4.6, sharey=True)
    curves = sorted(fits.curves, key=lambda curve: curve.tokens[-1])
    longest = list({curve.N: curve for curve in curves}.values())
    others = [curve for curve in curves if not any(curve is one for one in longest)]
    colour = style.colours(np.array([curve.N for curve in curves]))
    # Not much of the start, where losses fall from that of chance: it would press the rest together.
    seen = np.concatenate([curve.loss[curve.tokens >= 0.02 * curve.tokens[-1]] for curve in curves])
    for axis, label in zip(axes, (D_LABEL, C_LABEL), strict=True):
        for group, look in ((others, {"linewidths": 0.5, "alpha": 0.35}), (longest, {"linewidths": 1.5, "alpha": 1})):
            x = [curve.tokens * (1 if label == D_LABEL else curve.flops_per_token) for curve in group]
            style.draw_curves(axis, x, group, colour, **look)
        axis.plot([], [], color="0.3", linewidth=1.5, label="longest run of a size")
        if others:
            axis.plot([], [], color="0.3", linewidth=0.5, alpha=0.5, label="other runs")
        style.log_axes(axis, plain="y")
        axis.set(xlabel=label, ylim=(seen.min() * 0.98, np.quantile(seen, 0.99) * 1.02))
    starts = np.array([(curve.tokens[-1], curve.tokens[-1] * curve.flops_per_token) for curve in curves])
    for axis, ends in zip(axes, starts.T, strict=True):
        axis.set_xlim(ends.min() / 30, ends.max() * 1.2)
    axes[0].set(ylabel=f"training {style.loss_label(fits)}", title="loss against tokens")
    axes[1].set(title="loss against compute")
    colour.bar(axes[1], N_LABEL)
    style.legend(axes)
    figure.suptitle("Training curves by size" + ("" if colour.several else f", $N$ = {scientific(curves[0].N)}"))
    return figure


def tokens_to_loss(curves: Sequence[Curve]) -> dict[float, list[Curve]]:
    """A few losses that at least three sizes pass through, each with points of the curves that reach it with the fewest tokens:
    `Curve`s cut at that loss, one for each size, N ascending. Empty if three sizes have no loss in common."""
    sizes = sorted({curve.N for curve in curves})
    best = sorted(min(curve.loss.min() for curve in curves if curve.N == N) for N in sizes)
    start = min((curve.loss[0] for curve in curves), default=0.0)
    if len(sizes) < MIN_SIZES or start <= best[MIN_SIZES - 1]:
        return {}
    # From where three sizes arrive up to where all do, if that is higher; else a part of the way up.
    low, high = best[MIN_SIZES - 1], min(best[-1], start)
    if high < low * MIN_RANGE:
        high = low * (start / low) ** 0.3
    found = {}
    for level in np.geomspace(low, high, LEVELS):
        level = float(f"{level * (1 + 1e-4):.4g}")
        reached = {N: [cut for curve in curves if curve.N == N and (cut := _cut(curve, level))] for N in sizes}
        first = [min(cuts, key=lambda cut: cut.tokens[-1]) for cuts in reached.values() if cuts]
        if len(first) >= MIN_SIZES:
            found[level] = first
    return found


def _cut(curve: Curve, level: float) -> Curve | None:
    """The curve up to where it first reaches the loss `level`, linear in logs; None if it starts below or ends above."""
    after = int(np.argmax(curve.loss <= level))
    if after == 0:
        return None
    tokens, loss = np.log(curve.tokens[after - 1 : after + 1]), np.log(curve.loss[after - 1 : after + 1])
    at = float(np.exp(np.interp(-np.log(level), -loss, tokens)))
    ends = {"tokens": np.append(curve.tokens[:after], at), "loss": np.append(curve.loss[:after], level)}
    return Curve(run_id=curve.run_id, N=curve.N, flops_per_token=curve.flops_per_token, **ends)


def draw_tokens_to_loss(fits: Fits, reached: dict[float, list[Curve]]) -> "Figure":
    """Tokens and compute that each size takes to some losses, as `tokens_to_loss` finds them: larger models take fewer tokens,
    and one size takes the least compute (Kaplan et al. 2020, Fig. 2 and 19)."""
    figure, axes = style.panels(2, 11, 4.6)
    shades = style.ramp()(np.linspace(0, 1, len(reached)))
    for (level, cuts), shade, marker in zip(reached.items(), shades, "osD^v", strict=False):
        N, D = (np.array([value(cut) for cut in cuts]) for value in (lambda cut: cut.N, lambda cut: cut.tokens[-1]))
        C = D * np.array([cut.flops_per_token for cut in cuts])
        for axis, taken in zip(axes, (D, C), strict=True):
            axis.plot(N, taken, "-", marker=marker, color=shade, markersize=5, linewidth=1.2, label=f"loss {level:.4g}")
            axis.plot(N[taken.argmin()], taken.min(), "*", color=HIGHLIGHT, markersize=11, markeredgecolor="white", zorder=4)
    axes[0].plot([], [], "*", color=HIGHLIGHT, markersize=11, markeredgecolor="white", label="least")
    axes[0].set(xlabel=N_LABEL, ylabel=D_LABEL, title="tokens to reach a loss")
    axes[1].set(xlabel=N_LABEL, ylabel=C_LABEL, title="compute to reach a loss")
    for axis in axes:
        style.log_axes(axis)
    style.legend(axes, columns=6)
    unit = style.loss_unit(fits)
    figure.suptitle(f"What a training loss ({unit}) takes, by the run of each size that reaches it first")
    return figure


def draw_collapse(fits: Fits, found: Collapse) -> "Figure":
    """Normalised reducible loss against normalised compute, and the spread of the curves (Qiu et al. 2025, Fig. 1)."""
    figure, (curves, spread) = style.panels(2, 11, 4.8, width_ratios=(1.3, 1))
    colour = style.colours(found.C)
    marked = {one.run_id: one for one in found.outliers[:MAX_NAMED]}
    for run_id, C, losses in zip(found.run_id, found.C, found.curves, strict=True):
        if run_id not in marked:
            curves.plot(found.x, losses, color=colour(C), linewidth=1)
    for dash, run_id in zip(OUTLIERS, marked, strict=False):
        losses = found.curves[found.run_id.index(run_id)]
        curves.plot(found.x, losses, color=HIGHLIGHT, linewidth=1.6, linestyle=dash, label=f"stands out: {style.short(run_id)}")
    curves.set(xlabel="share of the run's compute, $x = C\\,/\\,C_{end}$", title=f"{len(found.run_id)} runs near the optimum")
    curves.set_ylabel(rf"$(L(x) - E)\,/\,(L(1) - E)$, $E$ = {found.E:.4g}")
    style.log_axes(curves, plain="xy")
    colour.bar(curves, C_LABEL)
    spread.plot(found.x[:-1], found.spread[:-1], "o-", color="0.3", markersize=3.5, label="spread of the curves")
    spread.axhline(found.delta, color="0.3", linewidth=1, linestyle=(0, (6, 2)), label=f"root mean square, {found.delta:.1%}")
    spread.axhspan(0, found.noise, color=HIGHLIGHT, alpha=0.15, label=f"noise along the curves, {found.noise:.1%}")
    spread.set(xlabel="share of the run's compute, $x$", ylabel="standard deviation over mean", title="spread of the curves")
    spread.set(ylim=(0, 1.15 * max(found.spread.max(), found.noise, 1e-3)))
    spread.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    style.log_axes(spread, "x", plain="x")
    style.legend([curves, spread], columns=3)
    verdict = "the curves collapse" if found.within else "the curves do not collapse"
    figure.suptitle(f"Training loss, normalised at the end of each run: {verdict}")
    return figure
