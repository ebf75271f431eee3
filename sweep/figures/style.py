"""What all figures share: style, labels, bands, legends, and how they are saved."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import InputError, explained
from sweep.files import writing
from sweep.fit import Approach, Curve, Estimate, Fits, allocate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES = "viridis"  # colour-blind-safe and ordered, as sizes and budgets are
LIGHTEST = 0.8  # share of it that is used: the rest is yellow, which white paper swallows
HIGHLIGHT = "#d55e00"  # vermilion of Okabe and Ito: stands out from viridis to every eye
APPROACHES = ("#8a5a00", "#0072b2", HIGHLIGHT, "#009e73", "#cc79a7")  # in the order of their numbers
DASHES: tuple[Any, ...] = ((0, (1.5, 1.5)), (0, (6, 2)), "-", (0, (6, 2, 1.5, 2)), (0, (3, 2)))  # likewise
FORMATS = ("png", "svg", "pdf")
SVG_DPI = 110  # of what is dense and held as pixels
MAX_PATHS = 500  # markers or lines that an SVG draws one by one
MAX_CURVE_POINTS = 300  # of each training curve
MAX_NAME = 28  # letters of a run's name
C_LABEL, N_LABEL, D_LABEL = "training compute $C$ (FLOPs)", "parameters $N$", "training tokens $D$"


def approach_colour(number: int) -> str:
    """The colour of the approach with this number, from 1."""
    return APPROACHES[(number - 1) % len(APPROACHES)]


def approach_dash(number: int) -> Any:
    """The line style of the approach with this number, from 1, for those who cannot tell the colours."""
    return DASHES[(number - 1) % len(DASHES)]


def loss_unit(fits: Fits) -> str:
    """The unit of the fitted losses."""
    return "bits per byte" if fits.convention.get("loss") == "bits_per_byte" else "nats per token"


def loss_label(fits: Fits) -> str:
    return f"loss ({loss_unit(fits)})"


def interval(estimate: Estimate, digits: int = 2) -> str:
    if estimate.low is None:
        return f"{estimate.value:z.{digits}f}"
    return f"{estimate.value:z.{digits}f} ({estimate.low:z.{digits}f}, {estimate.high:z.{digits}f})"


def short(name: str) -> str:
    """A run's name, cut to fit and without the signs that matplotlib takes for mathematics."""
    cut = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}…{name[-8:]}"
    return cut.replace("$", r"\$")


def dense(points: int) -> bool:
    """Whether an SVG holds so many points as pixels: as paths they would take megabytes."""
    return points > MAX_PATHS


def markers(points: int) -> dict[str, Any]:
    """How `scatter` draws so many coloured markers."""
    return {"edgecolor": "0.3", "linewidth": 0.4, "zorder": 3, "rasterized": dense(points)}


def panels(count: int, width: float, height: float = 4.4, **options: Any) -> tuple["Figure", Any]:
    """A figure of so many inches, and an array of its axes, which stand side by side; without an array if `count` is 1."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=(width, height), layout="constrained", **options)
    figure.get_layout_engine().set(w_pad=0.08)  # between a colour bar and the next axis
    return figure, axes


def ramp() -> Any:
    """The part of the colour map that stands out from white."""
    import matplotlib as mpl

    return mpl.colors.ListedColormap(mpl.colormaps[SIZES](np.linspace(0, LIGHTEST, 256)), name="sizes")


class colours:  # noqa: N801  # used as a function
    """Colours for positive values on a log scale; `map` is for a colour bar."""

    def __init__(self, values: np.ndarray) -> None:
        import matplotlib as mpl

        self.several = bool(values.max() > values.min() * 1.01)
        self.norm = mpl.colors.LogNorm(values.min(), max(values.max(), values.min() * 1.01))
        self.map = mpl.cm.ScalarMappable(self.norm, ramp())

    def __call__(self, value: float) -> Any:
        return self.map.to_rgba(np.array(value))

    def bar(self, axis: "Axes", label: str, plain: bool = False) -> None:
        """A colour bar beside `axis`, unless all values are one, which a bar would not show."""
        from sweep.figures.ticks import set_log_ticks

        if self.several:
            bar = axis.get_figure().colorbar(self.map, ax=axis, label=label)  # type: ignore[union-attr]
            set_log_ticks(bar.ax.yaxis, plain)


def log_axes(axis: "Axes", names: str = "xy", *, plain: str = "") -> None:
    """Make the axes in `names` logarithmic, with round ticks that fit; those in `plain` have plain numbers, as losses do."""
    from sweep.figures.ticks import set_log_ticks

    for name in names:
        getattr(axis, f"set_{name}scale")("log")
        set_log_ticks(getattr(axis, f"{name}axis"), name in plain)


def legend(axes: Sequence["Axes"], columns: int = 4) -> None:
    """One legend for `axes` below their figure, where it covers nothing; each label once, and bands last: grey, if they are of
    several colours."""
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    named: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            if not isinstance(handle, PolyCollection):
                named.setdefault(label, handle)
            elif (other := bands.setdefault(label, handle)) is not handle and (
                isinstance(other, Patch) or (other.get_facecolor() != handle.get_facecolor()).any()
            ):
                bands[label] = Patch(color="0.5", alpha=0.25)
    named |= bands
    figure = axes[0].get_figure()
    assert figure is not None
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=min(columns, len(named)), fontsize=8)


def legend_below(axis: "Axes", **options: Any) -> None:
    """A legend under `axis` and its label, where it covers nothing."""
    from matplotlib.transforms import ScaledTranslation

    figure = axis.get_figure()
    assert figure is not None
    if not axis.get_legend_handles_labels()[0]:
        return
    below = axis.transAxes + ScaledTranslation(0, -0.5, figure.dpi_scale_trans)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, fontsize=8, borderaxespad=0, **options)


def draw_law(axis: "Axes", law: Approach, C: np.ndarray, name: str, *, colour: str, label: str, dash: Any = "-") -> None:
    """The law's optimal N or D, by `name`, against `C` with the band of its interval, whose edges have the line's style."""
    found = [getattr(row, name) for row in allocate(law, C.tolist())]
    axis.plot(C, [one.value for one in found], linestyle=dash, color=colour, linewidth=1.6, label=label)
    if all(one.low is not None for one in found):
        low, high = (np.array([getattr(one, end) for one in found], dtype=float) for end in ("low", "high"))
        band(axis, C, low, high, colour=colour, dash=dash, label=f"{law.level:.0%} interval")


def band(
    axis: "Axes", x: np.ndarray, low: np.ndarray, high: np.ndarray, *, colour: str, dash: Any = "-", label: str = ""
) -> None:
    """A shaded interval with thin edges in the style `dash`."""
    axis.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, label=label or None)
    for end in (low, high):
        axis.plot(x, end, linestyle=dash, color=colour, linewidth=0.6, alpha=0.7)


def draw_curves(axis: "Axes", x: Sequence[np.ndarray], curves: Sequence[Curve], colour: colours, **options: Any) -> None:
    """The losses of `curves` against `x`, one array for each; few points of each, as a page shows no more."""
    from matplotlib.collections import LineCollection

    lines = []
    for values, curve in zip(x, curves, strict=True):
        chosen = np.unique(
            np.searchsorted(values, np.geomspace(values[0], values[-1], MAX_CURVE_POINTS)).clip(0, len(values) - 1)
        )
        lines.append(np.column_stack([values[chosen], curve.loss[chosen]]))
    options = {"linewidths": 0.7, "alpha": 0.8} | options
    axis.add_collection(LineCollection(lines, colors=[colour(curve.N) for curve in curves], rasterized=True, **options))
    axis.autoscale_view()


def set_style() -> None:
    """House style of every figure, whatever the user's own is, and a backend that needs no display. Raises InputError if
    matplotlib cannot be imported."""
    if "matplotlib" not in sys.modules:  # its import reads these, and may fail: a notebook's backend need not be installed here
        os.environ |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
    with explained("matplotlib does not start", "mend or remove the file matplotlibrc of this folder", ValueError):
        import matplotlib as mpl

    mpl.rcdefaults()
    mpl.use("agg")
    mpl.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "font.size": 9,
            "figure.dpi": 150,
            "legend.frameon": False,
            "svg.hashsalt": "isosweep",  # redrawing changes few lines
            "pdf.fonttype": 42,  # text stays text, as journals ask
        }
    )


def save(figure: "Figure", stem: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write `stem` in each of `formats`, some of `FORMATS`, and close the figure. Raises InputError if one is not known, or
    they cannot be written."""
    import matplotlib.pyplot as plt

    paths = []
    with writing(stem.parent):
        for name in formats:
            if name not in FORMATS:
                raise InputError(f"formats: {name!r} is none of {', '.join(FORMATS)}")
            paths.append(stem.with_name(f"{stem.name}.{name}"))
            undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(name)
            figure.savefig(paths[-1], format=name, metadata=undated, dpi="figure" if name == "png" else SVG_DPI)
    plt.close(figure)
    return paths
