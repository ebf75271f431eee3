"""How the verdict is reached: which approach to go by, how far other choices move it, and what speaks against it."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from sweep.fit.answers import Answers
from sweep.fit.approaches import APPROACHES, Approach
from sweep.fit.frontier import Allocation
from sweep.fit.judge.choices import Choices, TwoParts
from sweep.fit.judge.form_fits import FittedForm
from sweep.fit.judge.predictions import HoldOut
from sweep.fit.judge.sensitivity import Variant
from sweep.fit.judge.verdict import Recommended, Verdict
from sweep.fit.lack_of_fit import LackOfFit
from sweep.fit.result import Estimate

IN_DOUBT = ("flat", "unidentified")  # statuses of a surface whose constants mean little
ROWS = 2  # budgets: the largest and the next
CLOSER = 0.8  # times the error of N_opt on held-out budgets, to prefer one approach to the measured minima
PREFERRED = ("isoflop", "parametric", "envelope")
DOMINATES = 1.5  # times as wide with other choices as from noise alone


def decide(
    laws: Mapping[str, Any],
    answers: Answers,
    *,
    adequacy: LackOfFit | None,
    forms: Mapping[str, Any],
    variants: Sequence[Variant],
    extrapolation: Any,
) -> Verdict | None:
    """The verdict on the laws of one table; None if no approach was fitted.

    An approach is set aside if it could not be fitted, or, for the surface, if it is not adequate. Of the others the minima of
    the profiles come first, unless another predicted the optima of held-out budgets clearly better.
    """
    fitted = {name: law for name, law in laws.items() if law.fitted}
    if not fitted:
        return None
    against = {name: reason for name, law in laws.items() if (reason := _against(law, adequacy))}
    sound = [name for name in PREFERRED if name in fitted and name not in against] or [n for n in PREFERRED if n in fitted]
    held: Sequence[HoldOut] = extrapolation.each if extrapolation.fitted else ()
    off = _errors(held)
    chosen = sound[0]
    for name in sound[1:]:
        if name in off and chosen in off and off[name] < CLOSER * off[chosen]:
            chosen = name
    law, others = fitted[chosen], [name for name in sound if name != chosen]
    choices = Choices(
        variants=[variant for variant in variants if law.has_surface],
        forms=[form for form in forms.values() if form.fitted and not form.set_aside],
    )
    by_hand = [(label, getattr(law, name)) for label, name in law.variants.items() if getattr(law, name) is not None]
    a = choices.spread(law.a, lambda other: other.a, [*by_hand, *((_title(name), fitted[name].a) for name in others)])
    budgets = list(dict.fromkeys(row.C for row in answers.allocations))[:ROWS]
    at = [{row.approach: row for row in answers.allocations if row.C == C} for C in budgets]
    agree = [name for name in others if law.a.overlaps(fitted[name].a)]
    return Verdict(
        approach=chosen,
        a=a,
        b=choices.spread(law.b, lambda other: other.b, [(_title(name), fitted[name].b) for name in others]),
        rows=tuple(_recommended(rows, chosen, others, choices, law.level) for rows in at),
        agree=tuple(_title(name) for name in agree),
        differ=tuple(_title(name) for name in others if name not in agree),
        set_aside={_title(name): reason for name, reason in against.items()},
        held_out=_held_out(held, off),
        advice="; ".join(_advice(laws, law, a)),
    )


def _recommended(
    rows: Mapping[str, Allocation], chosen: str, others: Sequence[str], choices: Choices, level: float
) -> Recommended:
    """The run at one budget, whose `rows` are the approaches' optima. The loss is that of the recommended approach, else of the
    surface if it is sound, else of the form that predicts larger budgets best."""
    row, C = rows[chosen], rows[chosen].C
    by_loss = [name for name in (chosen, *others) if rows[name].loss is not None and not APPROACHES[name].reads_curves]
    named = {_title(name): rows[name].loss for name in by_loss}
    if not named and choices.forms:
        form = choices.forms[0]
        named[f"the form '{form.name}'"] = _as_held_out(form, C, level)
    if not named and row.loss is not None:
        named[f"{_title(chosen)} (training loss)"] = row.loss
    by, loss = next(iter(named.items()), (None, None))
    told = [(name, each) for name, each in named.items() if each is not None]
    return Recommended(
        C=C,
        N=choices.spread(row.N, lambda law: law.optimal(C)[0], [(_title(name), rows[name].N) for name in others], log=True),
        D=choices.spread(row.D, lambda law: law.optimal(C)[1], [(_title(name), rows[name].D) for name in others], log=True),
        loss=None if loss is None else choices.spread(loss, lambda law: law.optimal_loss(C), told),
        loss_by=by,
    )


def _title(name: str) -> str:
    return APPROACHES[name].title()


def _as_held_out(form: FittedForm, C: float, level: float) -> Estimate:
    """Its loss at `C`, off by as much as its predictions of held-out budgets were."""
    loss = form.optimal_loss(C)
    if form.held_out is None:
        return Estimate(loss)
    off = NormalDist().inv_cdf((1 + level) / 2) * form.held_out
    return Estimate(loss, loss * float(np.exp(-off)), loss * float(np.exp(off)))


def _against(law: Any, adequacy: LackOfFit | None) -> str | None:
    """Why an approach is not considered."""
    if not law.fitted:
        return f"not fitted ({law.status})"
    if law.has_surface and law.status in IN_DOUBT:
        return f"{law.status}: these runs do not determine its constants"
    if law.has_surface and adequacy is not None and not adequacy.adequate:
        return f"its form does not fit these runs (χ² = {adequacy.chi2:.2g} per degree of freedom)"
    return None


def _errors(each: Sequence[HoldOut]) -> dict[str, float]:
    """The root mean square error of log N_opt on held-out budgets, by approach."""
    optima = [optimum for held in each for optimum in held.optima]
    off: dict[str, list[float]] = {}
    for optimum in optima:
        for name, N in optimum.predicted.items():
            off.setdefault(name, []).append(float(np.log(N / optimum.N_opt)))
    return {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in off.items()}


def _held_out(each: Sequence[HoldOut], off: Mapping[str, float]) -> str | None:
    if not each:
        return None
    last = each[-1]
    inside = "" if last.covered is None else f", {last.covered:.0%} inside {last.level:.0%} intervals"
    sizes = ", ".join(f"{np.expm1(error):.0%} by {APPROACHES[name].title()}" for name, error in off.items())
    best = f"; N_opt of held-out budgets off by {sizes}" if sizes else ""
    return f"the largest budget's losses, predicted by Approach 3 from the others, are off by {last.error:z.4f}{inside}{best}"


def _advice(laws: Mapping[str, Any], law: Approach, a: TwoParts) -> Iterator[str]:
    """What would narrow the answer most, the first thing first."""
    profiles = laws["isoflop"].profiles
    refused = [profile for profile in profiles if profile.status != "converged"]
    if refused:
        yield f"the profile at C = {refused[-1].budget:.3g}: {refused[-1].reason}"
    if not profiles:
        yield "budgets: runs of several sizes at each of a few C, which Approach 2 needs"
    noise, combined = a.noise, a.combined
    if noise.interval is None or combined.interval is None:
        yield "more runs: there is no interval"
    elif np.ptp(combined.interval) > DOMINATES * np.ptp(noise.interval):
        moved = " and ".join(label for label in (a.lowest, a.highest) if label)
        yield f"a larger budget, as other choices ({moved}) move a by more than noise does"
    elif getattr(law, "scatter", 0) > 0:
        yield "more budgets, or rates tuned by size, as the minima scatter by more than the noise of the runs"
    else:
        yield "more seeds or sizes at each budget, as the noise of the runs decides"
