"""The figure of tasks: accuracy against loss, tokens and compute."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.accuracy import TaskFound
from sweep.figures import style
from sweep.figures.style import C_LABEL, D_LABEL, HIGHLIGHT, N_LABEL

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 3.2  # inches of a task's row


def draw_tasks(scores: "pd.DataFrame", found: Sequence[TaskFound]) -> "Figure":
    """A row for each task: accuracy of each run against its loss, its tokens and its compute, with chance.

    Args:
        scores: columns N, D, C, loss, task, accuracy, and low and high of its interval by the items.
        found: what the runs say of each task, the law among it.
    """
    import matplotlib.pyplot as plt

    width, height = 12.5, 0.9 + HEIGHT * len(found)
    figure, grid = plt.subplots(len(found), 3, figsize=(width, height), layout="constrained", squeeze=False, sharey="row")
    colour = style.colours(scores["N"].to_numpy(dtype=float))
    labels = {"loss": "held-out loss (nats per token)", "D": D_LABEL, "C": C_LABEL}
    for axes, each in zip(grid, found, strict=True):
        own = scores[scores["task"] == each.task]
        error = np.abs(own[["low", "high"]].to_numpy() - own[["accuracy"]].to_numpy()).T
        shades = [colour(N) for N in own["N"]]
        for axis, (name, label) in zip(axes, labels.items(), strict=True):
            axis.errorbar(own[name], own["accuracy"], error, fmt="none", ecolor="0.75", elinewidth=0.8, zorder=1)
            axis.scatter(own[name], own["accuracy"], s=22, color=shades, **style.markers(len(own)))
            axis.axhline(each.chance, color="0.3", linewidth=1, linestyle="--", label="chance")
            axis.set_xlabel(label)
            if name != "loss":
                style.log_axes(axis, "x")
        _draw_laws(axes[0], own["loss"].to_numpy(dtype=float), each)
        axes[0].invert_xaxis()  # to the right is better, as in the other panels
        axes[0].set_ylabel(f"accuracy on {each.task}")
        axes[0].set_title(f"{each.task}: {each.verdict}")
        axes[1].set_title(f"{each.items:,} items; bars: {each.level:.0%} by the items alone", fontsize=8)
    colour.bar(grid[0, 2], N_LABEL)
    style.legend(list(grid.ravel()))
    return figure


def _draw_laws(axis: "Axes", losses: np.ndarray, found: TaskFound) -> None:
    along = np.linspace(losses.min(), losses.max(), 100)
    law, judged = found.curves
    if law is not None:
        axis.plot(along, law.predict(along), color=HIGHLIGHT, linewidth=1.4, label="law of all runs")
    if judged is not None:
        smaller = judged.law.predict(along)
        axis.plot(along, smaller, "--", color=HIGHLIGHT, linewidth=1, label="law of the smaller budgets")
        L, accuracy = ([run[name] for run in judged.runs] for name in ("loss", "accuracy"))
        axis.scatter(L, accuracy, s=60, facecolor="none", edgecolor=HIGHLIGHT, linewidth=0.9, label="held out")
