"""Does filling blanks scale as predicting the next token does? Exponents of both objectives, each by its own held-out loss."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.experiment import Measured, Outcome
from sweep.compare.exponents import same_exponents
from sweep.compare.labels import Exponent, compare_labels
from sweep.errors import InputError
from sweep.fit import Intervals
from sweep.fit.result import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

OWN_LOSS = "loss_on_infilling"  # the column of those that fill blanks
LEVEL = 0.95
APPROACHES = ("isoflop", "parametric")
CLAIM = "blank infilling has the exponent a of the next token (no paper has measured it)"


def analyse(measured: Measured) -> Outcome:
    """The exponents of every label, those that fill blanks by the loss of blanks, and whether they are one.

    Raises:
        InputError: if no run filled blanks, or none predicted the next token.
    """
    runs = measured.runs
    if OWN_LOSS not in runs or runs[OWN_LOSS].isna().all() or runs[OWN_LOSS].notna().all():
        raise InputError("both objectives must have finished runs; take axis.vary={objective.kind: [causal, blank_infilling]}")
    own = runs.assign(loss=runs[OWN_LOSS].fillna(runs["loss"]))
    found = compare_labels(
        own,
        baseline=str(own["label"].iloc[0]),
        level=LEVEL,
        incomparable="they are of different tokens",
        intervals=Intervals(level=LEVEL),
    )
    text = tuple(
        f"a of {each.label} by {each.approach}, on its own loss: {each.reason if each.a is None else each.a}"
        for each in found.exponents
    )
    return Outcome(
        claims=(same_exponents(found.exponents, CLAIM, LEVEL),),
        text=text,
        values=plain({"exponents": [asdict(each) for each in found.exponents]}),
        draw=lambda figure: _draw(figure, own, found.exponents),
    )


def _draw(figure: "Figure", runs: "DataFrame", exponents: tuple[Exponent, ...]) -> None:
    """The lowest loss of each budget, and the exponents."""
    left, right = figure.subplots(1, 2)
    for place, (label, own) in enumerate(runs.groupby("label", sort=False)):
        lowest = own.groupby("budget")["loss"].min()
        left.semilogx(lowest.index, lowest, "o-", color=f"C{place}", label=str(label))
        for each in exponents:
            if each.label == label and each.a is not None:
                ends = [[np.nan], [np.nan]] if each.a.interval is None else np.abs(np.subtract(each.a.interval, each.a.value))
                at = APPROACHES.index(each.approach) + 0.15 * place
                right.errorbar([each.a.value], [at], xerr=np.reshape(ends, (2, 1)), fmt="o", color=f"C{place}", capsize=3)
    left.set(xlabel="C (FLOPs)", ylabel="lowest loss of the budget (nats per token)")
    left.tick_params(axis="x", which="minor", labelbottom=False)  # they would overlap
    left.legend()
    right.set(xlabel="a", yticks=range(len(APPROACHES)), yticklabels=APPROACHES, ylim=(-0.5, len(APPROACHES) - 0.3))
