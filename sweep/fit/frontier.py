"""What the laws are for: how large a model, on how many tokens, at what loss; and what other choices than the optimum cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches import Approach
from sweep.fit.result import Estimate, PowerLaw, Record, positive
from sweep.fit.surface import Surface, SurfaceLaw

MOST_TOKENS, STEPS = 1e4, 200  # times the optimal D: more are not worth asking for; and how finely it is searched
INFERENCE_FLOPS = 2  # per parameter and token: a forward pass


@dataclass(frozen=True, kw_only=True)
class Allocation(Record):
    """The compute-optimal run at one budget, by one approach; `loss` is in nats per token, and None beyond the budgets to which
    Approaches 1 and 2 were fitted; `training_loss` says that it is one, which no other approach's loss is compared with."""

    approach: str
    C: float
    N: Estimate
    D: Estimate
    tokens_per_parameter: Estimate
    loss: Estimate | None
    training_loss: bool = False

    def line(self) -> str:
        kind = "training loss" if self.training_loss else "loss"
        return (
            f"C = {self.C:.3g}: N = {self.N}, D = {self.D}, {self.tokens_per_parameter} tokens per parameter, "
            f"{f'{kind} {self.loss}' if self.loss else 'no law of the loss there'} ({self.approach})"
        )


def allocate(fit: Approach, budgets: Sequence[float]) -> list[Allocation]:
    """N_opt, D_opt, their ratio and the loss at each of `budgets` FLOPs, with the fit's intervals."""
    rows = []
    for C in map(float, positive("budgets", list(budgets))):
        (N, D), loss = fit.optimal(C), fit.optimal_loss(C)
        drawn_N, drawn_D, drawn_loss = fit.resampled_at(C)
        pairs = ((N, drawn_N), (D, drawn_D), (D / N, drawn_D / drawn_N), (loss, drawn_loss))
        of_N, of_D, ratio, of_loss = (Estimate.from_resamples(float(value), drawn, fit.level) for value, drawn in pairs)
        believed = of_loss if fit.reach >= C else None
        found = Allocation(approach=fit.name, C=C, N=of_N, D=of_D, tokens_per_parameter=ratio, loss=believed)
        rows.append(replace(found, training_loss=fit.reads_curves))
    return rows


def allocate_sizes(law: PowerLaw | Surface, sizes: Sequence[float]) -> list[tuple[float, float, float]]:
    """(N, C, D) at which each of `sizes` is optimal, for a law of N_opt in C = 6 N D or a surface."""
    positive("sizes", list(sizes))
    if isinstance(law, Surface):
        return [(float(N), float(C := law.budget_for_size(N)), float(law.compute.tokens(N, C))) for N in sizes]
    budgets = [(N / law.coefficient) ** (1 / law.exponent) for N in sizes]
    return [(float(N), float(C), float(C / (6 * N))) for N, C in zip(sizes, budgets, strict=True)]


def budget_for_loss(fit: SurfaceLaw, loss: float) -> Estimate:
    """The least C that reaches `loss`. Raises LawError if `loss` is not above E, which no budget reaches."""
    C = fit.surface.budget_for_loss(positive("loss", loss))
    if not np.isfinite(C):
        raise LawError("unreachable", f"a loss of {loss:g} is not above E = {fit.surface.E:.4g}: no budget reaches it")
    drawn = fit.replicates.budget_for_loss(loss)
    # Where a resample's E is above the target, no budget is enough.
    return Estimate.from_resamples(float(C), np.where(np.isnan(drawn), np.inf, drawn), fit.level)


@dataclass(frozen=True, kw_only=True)
class SizePenalty(Record):
    """What it costs to train `factor` times N_opt.

    Attributes:
        factor: N / N_opt.
        approach: whose law says so.
        loss: how much higher the loss is at the same C, in nats.
        compute: C needed for the loss of the optimum over the optimum's C; infinite if no D is enough.
    """

    factor: float
    approach: str
    loss: Estimate
    compute: float

    def line(self) -> str:
        compute = f"{self.compute - 1:.0%} more compute" if np.isfinite(self.compute) else "no compute is enough"
        return f"{self.factor:g} x N_opt: loss +{self.loss}, or {compute} for the same loss ({self.approach})"


def size_penalty(fit: Approach, C: float, factor: float) -> SizePenalty:
    """The penalty for `factor` times N_opt at a budget of `C` FLOPs (Hoffmann et al. 2022's valley, read along both axes), by
    the profiles of Approach 2 or the surface of Approach 3. Raises LawError if `C` or `factor` is not positive, or another
    approach is asked."""
    from scipy.optimize import brentq

    N = positive("factor", factor) * fit.optimal(C)[0]
    best, D = float(fit.optimal_loss(C)), float(fit.optimal(C)[1])

    def above(log_D: float) -> float:
        return float(fit.predict(N, np.exp(log_D))) - best

    tokens = np.linspace(0, np.log(MOST_TOKENS), STEPS) + np.log(D / factor)
    enough = next((i for i, log_D in enumerate(tokens) if above(log_D) <= 0), None)
    more = np.inf if enough is None else 1.0
    if enough:
        more = float(np.exp(brentq(above, tokens[enough - 1], tokens[enough]) - tokens[0]))
    return SizePenalty(factor=factor, approach=fit.name, loss=fit.penalty(C, factor), compute=more)


@dataclass(frozen=True, kw_only=True)
class LifetimeOptimum(Record):
    """The model that reaches a loss most cheaply over training and use.

    Attributes:
        N, D: parameters and training tokens.
        training, inference: FLOPs of each.
        saving: FLOPs saved in all, as a share of those of the training-optimal model with the same loss.
    """

    N: float
    D: float
    training: float
    inference: float
    saving: float


def lifetime_optimum(surface: Surface, loss: float, inference_tokens: float) -> LifetimeOptimum:
    """Minimise training + 2 N D_inference FLOPs subject to L(N, D) = `loss` (Sardana et al. 2023, arXiv 2401.00448). Raises
    LawError if `loss` is not above E."""
    from scipy.optimize import minimize_scalar

    if not 0 <= inference_tokens < np.inf:
        raise LawError("bad_option", f"inference_tokens={inference_tokens} is out of range; it must not be negative")
    C = surface.budget_for_loss(positive("loss", loss))
    if not np.isfinite(C):
        raise LawError("unreachable", f"a loss of {loss:g} is not above E = {surface.E:.4g}: no budget reaches it")
    N_train, D_train = surface.optimal(C)

    def cost(log_N: float) -> float:
        N = np.exp(log_N)
        return float(surface.compute.flops(N, surface.tokens_for_loss(N, loss)) + INFERENCE_FLOPS * N * inference_tokens)

    # No smaller model reaches the loss with any number of tokens, and no amount of use makes a larger one worth its cost.
    smallest = np.log((surface.A / (loss - surface.E)) ** (1 / surface.alpha))
    best = minimize_scalar(cost, bounds=(smallest, np.log(N_train)), method="bounded", options={"xatol": 1e-10})
    N = float(np.exp(best.x))
    D = float(surface.tokens_for_loss(N, loss))
    naive = float(surface.compute.flops(N_train, D_train) + INFERENCE_FLOPS * N_train * inference_tokens)
    return LifetimeOptimum(
        N=N,
        D=D,
        training=float(surface.compute.flops(N, D)),
        inference=INFERENCE_FLOPS * N * inference_tokens,
        saving=float(1 - best.fun / naive),
    )


def use_that_pays(surface: Surface, N: Any, D: Any) -> Any:
    """The tokens of use for which (`N`, `D`) is the cheapest way to its loss over training and use: `lifetime_optimum`
    the other way round. Negative where a smaller model is cheaper however little it is used, for `N` is above the
    training-optimal size.

    Over the D(N) of that loss, kappa N^eta D(N) + 2 N D_inference is stationary at `N`; its log is convex in log N.
    """
    slopes = surface.alpha * surface.A / N**surface.alpha, surface.beta * surface.B / D**surface.beta
    return surface.compute.flops(N, D) / (INFERENCE_FLOPS * N) * (slopes[0] / slopes[1] - surface.compute.eta)
