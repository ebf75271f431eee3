"""What can be measured of a drawn figure: where its texts, legends and data lie, in pixels."""

from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

TOUCHING = 1.0  # pixels that boxes may share: they are a little larger than the ink


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, with its box; call it after `figure.canvas.draw()`."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = 1e-9 * max(abs(low), abs(high))
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - margin <= tick.get_loc() <= high + margin:
                    hidden |= {id(tick.label1), id(tick.label2)}
    every: list[Any] = figure.findobj(Text)
    found = [text for text in every if text.get_visible() and text.get_text().strip() and id(text) not in hidden]
    return [(text.get_text(), text.get_window_extent()) for text in found]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other."""
    return [(one, other) for (one, a), (other, b) in combinations(texts(figure), 2) if _overlap(a, b)]


def outside(figure: Figure) -> list[str]:
    """Texts that the edge of the figure cuts."""
    box = figure.bbox
    return [
        text
        for text, at in texts(figure)
        if at.x0 < box.x0 - TOUCHING or at.y0 < box.y0 - TOUCHING or at.x1 > box.x1 + TOUCHING or at.y1 > box.y1 + TOUCHING
    ]


def covering(figure: Figure) -> list[tuple[str, str]]:
    """Legends that lie on axes, and so on what is drawn there: their first entry and the title of the axes."""
    legends: list[Any] = figure.findobj(Legend)
    return [
        (legend.get_texts()[0].get_text(), axes.get_title())
        for legend in legends
        for axes in figure.axes
        if _overlap(legend.get_window_extent(), axes.get_window_extent())
    ]


def contrast(colour: Any) -> float:
    """Of `colour` with white, 1 to 21, as WCAG 2 defines it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05))


def colour_bars(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def _overlap(a: Bbox, b: Bbox) -> bool:
    wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return wide > TOUCHING and high > TOUCHING
