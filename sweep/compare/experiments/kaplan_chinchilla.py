"""What turns Kaplan et al.'s exponent into Chinchilla's, from trained runs: one step after another.

Porian et al. 2024 (arXiv 2406.19146) go from 0.835 to 0.497 on RefinedWeb: counting the output layer, a warm-up scaled to the
model, a cosine matched to the horizon, a tuned rate and batch. The labels of the sweep are these protocols, the last one first
because it is the baseline; Kaplan et al.'s own is counted in their way too.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.errors import InputError
from sweep.fit import Estimate, Intervals, LawError, fit_isoflop, fit_parametric, runs_from_frame
from sweep.fit.result import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LEVEL = 0.8
KAPLAN, CHINCHILLA = 0.73, 0.50
COUNTED_BY_KAPLAN = "counted as Kaplan et al. did"
PORIAN = (0.835, 0.707, 0.602, 0.572, 0.497)
OF_PORIAN = "0.835, 0.707 with the output layer, 0.602 with a scaled warm-up, 0.572 with matched cosines, 0.497 tuned"


@dataclass(frozen=True, kw_only=True)
class Step:
    """The exponent a of N_opt in C after one more change.

    Attributes:
        name: of the change.
        surface, profiles: a by Approach 3, and by Approach 2; None where the runs have none.
        reason: why Approach 3 has none.
    """

    name: str
    surface: Estimate | None
    profiles: Estimate | None
    reason: str = ""


def analyse(measured: Measured) -> Outcome:
    """The exponent of each protocol, and what each step between them changes.

    Raises:
        InputError: if the sweep has fewer than two labels.
    """
    labels = list(dict.fromkeys(measured.runs["label"]))
    if len(labels) < 2:
        raise InputError("kaplan_chinchilla compares protocols; give axis.variants at least two, the recommended one first")
    runs = {label: measured.runs[measured.runs["label"] == label] for label in labels}
    steps = [_step(COUNTED_BY_KAPLAN, _counted_by_kaplan(runs[labels[-1]]))]
    steps += [_step(label, runs[label]) for label in reversed(labels)]
    text = ["exponent a of N_opt in C, step by step (Approach 3; Approach 2):", *map(_line, steps)]
    return Outcome(
        claims=(_whole(steps), *_schedule(steps)),
        text=tuple(text),
        values=plain({"steps": [vars(step) for step in steps], "porian": list(PORIAN)}),
        draw=lambda figure: _draw(figure, steps),
    )


def _counted_by_kaplan(runs: "pd.DataFrame") -> "pd.DataFrame":
    """Neither N nor C has embeddings or the output layer."""
    return runs.assign(N=runs["N_non_embedding"], C=runs["C_kaplan"])


def _step(name: str, runs: "pd.DataFrame") -> Step:
    surface: Estimate | None = None
    reason = ""
    intervals = Intervals(level=LEVEL)
    table = runs_from_frame(runs)
    try:
        surface = fit_parametric(table, intervals=intervals).a
    except LawError as error:
        reason = str(error)
    try:
        profiles = fit_isoflop(table, intervals=intervals).a
    except LawError:
        profiles = None
    return Step(name=name, surface=surface, profiles=profiles, reason=reason)


def _line(step: Step) -> str:
    return f"  {step.name:32}  {step.surface or step.reason}; {step.profiles or 'none'}"


def _whole(steps: list[Step]) -> Claim:
    """Whether the steps lead from Kaplan et al.'s exponent to Chinchilla's."""
    first, last = steps[0].surface, steps[-1].surface
    verdict = UNCLEAR
    if first is not None and last is not None and first.interval and last.interval:
        verdict = HOLDS if first.interval[0] > last.interval[1] else FAILS if first.interval[1] < last.interval[0] else UNCLEAR
    return Claim(
        paper=f"counting and protocol explain {KAPLAN} against {CHINCHILLA} (Porian et al. 2024: {OF_PORIAN})",
        here=f"{first or 'no law'} by Kaplan et al.'s counting and protocol, {last or 'no law'} by ours",
        verdict=verdict,
    )


def _schedule(steps: list[Step]) -> list[Claim]:
    """Of each change but the counting: whether it lowers a, as it did for Porian et al."""
    found = []
    for before, after in pairwise(steps[1:]):
        if before.surface is None or after.surface is None or not (before.surface.interval and after.surface.interval):
            here, verdict = "no law on one side", UNCLEAR
        else:
            here = f"{before.surface} to {after.surface}"
            lower, higher = after.surface.interval, before.surface.interval
            verdict = HOLDS if lower[1] < higher[0] else FAILS if lower[0] > higher[1] else UNCLEAR
        found.append(Claim(paper=f"{after.name} lowers a (Porian et al. 2024)", here=here, verdict=verdict))
    return found


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
