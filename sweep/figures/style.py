"""What all figures share: style, labels, and how they are saved."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.files import writing
from sweep.fit import Estimate, Fits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = "viridis"  # colour-blind-safe and ordered, as sizes and budgets are
HIGHLIGHT = "#d55e00"  # vermilion of Okabe and Ito: stands out from viridis to every eye
APPROACHES = ("#8a5a00", "#0072b2", HIGHLIGHT, "#009e73", "#cc79a7")  # in the order of their numbers
SVG_DPI = 110  # of what is dense and held as pixels
MAX_PATHS = 500  # markers or lines that an SVG draws one by one
C_LABEL, N_LABEL, D_LABEL = "training FLOPs $C$", "parameters $N$", "training tokens $D$"


def approach_colour(number: int) -> str:
    """The colour of the approach with this number, from 1."""
    return APPROACHES[(number - 1) % len(APPROACHES)]


def loss_unit(fits: Fits) -> str:
    """The unit of the fitted losses."""
    return "bits per byte" if fits.convention.get("loss") == "bits_per_byte" else "nats per token"


def loss_label(fits: Fits) -> str:
    return f"loss ({loss_unit(fits)})"


def interval(estimate: Estimate) -> str:
    if estimate.low is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f}, {estimate.high:.2f})"


def dense(points: int) -> bool:
    """Whether an SVG holds so many points as pixels: as paths they would take megabytes."""
    return points > MAX_PATHS


def markers(points: int) -> dict[str, Any]:
    """How `scatter` draws so many coloured markers."""
    return {"edgecolor": "0.3", "linewidth": 0.4, "zorder": 3, "rasterized": dense(points)}


def panels(count: int, width: float, height: float = 4.4, **options: Any) -> tuple["Figure", Any]:
    """A figure of so many inches, and an array of its axes, which stand side by side; without an array if `count` is 1."""
    import matplotlib.pyplot as plt

    return plt.subplots(1, count, figsize=(width, height), layout="constrained", **options)


class colours:  # noqa: N801  # used as a function
    """Colours for positive values on a log scale; `map` is for a colour bar."""

    def __init__(self, values: np.ndarray) -> None:
        import matplotlib as mpl

        self.norm = mpl.colors.LogNorm(values.min(), max(values.max(), values.min() * 1.01))
        self.map = mpl.cm.ScalarMappable(self.norm, mpl.colormaps[SIZES].resampled(256))

    def __call__(self, value: float) -> Any:
        return self.map.to_rgba(np.array(value))


def set_style() -> None:
    """House style of every figure, and a backend that needs no display."""
    import matplotlib as mpl

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
        }
    )


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg and close the figure. Raises InputError if they cannot be written."""
    import matplotlib.pyplot as plt

    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    with writing(stem.parent):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"Date": None}, dpi=SVG_DPI)
    plt.close(figure)
    return paths
