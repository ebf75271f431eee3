"""Everything that `isosweep compare` finds of a sweep with an axis, or of several sweeps or tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.compare.differences import DIFFERS, EQUAL, Comparison, compare
from sweep.compare.equivalent import Factor, Law, factors, free_factors
from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim
from sweep.compare.score import Score, score
from sweep.errors import InputError, LawError
from sweep.fit import Estimate, Intervals, ParametricFit, fit_isoflop, fit_parametric, runs_from_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """The exponent a of N_opt in C that the runs of one label have by one approach; None with the reason why there is none."""

    label: str
    approach: str
    a: Estimate | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels beside each other.

    Attributes:
        comparison: differences in loss; None, with the reason in `notes`, where losses cannot be compared.
        factors: the same as factors in N and C, through the baseline's law with its exponents.
        free: by label, the factors in C at the smallest and the largest budget through laws of their own.
        budgets: these two budgets.
        exponents: of every label, by Approaches 2 and 3.
        score: comparing against ranking, if there is enough to tell.
        notes: what could not be said, and why; where the law is from.
    """

    comparison: Comparison | None
    factors: tuple[Factor, ...] = ()
    free: Mapping[str, tuple[Estimate, ...]]
    budgets: tuple[float, ...] = ()
    exponents: tuple[Exponent, ...] = ()
    score: Score | None = None
    notes: tuple[str, ...] = ()


def compare_labels(
    runs: "pd.DataFrame",
    *,
    baseline: str,
    level: float = 0.95,
    margin: float | None = None,
    noise: float | None = None,
    law: Law | None = None,
    incomparable: str | None = None,
    intervals: Intervals = Intervals(),
) -> Labels:
    """Compare the labels of finished runs.

    Args:
        runs: cell, label, seed, N, D, C, loss, and perhaps budget.
        baseline: the label that others are compared with.
        level, margin, noise: see `compare`.
        law: the baseline's, if it is known from elsewhere; else it is fitted to the baseline's runs.
        incomparable: why losses of different labels are not compared; None if they are.
        intervals: of the fits, at `level`.

    Raises:
        InputError: if the baseline has no finished run, or nothing can be compared.
    """
    notes: list[str] = []
    intervals = replace(intervals, level=level)
    laws = {str(label): _law_of(rows, intervals) for label, rows in runs.groupby("label", sort=False)}
    exponents = [
        each for label, rows in runs.groupby("label", sort=False) for each in _exponents(str(label), rows, laws, intervals)
    ]
    if not any(each.a for each in exponents):
        notes.append(f"no label has a law of its own: {exponents[0].reason}")
        exponents = []
    if incomparable is not None:
        notes.append(f"only exponents are compared, and no losses: {incomparable}")
        return Labels(comparison=None, free={}, exponents=tuple(exponents), notes=tuple(notes))
    found = compare(runs, baseline=baseline, level=level, margin=margin, noise=noise)
    own = laws.get(baseline)
    if law is None and isinstance(own, ParametricFit):
        replicas = own.replicates if np.size(own.replicates.E) else None
        law = Law(surface=own.surface, replicas=replicas, source="fitted to the baseline's runs")
    free: dict[str, tuple[Estimate, ...]] = {}
    budgets = (float(runs["C"].min()), float(runs["C"].max()))
    if law is None:
        notes.append(f"no factors in N and C: {own}; compare.law=NAME takes the law of another sweep, or compare.law=fits.json")
    else:
        notes.append(f"factors through the law {law.source}")
    if isinstance(own, ParametricFit):
        free = {label: free_factors(each, own, budgets) for label, each in laws.items() if isinstance(each, ParametricFit)}
        free.pop(baseline)
    return Labels(
        comparison=found,
        factors=() if law is None else factors(found, law, _costs(runs, baseline)),
        free=free,
        budgets=budgets,
        exponents=tuple(exponents),
        score=score(runs),
        notes=tuple(notes),
    )


def _costs(runs: "pd.DataFrame", baseline: str) -> dict[tuple[str, int], float]:
    """By label and cell, its exact FLOPs over the baseline's, where they are known."""
    if "C_exact" not in runs:
        return {}
    C: dict[Any, float] = runs.groupby(["label", "cell"])["C_exact"].mean().to_dict()
    return {(label, cell): value / C[baseline, cell] for (label, cell), value in C.items() if (baseline, cell) in C}


def _law_of(rows: "pd.DataFrame", intervals: Intervals) -> ParametricFit | str:
    """Approach 3 of the runs of one label, or the reason why there is none."""
    try:
        return fit_parametric(rows["N"], rows["D"], rows["loss"], intervals=intervals)
    except LawError as error:
        return str(error)


def _exponents(
    label: str, rows: "pd.DataFrame", laws: Mapping[str, ParametricFit | str], intervals: Intervals
) -> list[Exponent]:
    law = laws[label]
    a, reason = (None, law) if isinstance(law, str) else (law.a, "")
    found = [Exponent(label=label, approach="parametric", a=a, reason=reason)]
    if "budget" in rows and rows["budget"].notna().any():
        try:
            a = fit_isoflop(runs_from_frame(rows), intervals=intervals).a
            found.insert(0, Exponent(label=label, approach="isoflop", a=a))
        except LawError as error:
            found.insert(0, Exponent(label=label, approach="isoflop", a=None, reason=str(error)))
    return found


def claims_of(labels: Labels, expected: Mapping[str, str], planned: Sequence[str]) -> tuple[Claim, ...]:
    """What a paper says of labels, "worse", "better" or "same", beside the differences over all cells. Raises InputError for a
    label that is not planned."""
    assert labels.comparison is not None
    overall = {each.label: each for each in labels.comparison.differences}  # the mean over the cells is the last of each
    found = []
    for label, word in expected.items():
        if label not in planned:
            raise InputError(f"about.labels: {label} is no label of the sweep; it has {', '.join(planned)}")
        if label == labels.comparison.baseline:
            raise InputError(f"about.labels: {label} is the baseline itself; name the others")
        paper = f"{label} is {word} than {labels.comparison.baseline}".replace("same than", "as good as")
        if label not in overall:
            found.append(Claim(paper=paper, here="no cell has a finished run of it and of the baseline", verdict=UNCLEAR))
            continue
        each = overall[label]
        sign = 0 if each.verdict != DIFFERS else -1 if each.value < 0 else 1
        wanted = {"worse": 1, "better": -1, "same": 0}[word]
        told = each.verdict in (DIFFERS, EQUAL)
        verdict = UNCLEAR if not told else HOLDS if sign == wanted else FAILS
        factors = [factor.C for factor in labels.factors if factor.label == label and factor.cell == each.cell and factor.C]
        worth = f", worth {_short(factors[0])} times the baseline's compute" if factors else ""
        interval = "" if each.low is None else f" ({each.low:+z.4f} to {each.high:+z.4f})"
        here = f"{each.value:+z.4f} nats{interval}: {each.words}{worth}"
        found.append(Claim(paper=paper, here=here, verdict=verdict))
    return tuple(found)


def _short(factor: Estimate) -> str:
    ends = "" if factor.interval is None else f" ({' to '.join(f'{end:.2g}' for end in factor.interval)})"
    return f"{factor.value:.2g}{ends}"
