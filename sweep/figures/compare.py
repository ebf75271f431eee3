"""Figures of a comparison: differences to the baseline, exponents beside each other, and the figure of an experiment."""

from typing import TYPE_CHECKING

import numpy as np

from sweep.compare import Outcome
from sweep.compare.differences import EVERYWHERE, RELATIVE_MARGIN, Comparison
from sweep.compare.labels import Labels
from sweep.figures import style
from sweep.figures.checks import forest
from sweep.plan.axis import VARIANT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.32  # inches


def draw_labels(labels: Labels, runs: "pd.DataFrame", paper: str) -> "dict[str, Figure]":
    """The figures that there is enough for, by name."""
    figures = {}
    if labels.comparison is not None:
        figures["compare"] = _draw_differences(labels.comparison, runs, paper)
    rows = [(each.approach, each.label, each.a) for each in labels.exponents]
    if any(a is not None for _, _, a in rows):
        figures["exponents"] = forest(rows, "exponents of the labels, by approach", ())
    return figures


def draw_outcome(outcome: Outcome) -> "Figure":
    """The figure of an experiment."""
    import matplotlib.pyplot as plt

    assert outcome.draw is not None
    figure = plt.figure(layout="constrained")
    outcome.draw(figure)
    return figure


def _draw_differences(found: Comparison, runs: "pd.DataFrame", paper: str) -> "Figure":
    """One row for each label, or against the values where one number is varied; one colour for each cell."""
    labels = [found.baseline, *dict.fromkeys(each.label for each in found.differences)]
    numbers = _numbers(runs, labels)
    cells = sorted({each.cell for each in found.differences if each.cell != EVERYWHERE})
    shades = style.ramp()(np.linspace(0, 1, len(cells)))
    figure, axis = style.panels(1, 8.5, 4.6 if numbers else 1.6 + ROW * len(labels))
    for cell, shade in zip(cells, shades, strict=True):
        own = [each for each in found.differences if each.cell == cell]
        shift = 0.0 if len(cells) < 2 else (cells.index(cell) / (len(cells) - 1) - 0.5) * 0.4
        value = np.array([each.value for each in own])
        ends = [[np.nan if end is None else end for end in (each.low, each.high)] for each in own]
        error = np.abs(np.array(ends) - value[:, None]).T
        name = f"N = {own[0].N:,.0f}, D = {own[0].D:,.0f}"
        if numbers:
            place = np.array([numbers[each.label] for each in own])
            axis.errorbar(place, value, error, fmt="o-", color=shade, capsize=3, label=name, linewidth=1)
        else:
            place = np.array([-labels.index(each.label) + shift for each in own])
            axis.errorbar(value, place, xerr=error, fmt="o", color=shade, capsize=3, label=name)
    margin = found.margin or RELATIVE_MARGIN * float(np.mean([each.baseline for each in found.differences]))
    _finish(axis, numbers, labels, margin)
    axis.set_title(f"loss against {found.baseline}" + (f" ({paper})" if paper else ""), fontsize=10)
    axis.legend(fontsize=8)
    return figure


def _finish(axis: "Axes", numbers: dict[str, float], labels: list[str], margin: float) -> None:
    words = f"difference in loss (nats per token); shaded: ±{margin:.2g}, too small to matter"
    if numbers:
        axis.axhspan(-margin, margin, color="0.9", zorder=0)
        axis.axhline(0, color="0.5", linewidth=1)
        axis.plot([numbers[labels[0]]], [0], "s", color="0.3")
        axis.set(xlabel=labels[0].partition("=")[0], ylabel=words.replace("; ", "\n"))
        if min(numbers.values()) > 0 and max(numbers.values()) > 4 * min(numbers.values()):
            axis.set_xscale("log")
    else:
        axis.axvspan(-margin, margin, color="0.9", zorder=0)
        axis.axvline(0, color="0.5", linewidth=1)
        axis.set_yticks(range(0, -len(labels), -1), [style.short(label) for label in labels], fontsize=8)
        axis.set(xlabel=words, ylim=(-len(labels) + 0.4, 0.6))


def _numbers(runs: "pd.DataFrame", labels: list[str]) -> dict[str, float]:
    """By label its number, if one field is varied and all of its values are numbers; else empty."""
    parts = [label.split("=") for label in labels]
    if VARIANT in runs or any(len(part) != 2 or "," in part[1] for part in parts):
        return {}
    try:
        return {label: float(value) for label, (_, value) in zip(labels, parts, strict=True)}
    except ValueError:
        return {}
