"""Every choice behind the numbers, along the four parts of the checklist of Li et al. 2025, "(Mis)Fitting: A Survey of Scaling
Laws" (arXiv 2502.18969): the law's form, the training, the data points, and the fitting."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sweep.config import FitConfig
from sweep.figures.style import loss_unit
from sweep.fit import EnvelopeFit, Fits, IsoflopFit, LawError, ParametricFit
from sweep.report.origin import Origin
from sweep.report.text import count, plain, scientific, share

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
    """One line: what was to be chosen, and what was; `known` is False where nobody said."""

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
    """What N, C and L are. Of a table it is what the user declared, and nobody declares whose loss it has."""
    N, C = SIZES[options.parameters], FLOPS[options.flops]
    if origin.from_store:
        return N, C, LOSSES[options.loss]
    return f"{N} (as declared)", f"{C} (as declared)", "the table's final loss, on data that it does not name"


def _law(fits: Fits, options: FitConfig, origin: Origin) -> Iterator[Choice]:
    tied = ", alpha = beta" if options.tied else ""
    given = f", E = {options.fixed_E:g} given" if options.fixed_E is not None else ""
    yield Choice("Form, Approaches 1 and 2", "N_opt = k C^a and D_opt = k′ C^b; the loss there a power law of C without E")
    yield Choice("Form, Approach 3", f"L(N, D) = E + A / N^alpha + B / D^beta{tied}{given} (Hoffmann et al. 2022)")
    N, C, L = conventions(options, origin)
    yield Choice("What N counts", N)
    yield Choice("What C counts", C)
    yield Choice("What L is", f"{L}, in {loss_unit(fits)}; Approach 1 has training losses under any choice", origin.from_store)
    yield Choice("Constraint of the optimum", "the loss is lowest at a fixed C; use after training is not counted unless asked")


def _training(fits: Fits, origin: Origin) -> Iterator[Choice]:
    runs = fits.runs
    sizes, per_parameter = np.unique(runs.N), runs.D / runs.N
    yield Choice("Models trained", f"{len(runs)} runs of {len(sizes)} sizes")
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
    yield Choice(
        "IsoFLOP groups",
        f"by planned budget: {len(np.unique(budgets))} budgets, {len(budgets)} runs" if len(budgets) else "none",
    )
    smoothed = (
        f"Gaussian, {options.smoothing_steps:g} steps" if ours else "as the table has them; those kept by wandb are smoothed"
    )
    yield Choice("Training curves", f"{len(fits.curves)}; smoothing: {smoothed}" if len(fits.curves) else "none")
    yield Choice("Left out", f"{len(runs.excluded)} unfinished runs, listed above; no outlier was dropped")
    clustered = "points of one trajectory are marked" if runs.cluster is not None else "each run counts as independent"
    yield Choice("Dependence", clustered)
    yield Choice("Weights", "given by the table" if runs.weight is not None else "all runs alike")


def _fitting(fits: Fits, options: FitConfig) -> Iterator[Choice]:
    three, two = fits.parametric, fits.isoflop
    objectives = {
        "huber": f"sum of Huber losses of log residuals, delta = {options.huber_delta:g}",
        "lad": "sum of absolute log residuals",
        "log_mse": "sum of squared log residuals",
        "linear_mse": "sum of squared residuals of L",
    }
    yield Choice("Objective, Approach 3", objectives[options.objective])
    if isinstance(three, ParametricFit):
        proof = three.certificate
        yield Choice(
            "Optimiser and starts",
            f"Newton's method with exact gradients and Hessians; {share(proof.basin_share)} of {proof.starts} starts end at "
            "the optimum",
        )
        yield Choice(
            "Convergence",
            f"{three.status}: objective {three.objective:.6g}, gradient norm {proof.gradient_norm:.1g}, condition number "
            f"{proof.condition_number:.2g}",
        )
    yield Choice(
        "Approach 1's envelope",
        f"{options.envelope}, {options.envelope_points} points" if _fitted(fits.envelope) else "not fitted",
    )
    yield Choice("Approach 2's minima", "parabolas in log N, refused if concave, at the edge or not bracketed")
    if isinstance(two, IsoflopFit):
        noise = "known" if options.seed_noise is not None else "estimated from the residuals"
        yield Choice(
            "Noise between seeds",
            f"{two.seed_noise:.3g} {loss_unit(fits)}, {noise}" if np.isfinite(two.seed_noise) else UNKNOWN,
        )
    yield Choice(
        "Uncertainty",
        f"{share(fits.level)} intervals from {options.resamples} resamples (seed {options.seed}): of curves for Approach 1, of "
        "losses about the parabolas for 2, of runs (Bayesian bootstrap) for 3",
    )
    ahead = fits.extrapolation
    held = f"each of {0 if isinstance(ahead, LawError) else len(ahead)} budgets predicted from the smaller ones"
    yield Choice("Validation", "no budget could be held out, for the reason above" if isinstance(ahead, LawError) else held)
    yield Choice("Other choices tried", f"{len(fits.sensitivity)} fits, all shown above")


def _fitted(law: EnvelopeFit | IsoflopFit | ParametricFit | LawError) -> bool:
    return not isinstance(law, LawError)
