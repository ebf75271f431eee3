"""Shapes at a fixed N (Kaplan et al. 2020, Fig. 5): how much does the loss depend on d_ff, on depth, and on heads?

The variants of the sweep are named by family: "baseline", which belongs to all of them, and "ff …", "depth …", "heads …".
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL, SeedNoise, seed_noise
from sweep.errors import InputError
from sweep.fit.result import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BASELINE = "baseline"
MILD = "the loss varies only a few percent over a wide range of shapes (Kaplan et al. 2020, Fig. 5)"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One way to vary a shape at fixed N.

    Attributes:
        name: the first word of its variants.
        ratio: what it varies, in words.
        of: the two columns whose quotient that is.
        percent, factor: the paper's plateau: the loss rises by at most `percent` while the ratio varies by `factor`.
        paper: the same in words.
    """

    name: str
    ratio: str
    of: tuple[str, str]
    percent: float
    factor: float
    paper: str


FAMILIES = (
    Family(
        name="ff",
        ratio="d_ff / d_model",
        of=("d_ff", "d_model"),
        percent=3.0,
        factor=4.0,
        paper=f"{MILD}: taken as 3 % over a factor of 4 in d_ff / d_model",
    ),
    Family(
        name="depth",
        ratio="d_model / n_layers",
        of=("d_model", "n_layers"),
        percent=3.0,
        factor=40.0,
        paper="the aspect ratio can vary by a factor of 40 with little effect, within 3 % (Kaplan et al. 2020, Fig. 5)",
    ),
    Family(
        name="heads",
        ratio="d_model / n_heads",
        of=("d_model", "n_heads"),
        percent=3.0,
        factor=4.0,
        paper=f"{MILD}: taken as 3 % over a factor of 4 in the dimension of a head",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """What came out for one family.

    Attributes:
        ratio, rise: of each shape, ascending: the ratio, and by how many percent the loss is above the family's best.
        margin: half the interval of each rise, in percent; NaN if no shape has two seeds.
        low, high: the ends of the widest range about the best in which every rise is surely below the paper's percentage.
    """

    ratio: tuple[float, ...]
    rise: tuple[float, ...]
    margin: tuple[float, ...]
    low: float
    high: float

    @property
    def factor(self) -> float:
        return self.high / self.low


def analyse(measured: Measured) -> Outcome:
    """The rise of the loss over each family's best, and how wide its plateau is.

    Raises:
        InputError: if a family has fewer than three shapes.
    """
    runs = measured.runs
    noise = seed_noise(runs)
    found = {family.name: _plateau(family, runs, noise) for family in FAMILIES}
    known = f"{noise.sd:.4f} nats with {noise.freedom} degrees of freedom" if noise.freedom else "unknown: one seed of each"
    low, high = runs["N_non_embedding"].min(), runs["N_non_embedding"].max()
    return Outcome(
        claims=tuple(_claim(family, found[family.name]) for family in FAMILIES),
        text=(f"{low:,} to {high:,} parameters without embeddings; noise between seeds {known}; intervals of {LEVEL:.0%}",),
        values=plain({name: {**asdict(plateau), "factor": plateau.factor} for name, plateau in found.items()}),
        draw=lambda figure: _draw(figure, found),
    )


def _plateau(family: Family, runs: "pd.DataFrame", noise: SeedNoise) -> Plateau:
    own = runs[(runs["label"] == BASELINE) | runs["label"].str.startswith(f"{family.name} ")]
    ratio = own[family.of[0]] / own[family.of[1]]
    shapes = own.assign(ratio=ratio).groupby("ratio")["loss"].agg(["mean", "size"])
    if len(shapes) < 3:
        raise InputError(f"the family {family.name!r} has {len(shapes)} shapes; name at least 3 variants '{family.name} …'")
    best = int(shapes["mean"].to_numpy().argmin())
    lowest, counts = float(shapes["mean"].iloc[best]), shapes["size"].tolist()
    rise = 100 * (shapes["mean"].to_numpy() / lowest - 1)
    margin = np.array([100 * noise.margin(n, counts[best]) / lowest for n in counts])
    margin[best] = 0.0
    within = rise + margin <= family.percent
    first = last = best
    while first > 0 and within[first - 1]:
        first -= 1
    while last < len(within) - 1 and within[last + 1]:
        last += 1
    x = shapes.index.to_numpy(dtype=float)
    return Plateau(
        ratio=tuple(x.tolist()),
        rise=tuple(rise.tolist()),
        margin=tuple(margin.tolist()),
        low=float(x[first]),
        high=float(x[last]),
    )


def _claim(family: Family, found: Plateau) -> Claim:
    """Holds if the plateau is surely as wide as the paper's; fails if no range that wide is possibly one."""
    each = zip(found.ratio, found.rise, found.margin, strict=True)
    rises = ", ".join(f"{x:.3g}: {rise:+z.2f}{'' if np.isnan(margin) else f' ± {margin:.2f}'} %" for x, rise, margin in each)
    plateau = f"from {family.ratio} = {found.low:.3g} to {found.high:.3g}, a factor of {found.factor:.3g}"
    here = f"within {family.percent:g} % {plateau} ({rises})"
    if found.factor >= family.factor:
        return Claim(paper=family.paper, here=here, verdict=HOLDS)
    x, least = np.array(found.ratio), np.array(found.rise) - np.array(found.margin)
    surely = np.where(np.isnan(least), False, least > family.percent)
    best = int(np.argmin(found.rise))
    below, above = np.flatnonzero(surely[:best]), np.flatnonzero(surely[best:])
    # Beyond the first shape that is surely worse there is no plateau; without one it may go on past the shapes trained.
    widest = x[best + above[0]] / x[below[-1]] if len(below) and len(above) else np.inf
    return Claim(paper=family.paper, here=here, verdict=FAILS if widest < family.factor else UNCLEAR)


def _draw(figure: "Figure", found: dict[str, Plateau]) -> None:
    """The rise of the loss over each ratio, as in Fig. 5."""
    for axis, family in zip(figure.subplots(1, len(FAMILIES), sharey=True), FAMILIES, strict=True):
        plateau = found[family.name]
        axis.errorbar(plateau.ratio, plateau.rise, yerr=plateau.margin, fmt="o-", capsize=2)
        axis.axhline(family.percent, color="grey", linestyle=":")
        axis.axvspan(plateau.low, plateau.high, color="C0", alpha=0.1)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel(family.ratio)
    figure.axes[0].set_ylabel("loss above the best (%)")
