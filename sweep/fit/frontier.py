"""What the laws are for: how large a model, how many tokens, at what loss and cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.envelope import EnvelopeFit
from sweep.fit.approaches.isoflop import IsoflopFit
from sweep.fit.approaches.parametric import ParametricFit
from sweep.fit.result import Estimate, PowerLaw, positive
from sweep.fit.surface import Surface

Approach: TypeAlias = EnvelopeFit | IsoflopFit | ParametricFit
NAMES = {EnvelopeFit: "envelope", IsoflopFit: "isoflop", ParametricFit: "parametric"}
FAR = 2  # times the largest C fitted
INFERENCE_FLOPS = 2  # per parameter and token: a forward pass


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The compute-optimal run at one budget, by one approach; `loss` is in nats per token. Beyond twice the largest C that was
    fitted Approaches 1 and 2 give no loss: theirs is a power law without E, which ends below any E."""

    approach: str
    C: float
    N: Estimate
    D: Estimate
    tokens_per_parameter: Estimate
    loss: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        names = ("N", "D", "tokens_per_parameter")
        values = {"approach": self.approach, "C": self.C} | {name: getattr(self, name).to_dict() for name in names}
        return values | {"loss": self.loss.to_dict() if self.loss else None}

    def line(self) -> str:
        """For a reader."""
        return (
            f"C = {self.C:.3g}: N = {self.N}, D = {self.D}, {self.tokens_per_parameter} tokens per parameter, "
            f"{f'loss {self.loss}' if self.loss else 'too far for a loss'} ({self.approach})"
        )


def allocate(fit: Approach, budgets: Sequence[float]) -> list[Allocation]:
    """N_opt, D_opt, their ratio and the loss at each of `budgets` FLOPs, with the fit's intervals."""
    rows = []
    for C in map(float, positive("budgets", list(budgets))):
        N, D, loss = _at(fit, C)
        drawn_N, drawn_D, drawn_loss = _replicates_at(fit, C)
        pairs = ((N, drawn_N), (D, drawn_D), (D / N, drawn_D / drawn_N), (loss, drawn_loss))
        estimates = [Estimate.from_resamples(float(value), drawn, fit.level) for value, drawn in pairs]
        rows.append(
            Allocation(
                approach=NAMES[type(fit)],
                C=float(C),
                N=estimates[0],
                D=estimates[1],
                tokens_per_parameter=estimates[2],
                loss=estimates[3] if isinstance(fit, ParametricFit) or FAR * _largest(fit) >= C else None,
            )
        )
    return rows


def allocate_sizes(law: PowerLaw | Surface, sizes: Sequence[float]) -> list[tuple[float, float, float]]:
    """(N, C, D) at which each of `sizes` is optimal, for a law of N_opt in C = 6 N D or a surface."""
    positive("sizes", list(sizes))
    if isinstance(law, Surface):
        return [(float(N), float(C := law.budget_for_size(N)), float(law.compute.tokens(N, C))) for N in sizes]
    budgets = [(N / law.coefficient) ** (1 / law.exponent) for N in sizes]
    return [(float(N), float(C), float(C / (6 * N))) for N, C in zip(sizes, budgets, strict=True)]


def budget_for_loss(fit: ParametricFit, loss: float) -> Estimate:
    """The least C that reaches `loss`.

    Raises:
        LawError: if `loss` is not above E, which no budget reaches.
    """
    C = fit.surface.budget_for_loss(positive("loss", loss))
    if not np.isfinite(C):
        raise LawError("unreachable", f"a loss of {loss:g} is not above E = {fit.E.value:.4g}: no budget reaches it")
    drawn = fit.replicates.budget_for_loss(loss)
    # Where a resample's E is above the target, no budget is enough.
    return Estimate.from_resamples(float(C), np.where(np.isnan(drawn), np.inf, drawn), fit.level)


@dataclass(frozen=True, kw_only=True)
class SizePenalty:
    """What it costs to train `factor` times N_opt.

    Attributes:
        factor: N / N_opt.
        loss: how much higher the loss is at the same C, in nats.
        compute: C needed for the loss of the optimum over the optimum's C; infinite if no D is enough.
    """

    factor: float
    loss: float
    compute: float


def size_penalty(surface: Surface, C: float, factor: float) -> SizePenalty:
    """The penalty for `factor` times N_opt at a budget of `C` FLOPs (Hoffmann et al. 2022's valley, read along both axes)."""
    N_opt, _ = surface.optimal(positive("C", C))
    positive("factor", factor)
    best, N = surface.frontier_loss(C), factor * N_opt
    D = tokens_for_loss(surface, N, best)
    return SizePenalty(
        factor=factor,
        loss=float(surface.predict(N, surface.compute.tokens(N, C)) - best),
        compute=float(surface.compute.flops(N, D) / C),
    )


def tokens_for_loss(surface: Surface, N: Any, loss: Any) -> Any:
    """D that brings `N` parameters to `loss`; infinite where no D does."""
    gap = np.asarray(loss - surface.E - surface.A / N**surface.alpha, dtype=float)
    with np.errstate(over="ignore"):
        return np.where(gap > 0, (surface.B / np.maximum(gap, 1e-300)) ** (1 / surface.beta), np.inf)[()]


@dataclass(frozen=True, kw_only=True)
class LifetimeOptimum:
    """The model that reaches a loss most cheaply over training and use.

    Attributes:
        N, D: parameters and training tokens.
        training, inference: FLOPs of each.
        saving: FLOPs saved in all, as a share of what the training-optimal model of the same loss would take.
    """

    N: float
    D: float
    training: float
    inference: float
    saving: float


def lifetime_optimum(surface: Surface, loss: float, inference_tokens: float) -> LifetimeOptimum:
    """Minimise training + 2 N D_inference FLOPs subject to L(N, D) = `loss` (Sardana et al. 2023, arXiv 2401.00448).

    Raises:
        LawError: if `loss` is not above E.
    """
    from scipy.optimize import minimize_scalar

    if not 0 <= inference_tokens < np.inf:
        raise LawError("bad_option", f"inference_tokens={inference_tokens} is out of range; it must not be negative")
    C = surface.budget_for_loss(positive("loss", loss))
    if not np.isfinite(C):
        raise LawError("unreachable", f"a loss of {loss:g} is not above E = {surface.E:.4g}: no budget reaches it")
    N_train, D_train = surface.optimal(C)

    def cost(log_N: float) -> float:
        N = np.exp(log_N)
        return float(surface.compute.flops(N, tokens_for_loss(surface, N, loss)) + INFERENCE_FLOPS * N * inference_tokens)

    # No smaller model reaches the loss with any number of tokens, and no use makes a larger one worth while.
    smallest = np.log((surface.A / (loss - surface.E)) ** (1 / surface.alpha))
    best = minimize_scalar(cost, bounds=(smallest, np.log(N_train)), method="bounded", options={"xatol": 1e-10})
    N = float(np.exp(best.x))
    D = float(tokens_for_loss(surface, N, loss))
    naive = float(surface.compute.flops(N_train, D_train) + INFERENCE_FLOPS * N_train * inference_tokens)
    return LifetimeOptimum(
        N=N,
        D=D,
        training=float(surface.compute.flops(N, D)),
        inference=INFERENCE_FLOPS * N * inference_tokens,
        saving=float(1 - best.fun / naive),
    )


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a computation takes: hours of one GPU, kWh and kg of CO2."""

    gpu_hours: float
    kWh: float
    kg_CO2: float


def footprint(C: float, *, flops_per_second: float, watts: float, pue: float = 1.1, tonnes_per_MWh: float = 0.385) -> Footprint:
    """Wh = GPU-hours x power x PUE, tCO2eq = MWh x 0.385 (Touvron et al. 2023, arXiv 2302.13971, section 6).

    Args:
        C: FLOPs.
        flops_per_second: that one GPU achieves, not its peak.
        watts: of one GPU.
        pue: power usage effectiveness of the building.
        tonnes_per_MWh: CO2 equivalent of the electricity.
    """
    for name, value in (("C", C), ("flops_per_second", flops_per_second), ("watts", watts), ("pue", pue)):
        positive(name, value)
    hours = C / flops_per_second / 3600
    kWh = hours * watts * pue / 1e3
    return Footprint(gpu_hours=hours, kWh=kWh, kg_CO2=kWh * tonnes_per_MWh)


def _largest(fit: EnvelopeFit | IsoflopFit) -> float:
    """The largest C that was fitted."""
    if isinstance(fit, EnvelopeFit):
        return float(fit.flops[-1])
    return max(profile.C_opt for profile in fit.profiles if profile.status == "converged")


def _at(fit: Approach, C: float) -> tuple[Any, Any, Any]:
    N, D = fit.optimal(C)
    return N, D, fit.surface.frontier_loss(C) if isinstance(fit, ParametricFit) else fit.loss_law(C)


def _replicates_at(fit: Approach, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(fit, ParametricFit):
        with np.errstate(all="ignore"):  # a resample may be without a frontier
            N, D = fit.replicates.optimal(C)
            return N, D, fit.replicates.frontier_loss(C)
    return tuple(fit.replicates[name](C) for name in ("N", "D", "loss"))
