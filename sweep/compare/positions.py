"""The loss by position in the context along training, and how its law depends on N; see `sweep.fit.kaplan.position`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.compare.transfer import MIN_RUNS, jackknife
from sweep.fit import Estimate, Intervals, Refused
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.position import PositionLaw, fit_position_law
from sweep.fit.result import attempt
from sweep.words import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class AtStep:
    """The loss by position of one checkpoint: its law, or why it has none."""

    run_id: str
    label: str
    N: int
    D: int
    step: int
    tokens: int
    final: bool
    law: LawFit[PositionLaw] | Refused

    @property
    def gamma(self) -> Estimate | None:
        """With its interval; None if there is none, for then the number says nothing."""
        found = self.law.constants["gamma"] if isinstance(self.law, LawFit) else None
        return None if found is None or found.interval is None else found

    @property
    def curve(self) -> PositionLaw | None:
        """The law to draw; None without a gamma."""
        return self.law.law if isinstance(self.law, LawFit) and self.gamma is not None else None

    @property
    def reason(self) -> str:
        """Why there is no gamma; empty if there is one."""
        if isinstance(self.law, LawFit):
            return "" if self.gamma else f"no law: {self.law.identified or 0:.0%} of resamples identify it"
        return self.law.reason

    def to_dict(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in ("run_id", "label", "N", "D", "step", "tokens", "final")}
        return about | {"law": self.law.to_dict()}


def position_laws(along: "pd.DataFrame", intervals: Intervals) -> tuple[AtStep, ...]:
    """The law of each row of `collect_along` that has losses by position; by N, D and step."""
    rows = along[along["blocks"].notna()] if "blocks" in along else along.head(0)
    found = []
    for row in rows.sort_values(["N", "D", "run_id", "step"]).to_dict("records") if len(rows) else []:
        law = attempt(partial(fit_position_law, row["blocks"], row["context"], intervals))
        about = {name: row[name] for name in ("run_id", "label", "N", "D", "step", "tokens", "final")}
        found.append(AtStep(**about, law=law))
    return tuple(found)


def growth_of_gamma(laws: Sequence[AtStep], level: float) -> tuple[Estimate | None, str]:
    """By how much gamma at the end of a run grows with a tenfold N, by a line through all runs with a law, or why none can be
    told. What is noise of the held-out text is the same for all runs; the interval is of the scatter between them."""
    ends = [each for each in laws if each.final]
    fitted = [(each.N, each.gamma.value) for each in ends if each.gamma is not None]
    if len(sizes := {N for N, _ in fitted}) < 3 or len(fitted) < MIN_RUNS:
        return None, f"{len(fitted)} of {len(ends)} runs have a law at their end, of {counted(len(sizes), 'size')}"
    x, gamma = np.log10([N for N, _ in fitted]), np.array([value for _, value in fitted])
    value, low, high = jackknife(np.column_stack([x - x.mean(), np.ones(len(x))]), gamma, np.arange(len(x)), level)
    return Estimate(value, low, high), ""
