"""Losses on other text than the corpus, and along the context."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweep.figures.style import HIGHLIGHT, N_LABEL, colours, panels

BINS = 24  # of positions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def draw_transfer(losses: "pd.DataFrame", own: str) -> "Figure":
    """The loss on each set against the loss on the sweep's own text, one panel per set; a line of slope 1 is a constant gap.

    Args:
        losses: columns run_id, N, set, loss, loss_se.
        own: the name of the sweep's own held-out set.
    """
    names = [name for name in losses["set"].unique() if name != own]
    figure, axes = panels(len(names), 4.2 * len(names) + 0.8, 3.8, squeeze=False, sharex=True)
    colour = colours(losses["N"].to_numpy(dtype=float))
    home = losses[losses["set"] == own].set_index("run_id")["loss"]
    for axis, name in zip(axes[0], names, strict=True):
        there = losses[losses["set"] == name].set_index("run_id")
        x = home[there.index].to_numpy()
        error = {"fmt": "none", "ecolor": "0.7", "elinewidth": 0.8}
        axis.errorbar(x, there["loss"], yerr=there["loss_se"], **error)
        axis.scatter(x, there["loss"], c=[colour(N) for N in there["N"]], s=22, zorder=3)
        span = np.array([x.min(), x.max()])
        gap = float(np.median(there["loss"] - x))
        axis.plot(span, span + gap, color=HIGHLIGHT, linewidth=1, label=f"own loss {gap:+.2f}")
        axis.set(xlabel="loss on the own held-out text", ylabel=f"loss on {name}", title=name)
        axis.legend()
    figure.colorbar(colour.map, ax=axes[0][-1], label=N_LABEL)
    return figure


def draw_positions(runs: Sequence[tuple[int, int, Sequence[float]]]) -> "Figure":
    """Loss by position in the context, one line per size, of the run with the most tokens. Neighbouring positions are averaged
    in equal steps of log position, as the loss at one position is the mean over only a few hundred tokens.

    Args:
        runs: N, D, and the loss at each position.
    """
    longest = {N: losses for N, _, losses in sorted(runs, key=lambda run: run[:2])}
    figure, axis = panels(1, 6, 4)
    colour = colours(np.array(list(longest), dtype=float))
    for N, losses in longest.items():
        edges = np.unique(np.geomspace(1, len(losses) + 1, BINS + 1).round().astype(int))
        means = np.add.reduceat(np.asarray(losses), edges[:-1] - 1) / np.diff(edges)
        axis.plot(np.sqrt(edges[:-1] * (edges[1:] - 1)), means, color=colour(N), linewidth=1.2)
    axis.set(xscale="log", xlabel="position in the context", ylabel="loss (nats per token)", title="loss along the context")
    figure.colorbar(colour.map, ax=axis, label=N_LABEL)
    return figure
