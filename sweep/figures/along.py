"""Figures along training, from the checkpoints that evaluation.keep kept: loss by position, transfer, loss on each set."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.compare.positions import AtStep
from sweep.compare.transfer import Line
from sweep.figures import style
from sweep.figures.style import HIGHLIGHT, N_LABEL
from sweep.fit.kaplan.position import position_edges

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SEEN_LABEL = "tokens seen"


def draw_positions_along(along: "pd.DataFrame", laws: Sequence[AtStep]) -> "Figure":
    """Loss by position: of the largest run along its training, and of all sizes at the end of their longest runs, with the laws
    L_inf + c t^-gamma, as in Kaplan et al. 2020, Fig. 20.

    Args:
        along: of `collect_along`, with losses by position.
        laws: of these rows.
    """
    from sweep.figures.ticks import scientific

    law_of = {(each.run_id, each.step): each for each in laws}
    rows = along[along["blocks"].notna()].sort_values(["N", "D", "run_id", "step"])
    kept = rows[~rows["final"]]
    largest = kept["run_id"].iloc[-1] if len(kept) else rows["run_id"].iloc[-1]
    ends = rows[rows["final"]].drop_duplicates("N", keep="last")
    run = rows[rows["run_id"] == largest]
    figure, axes = style.panels(2, 11, 4.4, sharey=True)
    title = f"N = {run['N'].iloc[0]:,} along training"
    parts = ((run, "tokens", SEEN_LABEL, title), (ends, "N", N_LABEL, "the ends of the longest runs"))
    for axis, (part, by, label, title) in zip(axes, parts, strict=True):
        colour = style.colours(part[by].to_numpy(dtype=float))
        for row in part.to_dict("records"):
            edges = position_edges(row["context"])
            t, loss = np.sqrt(edges[:-1] * (edges[1:] - 1)), np.mean(row["blocks"], axis=0)
            axis.plot(t, loss, "o", markersize=3, color=colour(row[by]))
            found = law_of[row["run_id"], row["step"]]
            if (law := found.curve) is not None:
                fine = np.geomspace(1, row["context"], 100)
                name = f"{scientific(row[by])}: {law.L_inf:.2f} + {law.c:.2f} $t^{{-{law.gamma:.2f}}}$"
                axis.plot(fine, law.predict(fine), color=colour(row[by]), linewidth=1, label=name)
            else:
                axis.plot(t, loss, color=colour(row[by]), linewidth=0.8, linestyle=":", label=f"{scientific(row[by])}: no law")
        axis.set(xlabel="position $t$ in the context", title=title)
        style.log_axes(axis, "x", plain="x")
        style.legend_below(axis, ncols=2)
        colour.bar(axis, label)
    axes[0].set_ylabel("loss (nats per token)")
    return figure


def draw_transfer_along(pairs: "Mapping[str, pd.DataFrame]", lines: Sequence[Line]) -> "Figure":
    """The loss on each set against the own loss at the same step, of all checkpoints of all runs: dots along training, rings at
    the ends, as in Kaplan et al. 2020, Fig. 8; and the line through those at losses that both have.

    Args:
        pairs: of `sweep.compare.transfer.paired`.
        lines: of the sets that have one.
    """
    figure, axes = style.panels(len(pairs), 4.2 * len(pairs) + 0.8, 4.2, squeeze=False)
    colour = style.colours(np.concatenate([rows["N"].to_numpy(dtype=float) for rows in pairs.values()]))
    drawn = {each.set: each for each in lines}
    for axis, (name, rows) in zip(axes[0], pairs.items(), strict=True):
        line, title = drawn.get(name), name
        if line is not None:  # with half as much again of what lies above it: losses early in training would press it to a dot
            span = np.array([line.low, line.high])
            axis.plot(span, line.predict(span), color="0.3", linewidth=1, zorder=5, label="line through what both have")
            rows = rows[rows["own"] < line.high + 0.5 * np.ptp(span)]
            title = f"{name}: slope {style.interval(line.slope)}"
        for final, size, edge in ((False, 12, "none"), (True, 36, HIGHLIGHT)):
            part = rows[rows["final"] == final]
            of_kind: dict[str, Any] = {"s": size, "edgecolor": edge, "linewidth": 1, "zorder": 3 + final}
            label = "end of a run" if final else "along training"
            axis.scatter(part["own"], part["loss"], c=[colour(N) for N in part["N"]], label=label, **of_kind)
        axis.set(xlabel="loss on the own held-out text", ylabel=f"loss on {name} (nats per token)", title=title)
    style.legend(list(axes[0]))
    colour.bar(axes[0][-1], N_LABEL)
    return figure


def draw_sets_along(along: "pd.DataFrame") -> "Figure":
    """The loss on each set, and on each source of a mixture, along the training of the largest run."""
    kept = along[~along["final"]].sort_values(["N", "D", "run_id", "step"])
    run = along[along["run_id"] == kept["run_id"].iloc[-1]].sort_values("tokens")
    figure, axis = style.panels(1, 6, 4)
    names = list(run["set"].unique())
    shades = style.ramp()(np.linspace(0, 1, len(names)))
    for name, shade, marker in zip(names, shades, "osD^vP*X<>" * len(names), strict=False):
        rows = run[run["set"] == name]
        axis.errorbar(rows["tokens"], rows["loss"], yerr=rows["loss_se"], color=shade, marker=marker, markersize=4, label=name)
    axis.set(xlabel=SEEN_LABEL, ylabel="loss (nats per token)", title=f"N = {run['N'].iloc[0]:,} along training, on each text")
    style.log_axes(axis, "xy", plain="y")
    style.legend_below(axis, ncols=min(4, len(names)))
    return figure
