"""Overfitting and repeated data: runs that see only U unique tokens, `data.unique_tokens`, as often as their horizon needs.

Kaplan et al. 2020 (arXiv 2001.08361), section 4 and figures 9 and 16: the lowest held-out loss of N parameters on U tokens.
Muennighoff et al. 2023 (arXiv 2305.16264): what repeated tokens are worth before a model overfits.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR, Claim, Measured, Outcome
from sweep.compare.experiments.repetition.data_constrained import R_STAR, fit_data_constrained
from sweep.compare.experiments.repetition.figure import draw
from sweep.errors import InputError
from sweep.fit import Estimate, Intervals
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.laws import L_D, L_ND
from sweep.fit.result import Refused, attempt, plain

if TYPE_CHECKING:
    import pandas as pd

UNIQUE = "data.unique_tokens"
TURNED = 0.02  # nats that the last loss lies above the lowest once a run overfits: seeds differ by half of that
OVERFITTING = 0.02  # of the loss: what the paper's bound on the data allows
NEGLIGIBLE = 0.01  # of the loss: what four epochs may cost and still count as new data
SETTLED = 0.1  # of the horizon: before it the warm-up shows
INTERVALS = Intervals(resamples=400)
TELLING = 2.0  # a factor: an interval that reaches further from a published value does not confirm it
HEADS = {
    "L_D": "L(D = U), of the largest model's lowest losses, from these runs; the L(D) that `fit` prints goes through "
    "horizons of less than one epoch, which is another law",
    "L_ND": "L(N, D = U), of the lowest losses; N without embeddings",
    "L_NS": "L(N, S), along the runs that repeat nothing; S as taken, not S_min, so for early stopping at this batch size only",
    "data_constrained": "Muennighoff et al.'s law, of the last losses of runs that do not overfit",
}


def analyse(measured: Measured) -> Outcome:
    """What the runs say of both papers' laws. Raises InputError if the number of unique tokens does not vary, or there are no
    held-out losses along the runs."""
    points = best_losses(measured)
    without = points[points.dropout == 0]
    longest = without[without.D == without.groupby("N").D.transform("max")]  # the others may end before their lowest loss
    largest = longest[longest.N == longest.N.max()]
    new = without[without.D <= without.U]
    before = without[~without.turned]
    laws = {
        "L_D": attempt(lambda: fit_scale_law(largest.U, largest.best, intervals=INTERVALS)),
        "L_ND": attempt(lambda: fit_size_data_law(longest.M, longest.U, longest.best, intervals=INTERVALS)),
        "L_NS": attempt(partial(_fit_steps, new, measured.evaluations)),
        "data_constrained": attempt(
            lambda: fit_data_constrained(before.N, before.U, before.D, before.final, intervals=INTERVALS)
        ),
    }
    stops = _stops(without, laws["L_ND"], laws["L_NS"])
    found = (
        _law_of_data(laws["L_D"]),
        *_overfitting(laws["L_ND"], float(longest.M.max())),
        _early_stopping(stops),
        _worth(laws["data_constrained"]),
        _four_epochs(without),
    )
    text = [
        table(points),
        f"intervals of {INTERVALS.level:.0%}",
        *(f"{HEADS[name]}\n{law.summary()}" for name, law in laws.items()),
        *_dropout(points),
    ]
    return Outcome(
        claims=tuple(claim for claim in found if claim),
        text=tuple(text),
        values={"runs": plain(points.astype({"run_id": str}).to_dict("list")), "laws": plain(laws), "stops": plain(stops)},
        draw=lambda figure: draw(figure, points, measured.evaluations, laws),
    )


def best_losses(measured: Measured) -> "pd.DataFrame":
    """A row for each run.

    run_id, seed, dropout; N, and M without embeddings; D tokens seen, U unique ones among them, unique the field (infinite for
    the whole corpus); best, the lowest held-out loss along the run, after best_step of its steps and best_tokens, and
    before_step and next_step, those of the evaluations around it; final, its last loss, and turned, whether that is more than
    0.02 nats above.
    """
    import pandas as pd

    if UNIQUE not in measured.runs or measured.runs[UNIQUE].nunique(dropna=False) < 2:
        raise InputError(f"{UNIQUE} does not vary between these runs; give axis.vary a list of them, with null for all tokens")
    if measured.evaluations.empty:
        raise InputError("no held-out loss was measured along these runs; set evaluation.points to about 20 and launch again")
    rows = []
    evaluated = dict(iter(measured.evaluations.sort_values("step").groupby("run_id")))
    for run in measured.runs.to_dict("records"):
        along = evaluated[run["run_id"]]
        steps, losses = along.step.to_numpy(), along.loss.to_numpy()
        lowest = int(losses.argmin())
        unique = _number(run[UNIQUE], np.inf)
        rows.append(
            {
                "run_id": run["run_id"],
                "seed": run["seed"],
                "dropout": _number(run.get("model.dropout"), 0.0),
                "N": float(run["N"]),
                "M": float(run["N_non_embedding"]),
                "D": float(run["D"]),
                "unique": unique,
                "U": min(unique, float(run["D"])),
                "best": losses[lowest],
                "best_step": int(steps[lowest]),
                "before_step": int(steps[max(lowest - 1, 0)]),
                "next_step": int(steps[min(lowest + 1, len(steps) - 1)]),
                "steps": int(steps[-1]),
                "best_tokens": float(along.tokens.iloc[lowest]),
                "final": losses[-1],
                "turned": bool(losses[-1] - losses[lowest] > TURNED),
            }
        )
    return pd.DataFrame(rows).sort_values(["N", "U", "D", "dropout", "seed"], ignore_index=True)


def _number(value: Any, missing: float) -> float:
    """A field's value as a table has it, where null may be text."""
    number = float("nan") if value is None or value == "null" else float(value)
    return missing if np.isnan(number) else number


def table(points: "pd.DataFrame") -> str:
    """The lowest loss by size and unique tokens, in lines; the mean over seeds."""
    lines = [f"{'N':>9} {'unique':>11} {'epochs':>7} {'dropout':>7}  lowest  at epoch   last"]
    for key, same in points.groupby(["N", "U", "D", "dropout"]):
        N, U, D, dropout = cast(tuple[float, ...], key)
        lowest, epoch, last = same.best.mean(), (same.best_tokens / same.U).mean(), same.final.mean()
        lines.append(f"{N:9,.0f} {U:11,.0f} {D / U:7.3g} {dropout:7g}  {lowest:.3f} {epoch:9.3g}  {last:.3f}")
    return "\n".join(lines)


def _fit_steps(new: "pd.DataFrame", evaluations: "pd.DataFrame") -> Any:
    along = evaluations.merge(new[["run_id", "M", "steps"]], on="run_id")
    along = along[along.step > SETTLED * along.steps]
    return fit_size_steps_law(along.M, along.step, along.loss, clusters=along.run_id.to_numpy(), intervals=INTERVALS)


def _stops(points: "pd.DataFrame", size_data: Any, size_steps: Any) -> list[dict[str, Any]]:
    """Of each run that overfits: the steps to its lowest loss, at most (the next evaluation), and equation 5.7's bound."""
    if isinstance(size_data, Refused) or isinstance(size_steps, Refused):
        return []

    def bound(M: float, U: float) -> Estimate:
        return size_steps.derived(lambda law: float(law.early_stopping_bound(M, U, size_data.law)))

    turned = points[points.turned].to_dict("records")
    return [
        {name: run[name] for name in ("run_id", "N", "U", "before_step", "next_step")} | {"bound": bound(run["M"], run["U"])}
        for run in turned
    ]


def _verdict(holds: bool | None) -> str:
    return UNCLEAR if holds is None else HOLDS if holds else FAILS


def _agrees(of: Estimate, published: float) -> str:
    """Whether the interval holds the published value, and so little else that this confirms it."""
    if of.interval is None:
        return UNCLEAR
    low, high = of.interval
    if not low <= published <= high:
        return FAILS
    return HOLDS if low > published / TELLING and high < published * TELLING else UNCLEAR


def _law_of_data(law: Any) -> Claim | None:
    if isinstance(law, Refused):
        return None
    ours = law.constants["exponent"]
    paper = f"Kaplan et al., figure 9 and equation 1.2: L(D) = (D_c / D)^{L_D.exponent:g} of a large model, stopped early"
    here = f"alpha_D = {ours}; the law misses the losses by {law.rms:.1%}, also where N holds them back"
    return Claim(paper=paper, here=here, verdict=_agrees(ours, L_D.exponent))


def _overfitting(law: Any, M: float) -> list[Claim]:
    """Equations 4.3 and 4.4."""
    if isinstance(law, Refused):
        return []
    exponent = law.derived(lambda each: each.alpha_N / each.alpha_D)
    published = L_ND.alpha_N / L_ND.alpha_D
    tokens = law.derived(lambda each: float(each.data_bound(M, OVERFITTING)))
    factor = law.derived(lambda each: float(each.data_bound(1.0, OVERFITTING)))
    theirs = 5e3 * M**0.74
    return [
        Claim(
            paper="Kaplan et al., figure 16: overfitting depends on N^(alpha_N / alpha_D) / D alone, with an exponent of "
            f"{published:.2f}",
            here=f"alpha_N / alpha_D = {exponent}; the law misses the lowest losses by {law.rms:.1%}",
            verdict=_agrees(exponent, published),
        ),
        Claim(
            paper=f"Kaplan et al., equation 4.4: less than 2 % of overfitting needs D > 5e3 N^0.74, {theirs:.3g} tokens for "
            f"N = {M:,.0f} without embeddings",
            here=f"{tokens} tokens; D > {factor} N^{exponent.value:.2f}",
            verdict=_agrees(tokens, theirs),
        ),
    ]


def _early_stopping(stops: list[dict[str, Any]]) -> Claim | None:
    if not stops:
        return None
    low, value, high = (
        np.array([getattr(stop["bound"], end) or np.nan for stop in stops], dtype=float) for end in ("low", "value", "high")
    )
    earliest, latest = (np.array([stop[end] for stop in stops]) for end in ("before_step", "next_step"))  # of the minimum
    holds = False if (latest < low).any() else True if (earliest >= high).all() else None
    return Claim(
        paper="Kaplan et al., equation 5.7: training need not stop before S_c / [L(N, D) - L(N, inf)]^(1 / alpha_S) steps",
        here=f"{(earliest >= value).sum()} of {len(stops)} runs that overfit surely had their lowest loss after that, and "
        f"{(latest < value).sum()} before; the steps are {(earliest / value).min():.2g} to {(latest / value).max():.2g} times "
        "the bound",
        verdict=_verdict(holds),
    )


def _worth(law: Any) -> Claim | None:
    if isinstance(law, Refused):
        return None
    paper = f"Muennighoff et al., equation 6: the worth of repeated tokens decays with R* = {R_STAR:.1f} repetitions"
    return Claim(paper=paper, here=f"R* = {law.R_star}", verdict=_agrees(law.R_star, R_STAR))


def _four_epochs(points: "pd.DataFrame") -> Claim | None:
    """Runs of about four epochs less those of the same N, D and seed that repeat nothing."""
    from scipy.stats import t

    four = points[(points.D / points.U).between(3.5, 4.5)]
    same = ["N", "D", "seed"]
    new = points[points.D <= points.U].groupby(same, as_index=False).final.mean()  # of several sets that repeat nothing
    pairs = four.merge(new, on=same, suffixes=("", "_new"))
    if len(pairs) < 3:
        return None
    more = (pairs.final / pairs.final_new - 1).to_numpy()
    reach = t.ppf((1 + INTERVALS.level) / 2, len(more) - 1) * more.std(ddof=1) / np.sqrt(len(more))
    low, high = more.mean() - reach, more.mean() + reach
    return Claim(
        paper="Muennighoff et al., figure 1: up to 4 epochs of repeated data are almost as good as new data",
        here=f"4 epochs end {more.mean():.2%} above new data ({low:.2%} to {high:.2%}, {len(more)} pairs of runs); less than "
        f"{NEGLIGIBLE:.0%} counts as almost as good",
        verdict=_verdict(True if high < NEGLIGIBLE else False if low > NEGLIGIBLE else None),
    )


def _dropout(points: "pd.DataFrame") -> list[str]:
    """What dropout changes, where runs are the same but for it."""
    same = ["N", "D", "U", "seed"]
    pairs = points[points.dropout > 0].merge(points[points.dropout == 0], on=same, suffixes=("", "_without"))
    return [
        f"dropout {run.dropout:g} at N = {run.N:,.0f} on {run.U:,.0f} unique tokens: lowest loss {run.best:.3f} instead of "
        f"{run.best_without:.3f}, last loss {run.final:.3f} instead of {run.final_without:.3f}"
        for run in pairs.itertuples()
    ]
