"""The figures by which to judge the fits, by other choices, other conventions and predictions of held-out runs; and those by
which to judge the runs: losses on other text, and along the context."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweep.figures import style
from sweep.figures.style import C_LABEL, D_LABEL, HIGHLIGHT, N_LABEL
from sweep.fit import APPROACHES, Estimate, Fits, HoldOut, ParametricFit
from sweep.fit.judge.conventions import ConventionRow

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KAPLAN, CHINCHILLA = 0.73, 0.50  # a of Kaplan et al. 2020 and of Hoffmann et al. 2022
ROW = 0.23  # inches
MAX_LABEL = 60  # letters
MAX_BAR = 8  # times the largest error, of a prediction interval
BINS = 24  # of positions in the context
A_RANGE = (-0.5, 1.5)  # of a: arrows show what lies beyond


def draw_sensitivity(fits: Fits) -> "Figure":
    """a with its interval under every other choice, grouped by kind."""
    rows = [(variant.group, variant.label, variant.a) for variant in fits.sensitivity]
    return forest(rows, f"How firm is the exponent? {fits.level:.0%} intervals", reference=())


def draw_exponents(conventions: Sequence[ConventionRow], level: float) -> "Figure":
    """a under every way to count N and C and by either protocol, as `compare_conventions` returns them, between Kaplan's
    exponent and Chinchilla's."""
    rows = [(row.convention, f"{APPROACHES[row.approach].title()}, {row.protocol}", row.a) for row in conventions]
    reference = (("Kaplan 0.73", KAPLAN), ("Chinchilla 0.50", CHINCHILLA))
    return forest(rows, f"The same runs, counted otherwise; {level:.0%} intervals", reference)


def draw_extrapolation(fits: Fits, held: Sequence[HoldOut]) -> "Figure":
    """Held-out losses against their predictions from smaller budgets, and the errors with their prediction intervals."""
    from sweep.figures.ticks import scientific

    figure, (losses, errors) = style.panels(2, 11, width_ratios=(1, 1.5))
    predictions = [prediction for one in held for prediction in one.predictions]
    C, measured = (np.array([getattr(p, name) for p in predictions]) for name in ("C", "loss"))
    expected = np.array([p.predicted.value for p in predictions])
    colour = style.colours(C)
    losses.scatter(measured, expected, s=22, color=[colour(value) for value in C], **style.markers(len(C)))
    span = np.array([min(measured.min(), expected.min()), max(measured.max(), expected.max())])
    losses.plot(span, span, color="0.4", linewidth=1)
    losses.set(
        xlabel=f"measured {style.loss_label(fits)}", ylabel="predicted from smaller budgets", title="predicted against measured"
    )
    order = np.argsort(C, kind="stable")
    ends = np.array([(predictions[i].predicted.low, predictions[i].predicted.high) for i in order], dtype=float)
    off, ends, at = (expected - measured)[order], (ends - measured[order, None]).T, np.arange(len(order))
    # One interval far wider than any error is large would press the errors to a line: arrows show where it goes on.
    extent = 1.1 * min(np.nanmax(np.abs([off, *ends])), MAX_BAR * np.abs(off).max())
    bars = {"color": "0.6", "linewidth": 1.2, "zorder": 1, "capstyle": "projecting", "rasterized": style.dense(len(order))}
    errors.vlines(at, *ends.clip(-extent, extent), **bars, label=f"{fits.level:.0%} prediction interval")
    for beyond, edge, arrow in ((ends[0] < -extent, -extent, "v"), (ends[1] > extent, extent, "^")):
        if beyond.any():  # what has no points and is not clipped has no size that a layout could use
            errors.plot(at[beyond], np.full(beyond.sum(), edge), arrow, color="0.6", markersize=5, clip_on=False)
    errors.scatter(at, off, s=22, color=[colour(value) for value in C[order]], **style.markers(len(order)))
    errors.axhline(0, color=HIGHLIGHT, linewidth=1)
    by = "by $C$" if colour.several else f"all at $C$ = {scientific(C[0])} FLOPs"
    errors.set(xlabel=f"held-out runs, {by}", ylabel=f"predicted - measured ({style.loss_unit(fits)})", ylim=(-extent, extent))
    inside = [p.inside for p in predictions if p.inside is not None]
    share = f", {np.mean(inside):.0%} inside" if inside else ""
    errors.set_title(f"errors and {fits.level:.0%} prediction intervals{share}")
    errors.xaxis.get_major_locator().set_params(integer=True)
    colour.bar(errors, C_LABEL)
    figure.suptitle("Extrapolation, held out: each budget predicted from all smaller ones")
    return figure


def draw_residuals(fits: Fits, fit: ParametricFit) -> "Figure":
    """The residual of each run's log loss from the parametric surface, against C, N and D."""
    figure, axes = style.panels(3, 14, 4.2, sharey=True)
    runs = fits.runs
    residual = np.log(runs.loss / fit.predict(runs.N, runs.D))
    colour = style.colours(runs.C)
    shades = [colour(C) for C in runs.C]
    for axis, values, label in zip(axes, (runs.C, runs.N, runs.D), (C_LABEL, N_LABEL, D_LABEL), strict=True):
        axis.axhspan(-fit.residual_sd, fit.residual_sd, color="0.9", zorder=0, label="robust standard deviation")
        axis.axhline(0, color=HIGHLIGHT, linewidth=1)
        axis.scatter(values, residual, s=20, color=shades, **style.markers(len(runs)))
        axis.set(xlabel=label)
        style.log_axes(axis, "x")
    axes[0].set_ylabel("log measured loss - log fitted loss")
    colour.bar(axes[-1], C_LABEL)
    style.legend(axes)
    figure.suptitle(f"Residuals of {fit.title()}")
    return figure


def draw_transfer(losses: "pd.DataFrame", own: str) -> "Figure":
    """The loss on each set against the loss on the sweep's own text, one panel per set; a line of slope 1 is a constant gap.

    Args:
        losses: columns run_id, N, set, loss, loss_se.
        own: the name of the sweep's own held-out set.
    """
    names = [name for name in losses["set"].unique() if name != own]
    figure, axes = style.panels(len(names), 4.2 * len(names) + 0.8, 3.8, squeeze=False, sharex=True)
    colour = style.colours(losses["N"].to_numpy(dtype=float))
    home = losses[losses["set"] == own].set_index("run_id")["loss"]
    for axis, name in zip(axes[0], names, strict=True):
        there = losses[losses["set"] == name].set_index("run_id")
        x = home[there.index].to_numpy()
        error = {"fmt": "none", "ecolor": "0.7", "elinewidth": 0.8}
        axis.errorbar(x, there["loss"], yerr=there["loss_se"], **error)
        axis.scatter(x, there["loss"], c=[colour(N) for N in there["N"]], s=22, zorder=3)
        span = np.array([x.min(), x.max()])
        gap = float(np.median(there["loss"] - x))
        axis.plot(span, span + gap, color=HIGHLIGHT, linewidth=1, label=f"own loss {gap:+z.2f}")
        axis.set(xlabel="loss on the own held-out text", ylabel=f"loss on {name}", title=name)
        style.legend_below(axis)
    colour.bar(axes[0][-1], N_LABEL)
    return figure


def draw_positions(runs: Sequence[tuple[int, int, Sequence[float]]]) -> "Figure":
    """Loss by position in the context, one line per size, of the run with the most tokens. Neighbouring positions are averaged
    in equal steps of log position, as the loss at one position is the mean over only a few hundred tokens.

    Args:
        runs: N, D, and the loss at each position.
    """
    longest = {N: losses for N, _, losses in sorted(runs, key=lambda run: run[:2])}
    figure, axis = style.panels(1, 6, 4)
    colour = style.colours(np.array(list(longest), dtype=float))
    for N, losses in longest.items():
        edges = np.unique(np.geomspace(1, len(losses) + 1, BINS + 1).round().astype(int))
        means = np.add.reduceat(np.asarray(losses), edges[:-1] - 1) / np.diff(edges)
        axis.plot(np.sqrt(edges[:-1] * (edges[1:] - 1)), means, color=colour(N), linewidth=1.2)
    axis.set(xlabel="position in the context", ylabel="loss (nats per token)", title="loss along the context")
    style.log_axes(axis, "x")
    colour.bar(axis, N_LABEL)
    return figure


def forest(rows: Sequence[tuple[str, str, Estimate | None]], title: str, reference: Sequence[tuple[str, float]]) -> "Figure":
    """One line for each (group, label, estimate), top to bottom, with a heading for every group."""
    groups = list(dict.fromkeys(group for group, _, _ in rows))
    shades = style.ramp()(np.linspace(0, 1, len(groups)))
    ends = [end for _, _, a in rows if a for end in (a.value, a.low, a.high) if end is not None]
    ends += [value for _, value in reference]
    finite = np.clip([end for end in ends if np.isfinite(end)], *A_RANGE)
    margin = 0.08 * np.ptp(finite) + 0.01
    limits = (finite.min() - margin, finite.max() + margin)
    figure, axis = style.panels(1, 8.5, 1.3 + ROW * (len(rows) + 1.5 * len(groups) + 1))
    place, places, labels = -0.5 if reference else 0.5, [], []
    for group, shade in zip(groups, shades, strict=True):
        place -= 1.5
        heading = axis.text(
            0, place, f" {group}", transform=axis.get_yaxis_transform(), fontweight="bold", va="center", ha="left"
        )
        heading.set(fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        for _, label, estimate in (row for row in rows if row[0] == group):
            place -= 1
            places.append(place)
            labels.append(textwrap.shorten(label, MAX_LABEL, placeholder=" …"))
            _draw_estimate(axis, place, estimate, shade, limits)
    # The smaller reference has its name to the left of its line, so that the names do not meet.
    for side, (label, value) in zip(("left", "right"), sorted(reference, key=lambda one: -one[1]), strict=False):
        axis.axvline(value, color=HIGHLIGHT, linewidth=1, linestyle="--", zorder=0)
        axis.text(value, -0.5, f" {label} ", color=HIGHLIGHT, fontsize=8, ha=side, va="center")
    axis.set(xlabel="exponent $a$ of $N_{opt} \\propto C^a$", title=title, xlim=limits, ylim=(place - 1, 0))
    axis.set_yticks(places, labels, fontsize=8)
    axis.grid(axis="y", visible=False)
    return figure


def _draw_estimate(
    axis: "Axes", place: float, estimate: Estimate | None, colour: Sequence[float], limits: tuple[float, float]
) -> None:
    """The value and its interval; an arrow at the edge of the figure where either goes on beyond it."""
    if estimate is None or not np.isfinite(estimate.value):
        axis.text(
            0.02, place, "not fitted", transform=axis.get_yaxis_transform(), fontsize=7, color="0.4", va="center", ha="left"
        )
        return
    low, high = (
        estimate.value if estimate.low is None else estimate.low,
        estimate.value if estimate.high is None else estimate.high,
    )
    axis.plot(np.clip([low, high], *limits), [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    for beyond, edge, arrow in ((low < limits[0], limits[0], "<"), (high > limits[1], limits[1], ">")):
        if beyond:
            axis.plot(edge, place, arrow, color=colour, markersize=6, clip_on=False, zorder=4)
    if limits[0] <= estimate.value <= limits[1]:
        axis.plot(estimate.value, place, "o", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.6)
    else:
        side, edge = ("left", limits[0]) if estimate.value < limits[0] else ("right", limits[1])
        text = f"  {estimate.value:z.2f}  "
        axis.text(edge, place, text, fontsize=7, color="0.3", va="center", ha=side)
