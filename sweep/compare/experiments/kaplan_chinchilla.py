"""What turns Kaplan et al.'s exponent into Chinchilla's, from trained runs: one step after another.

Porian et al. 2024 (arXiv 2406.19146) go from 0.835 to 0.497 on RefinedWeb: counting the output layer, a warm-up scaled to the
model, a cosine matched to the horizon, a tuned rate and batch. The labels of the sweep are these protocols, the last one first
because it is the baseline; Kaplan et al.'s own is counted in their way too.

What the surface misses in a cell, and the order of its data, all protocols share. So a step is judged by the change of a in
resamples of the cells, the same for both sides, and not by whether two intervals overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.compare.experiment import UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.noise import LEVEL, judged
from sweep.errors import InputError
from sweep.fit import Estimate, Intervals, LawError, fit_isoflop, fit_parametric, runs_from_frame
from sweep.fit.result import plain
from sweep.words import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KAPLAN, CHINCHILLA = 0.73, 0.50
COUNTED_BY_KAPLAN, COUNTING = "counted as Kaplan et al. did", "counting all parameters and FLOPs"
PORIAN = (0.835, 0.707, 0.602, 0.572, 0.497)
OF_PORIAN = "0.835, 0.707 with the output layer, 0.602 with a scaled warm-up, 0.572 with matched cosines, 0.497 tuned"


@dataclass(frozen=True, kw_only=True)
class Step:
    """The exponent a of N_opt in C after one more change.

    Attributes:
        name: of the change.
        surface, profiles: a by Approach 3, and by Approach 2; None where the runs have none.
        drawn: a by Approach 3 in resamples of the cells, which are the same for all steps, shape (resamples,).
        reason: why Approach 3 has none.
    """

    name: str
    surface: Estimate | None
    profiles: Estimate | None
    drawn: np.ndarray | None = field(repr=False)
    reason: str = ""

    def lowered(self, before: "Step") -> Estimate | None:
        """How much lower a is than `before`, by Approach 3; None if one of them has no law."""
        if self.surface is None or before.surface is None or self.drawn is None or before.drawn is None:
            return None
        return Estimate.from_resamples(before.surface.value - self.surface.value, before.drawn - self.drawn, LEVEL)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "surface": self.surface, "profiles": self.profiles, "reason": self.reason}


def analyse(measured: Measured) -> Outcome:
    """The exponent of each protocol, and what each step between them changes.

    Raises:
        InputError: if the sweep has fewer than two labels, or one of them no finished run.
    """
    labels = list(dict.fromkeys(measured.runs["label"]))
    if len(labels) < 2:
        raise InputError("kaplan_chinchilla compares protocols; give axis.variants at least two, the recommended one first")
    if missing := [label for label in measured.labels if label not in labels]:
        raise InputError(f"no run of {', '.join(missing)} is done; each step is judged against the one before")
    runs = measured.runs.sort_values(["cell", "seed"])  # the order in which they are resampled
    of_all = runs.groupby(["cell", "seed"])["label"].transform("nunique") == len(labels)
    if not of_all.any():
        raise InputError("no cell and seed has a finished run of every protocol; launch the sweep again")
    protocols = {label: runs[of_all & (runs["label"] == label)] for label in labels}
    steps = [_step(COUNTED_BY_KAPLAN, _counted_by_kaplan(protocols[labels[-1]]))]
    steps += [_step(label, protocols[label]) for label in reversed(labels)]
    text = [
        f"exponent a of N_opt in C, step by step (Approach 3; Approach 2), intervals of {LEVEL:.0%}:",
        *map(_line, steps),
        *[f"left out: {counted(sum(~of_all), 'run')}, of whose cell and seed another protocol has none"] * (not of_all.all()),
    ]
    changes = [after.lowered(before) for before, after in pairwise(steps)]
    return Outcome(
        claims=(_whole(steps), *_lowers(steps)),
        text=tuple(text),
        values=plain({"steps": [step.to_dict() for step in steps], "lowered": changes, "porian": list(PORIAN)}),
        draw=lambda figure: _draw(figure, steps),
    )


def _counted_by_kaplan(runs: "pd.DataFrame") -> "pd.DataFrame":
    """Neither N nor C has embeddings or the output layer."""
    return runs.assign(N=runs["N_non_embedding"], C=runs["C_kaplan"])


def _step(name: str, runs: "pd.DataFrame") -> Step:
    surface: Estimate | None = None
    drawn, reason = None, ""
    intervals = Intervals(level=LEVEL)
    table = runs_from_frame(runs)
    try:
        fit = fit_parametric(table, clusters=runs["cell"].to_numpy(), intervals=intervals)
        surface, drawn = fit.a, np.asarray(fit.replicates.a)
    except LawError as error:
        reason = str(error)
    try:
        profiles = fit_isoflop(table, intervals=intervals).a
    except LawError:
        profiles = None
    return Step(name=name, surface=surface, profiles=profiles, drawn=drawn, reason=reason)


def _line(step: Step) -> str:
    return f"  {step.name:32}  {step.surface or step.reason}; {step.profiles or 'none'}"


def _whole(steps: list[Step]) -> Claim:
    """Whether the steps lead from Kaplan et al.'s exponent down to Chinchilla's."""
    first, last = steps[0], steps[-1]
    here = f"{first.surface or 'no law'} by Kaplan et al.'s counting and protocol, {last.surface or 'no law'} by ours"
    paper = f"counting and protocol explain {KAPLAN} against {CHINCHILLA} (Porian et al. 2024: {OF_PORIAN})"
    return _claim(paper, here, last.lowered(first))


def _lowers(steps: list[Step]) -> Iterator[Claim]:
    """Of each change: whether it lowers a, as it did for Porian et al."""
    for before, after in pairwise(steps):
        change = COUNTING if before is steps[0] else after.name
        yield _claim(f"{change} lowers a (Porian et al. 2024)", f"{before.surface} to {after.surface}", after.lowered(before))


def _claim(paper: str, here: str, lowered: Estimate | None) -> Claim:
    if lowered is None or lowered.interval is None:
        return Claim(paper=paper, here="no law on one side", verdict=UNCLEAR)
    return Claim(paper=paper, here=f"{here}, lower by {lowered}", verdict=judged(*lowered.interval))


def _draw(figure: "Figure", steps: list[Step]) -> None:
    axis = figure.add_subplot()
    for shift, colour, word in ((-0.1, "C0", "surface"), (0.1, "C1", "profiles")):
        label: str | None = {"surface": "Approach 3", "profiles": "Approach 2"}[word]
        for place, step in enumerate(steps):
            estimate = getattr(step, word)
            if estimate is None:
                continue
            ends = estimate.interval or (estimate.value, estimate.value)
            off = np.abs(np.array(ends) - estimate.value)[:, None]
            axis.errorbar([place + shift], [estimate.value], off, fmt="o", color=colour, capsize=3, label=label)
            label = None  # once in the legend
    axis.plot(range(len(PORIAN)), PORIAN, "x", color="0.6", label="Porian et al. 2024, RefinedWeb")
    for value, name in ((KAPLAN, "Kaplan et al."), (CHINCHILLA, "Chinchilla")):
        axis.axhline(value, color="0.7", linestyle="--", linewidth=1)
        axis.text(len(steps) - 0.5, value, f" {name}", fontsize=8, va="center")
    axis.set_xticks(range(len(steps)), [step.name for step in steps], rotation=20, ha="right", fontsize=8)
    axis.set(ylabel="exponent $a$ of $N_{opt} \\propto C^a$", title="from Kaplan et al.'s protocol to Chinchilla's")
    axis.legend(fontsize=8)
