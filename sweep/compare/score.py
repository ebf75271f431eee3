"""Which way of choosing is better: comparing labels over all cells, or ranking them at one small size?

Each is judged on the cells of the largest compute, which neither sees: over all pairs of labels, the share whose order there it
gets right (the decision accuracy of Magnusson et al. 2025, DataDecide, arXiv 2504.11393).
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MIN_CELLS = 3  # two to compare over, one held out


@dataclass(frozen=True, kw_only=True)
class Score:
    """The pairs of labels that are in the same order on the largest cells.

    Attributes:
        pairs: all of them.
        compared: right by the mean difference over all smaller cells.
        ranked: right by the losses in the smallest cell.
        held_out: compute of the cells that both are judged on, in FLOPs.
    """

    pairs: int
    compared: int
    ranked: int
    held_out: float

    def line(self) -> str:
        """The score in a sentence."""
        return (
            f"order at the largest compute ({self.held_out:.3g} FLOPs, held out): right for {self.compared} of {self.pairs} "
            f"pairs of labels by comparing over the smaller cells, for {self.ranked} by ranking at the smallest one"
        )


def score(runs: "pd.DataFrame") -> Score | None:
    """The score of finished runs with the columns cell, label, C and loss; None with fewer than `MIN_CELLS` complete cells of
    different compute."""
    means = runs.pivot_table(index="cell", columns="label", values="loss", aggfunc="mean").dropna()
    compute = runs.groupby("cell")["C"].median().loc[means.index].sort_values()
    if len(compute) < MIN_CELLS or means.shape[1] < 2 or compute.iloc[-1] <= 1.01 * compute.iloc[-2]:
        return None
    ordered = means.loc[compute.index].to_numpy()
    truth, smaller, smallest = ordered[-1], ordered[:-1].mean(axis=0), ordered[0]

    def right(guess: np.ndarray) -> int:
        pairs = combinations(range(len(truth)), 2)
        return sum(bool((guess[i] < guess[j]) == (truth[i] < truth[j])) for i, j in pairs)

    pairs = len(truth) * (len(truth) - 1) // 2
    return Score(pairs=pairs, compared=right(smaller), ranked=right(smallest), held_out=float(compute.iloc[-1]))
