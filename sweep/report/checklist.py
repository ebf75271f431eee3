"""Every choice behind the numbers, along the four parts of the checklist of Li et al. 2025, "(Mis)Fitting: A Survey of Scaling
Laws" (arXiv 2502.18969): the law's form, the training, the data points, and the fitting."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sweep.config import FitConfig
from sweep.figures.style import loss_unit
from sweep.fit import APPROACHES, Fits, Options
from sweep.report.origin import Origin
from sweep.report.text import count, plain, scientific, share
from sweep.words import counted

UNKNOWN = "not known: the table does not say"
LOSSES = {
    "val": "the last loss on one held-out set, shared by all runs",
    "train": "the smoothed training loss at the end",
    "bits_per_byte": "the last loss on one held-out set, shared by all runs, per byte of its text",
}
SIZES = {"total": "all parameters, embeddings included", "non_embedding": "the parameters without embeddings"}
FLOPS = {
    "6N": "6 N D",
    "kaplan": "6 N D with N without embeddings (Kaplan et al. 2020)",
    "chinchilla": "Chinchilla's Appendix F, attention and output layer included",
    "exact": "counted exactly, causal attention half",
}


@dataclass(frozen=True)
class Choice:
    """One line: a question and the choice made; `known` is False where the data do not tell."""

    question: str
    chosen: str
    known: bool = True


def checklist(fits: Fits, options: FitConfig, origin: Origin) -> dict[str, list[Choice]]:
    """The choices by part."""
    return {
        "The law": list(_law(fits, options, origin)),
        "The training": list(_training(fits, origin)),
        "The data points": list(_points(fits, options, origin)),
        "The fitting": list(_fitting(fits, options)),
    }


def conventions(options: FitConfig, origin: Origin) -> tuple[str, str, str]:
    """What N, C and L are. For a table N and C are as the user declared them, and the data behind L are not known."""
    N, C = SIZES[options.parameters], FLOPS[options.flops]
    if origin.from_store:
        return N, C, LOSSES.get(options.loss, f"the last loss on {options.loss}, a set evaluated after training")
    return f"{N} (as declared)", f"{C} (as declared)", "the table's final loss, on data that it does not name"


def _law(fits: Fits, options: FitConfig, origin: Origin) -> Iterator[Choice]:
    for form in dict.fromkeys(approach.form for approach in APPROACHES.values()):
        numbers = [str(approach.number) for approach in APPROACHES.values() if approach.form == form]
        yield Choice(f"Form, Approach{'es' if len(numbers) > 1 else ''} {' and '.join(numbers)}", form)
    yield Choice("Ties between constants", "alpha = beta" if options.tied else "none")
    yield Choice("E", f"{options.fixed_E:g}, given" if options.fixed_E is not None else "fitted")
    N, C, L = conventions(options, origin)
    yield Choice("What N counts", N)
    yield Choice("What C counts", C)
    yield Choice("What L is", f"{L}, in {loss_unit(fits)}; Approach 1 has training losses under any choice", origin.from_store)
    yield Choice("Constraint of the optimum", "the loss is lowest at a fixed C; use after training is not counted unless asked")


def _training(fits: Fits, origin: Origin) -> Iterator[Choice]:
    runs = fits.runs
    sizes, per_parameter = np.unique(runs.N), runs.D / runs.N
    yield Choice("Models trained", f"{counted(len(runs), 'run')} of {counted(len(sizes), 'size')}")
    yield Choice("Range of N", f"{count(sizes[0])} to {count(sizes[-1])} parameters")
    yield Choice("Range of D", f"{count(runs.D.min())} to {count(runs.D.max())} tokens")
    yield Choice("Range of C", f"{scientific(runs.C.min())} to {scientific(runs.C.max())} FLOPs")
    yield Choice("Tokens per parameter", f"{plain(per_parameter.min())} to {plain(per_parameter.max())}")
    names = ("Architecture", "Learning rate", "Batch", "Schedule", "Optimiser", "Data", "Tokenizer", "Repeated data", "Seeds")
    for name in (*names, "Precision"):
        yield Choice(name, origin.setup.get(name, UNKNOWN), name in origin.setup)


def _points(fits: Fits, options: FitConfig, origin: Origin) -> Iterator[Choice]:
    runs, ours = fits.runs, origin.from_store
    budgets = runs.budget[np.isfinite(runs.budget)]
    ends = "one, at the end of its own schedule" if ours else "one row each; whether a schedule ended there is not known"
    yield Choice("Points per run", ends, ours)
    groups = f"by planned budget: {counted(len(np.unique(budgets)), 'budget')}, {counted(len(budgets), 'run')}"
    yield Choice("IsoFLOP groups", groups if len(budgets) else "none")
    smoothed = "as the table has them; those kept by wandb are smoothed"
    if ours:
        smoothed = f"Gaussian, {options.smoothing_steps:g} steps"
    yield Choice("Training curves", f"{len(fits.curves)}; smoothing: {smoothed}" if len(fits.curves) else "none")
    yield Choice("Left out", f"{len(runs.excluded)} unfinished runs, listed above; no outlier was dropped")
    independent = runs.cluster is None
    yield Choice("Dependence", "each run counts as independent" if independent else "points of one trajectory are marked")
    yield Choice("Weights", "given by the table" if runs.weight is not None else "all runs alike")


def _fitting(fits: Fits, options: FitConfig) -> Iterator[Choice]:
    unit = loss_unit(fits)
    for name, law in fits.laws.items():
        if law.fitted:
            yield from (Choice(question, chosen) for question, chosen in law.choices(Options.of(options), unit))
        else:
            yield Choice(APPROACHES[name].heading(), f"not fitted ({law.status})")
    resampled = ", ".join(f"of {approach.resampled} for {approach.title()}" for approach in APPROACHES.values())
    yield Choice(
        "Uncertainty", f"{share(fits.level)} intervals from {options.resamples} resamples (seed {options.seed}): {resampled}"
    )
    ahead = fits.extrapolation
    held = f"{counted(len(ahead.each), 'budget')}, each predicted from the smaller ones" if ahead.fitted else ""  # type: ignore[union-attr]
    yield Choice("Validation", held or "no budget could be held out, for the reason above")
    yield Choice("Other choices tried", f"{len(fits.sensitivity)} fits, all shown above")
