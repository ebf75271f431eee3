"""The noise between seeds, and what it allows to say of differences."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.differences import between_seeds
from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95  # of the intervals that verdicts rest on


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """How the final losses of runs that differ in the seed alone scatter.

    Attributes:
        sd: standard deviation of one run, in nats, pooled over all cells; NaN if none was trained with two seeds.
        freedom: degrees of freedom it was estimated from.
    """

    sd: float
    freedom: int

    def margin(self, *counts: int) -> float:
        """Half the width of the interval (`LEVEL`, Student's t) of a sum or a difference of means of that many runs each, in
        nats; NaN if the noise is not known."""
        from scipy.special import stdtrit

        if not self.freedom:
            return float("nan")
        return float(stdtrit(self.freedom, (1 + LEVEL) / 2) * self.sd * np.sqrt(sum(1 / n for n in counts)))


def seed_noise(runs: "pd.DataFrame") -> SeedNoise:
    """The noise of runs with the columns cell, label and loss."""
    sd, freedom = between_seeds(runs)
    return SeedNoise(sd=float("nan") if sd is None else sd, freedom=freedom)


def judged(low: float, high: float) -> str:
    """The verdict on a claim that a quantity is positive, from its interval; NaN ends are no interval."""
    return HOLDS if low > 0 else FAILS if high < 0 else UNCLEAR
