"""What an architecture makes of its context (Kaplan et al. 2020, Fig. 7): its loss beside the baseline's, by position.

Losses, equivalent factors and what they cost are in the comparison of the labels; `isosweep evaluate` has measured the losses
by position.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.experiment import Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL, judged
from sweep.errors import InputError
from sweep.fit.kaplan.position import position_edges
from sweep.fit.result import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

EARLY, LATE = 8, 2  # the first eighth of the context, and its second half
LSTM = "lstm"
PAPER = "an LSTM matches a Transformer early in the context, and falls behind later (Kaplan et al. 2020, Fig. 7)"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How a label's loss is above the baseline's, in nats per token, as the context grows.

    Attributes:
        label: of the runs.
        early, late: means over all pairs, early and late in the context.
        growth, low, high: late less early, with the ends of its interval; None if there is only one pair.
        places, gap: the middle of each bin of positions, and the mean there.
        pairs: of runs of one cell and seed.
    """

    label: str
    early: float
    late: float
    growth: float
    low: float | None
    high: float | None
    places: tuple[float, ...]
    gap: tuple[float, ...]
    pairs: int

    def line(self) -> str:
        interval = "" if self.low is None else f" ({self.low:+z.3f} to {self.high:+z.3f})"
        ends = f"{self.early:+z.3f} nats early in the context and {self.late:+z.3f} late"
        return f"{self.label}: {ends}, {self.growth:+z.3f}{interval} more"


def analyse(measured: Measured) -> Outcome:
    """The gap of every label to the baseline along the context.

    Raises:
        InputError: if the runs were not evaluated by position.
    """
    if measured.along is None or "blocks" not in measured.along:
        raise InputError("no losses by position; isosweep evaluate measures them")
    ends = measured.along[measured.along["final"] & measured.along["blocks"].notna()]
    runs = measured.runs[["run_id", "cell", "seed"]].merge(ends[["run_id", "label", "blocks", "context"]], on="run_id")
    baseline = measured.labels[0] if measured.labels else str(measured.runs["label"].iloc[0])
    found = [
        gap for label in dict.fromkeys(runs["label"]) if label != baseline and (gap := _gap(runs, label, baseline)) is not None
    ]
    claims = [_claim(gap) for gap in found if gap.label == LSTM]
    return Outcome(
        claims=tuple(claims),
        text=tuple(gap.line() for gap in found),
        values=plain({gap.label: vars(gap) for gap in found}),
        draw=lambda figure: _draw(figure, found, baseline),
    )


def _gap(runs: "pd.DataFrame", label: str, baseline: str) -> Gap | None:
    """Of runs that share cell and seed; None if there are none."""
    from scipy.stats import t

    both = runs[runs["label"] == label].merge(runs[runs["label"] == baseline], on=["cell", "seed"], suffixes=("", "_base"))
    if both.empty:
        return None
    T = int(both["context"].iloc[0])
    edges = position_edges(T)
    own, base = (np.array([np.mean(blocks, axis=0) for blocks in both[name]]) for name in ("blocks", "blocks_base"))
    gaps = own - base
    widths, first = np.diff(edges), edges[:-1]
    early, late = (
        (gaps[:, which] * widths[which]).sum(axis=1) / widths[which].sum() for which in (first <= T / EARLY, first > T / LATE)
    )
    growth = late - early
    margin = None
    if len(growth) > 1:
        margin = float(t.ppf((1 + LEVEL) / 2, len(growth) - 1) * growth.std(ddof=1) / len(growth) ** 0.5)
    mean = float(growth.mean())
    return Gap(
        label=label,
        early=float(early.mean()),
        late=float(late.mean()),
        growth=mean,
        low=None if margin is None else mean - margin,
        high=None if margin is None else mean + margin,
        places=tuple(((first + edges[1:] - 1) / 2).tolist()),
        gap=tuple(gaps.mean(axis=0).tolist()),
        pairs=len(both),
    )


def _claim(gap: Gap) -> Claim:
    """Holds if the gap surely grows along the context, fails if it surely shrinks."""
    low, high = (np.nan, np.nan) if gap.low is None or gap.high is None else (gap.low, gap.high)
    return Claim(paper=PAPER, here=gap.line(), verdict=judged(low, high))


def _draw(figure: "Figure", found: list[Gap], baseline: str) -> None:
    """The gaps over the position."""
    axis = figure.subplots()
    for gap in found:
        axis.plot(gap.places, gap.gap, "o-", markersize=3, label=gap.label)
    axis.axhline(0, color="0.3", linewidth=1)
    axis.set(xscale="log", xlabel="position in the context", ylabel=f"loss above that of {baseline} (nats per token)")
    axis.legend()
