"""What other choices than the optimum cost: another size, use after training, hours, energy and CO2."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.result import positive
from sweep.fit.surface import Surface

INFERENCE_FLOPS = 2  # per parameter and token: a forward pass


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
        saving: FLOPs saved in all, as a share of those of the training-optimal model with the same loss.
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

    # No smaller model reaches the loss with any number of tokens, and no amount of use makes a larger one worth its cost.
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
    """What a computation takes: GPU-hours, kWh and kg of CO2."""

    gpu_hours: float
    kWh: float
    kg_CO2: float


def footprint(C: float, *, flops_per_second: float, watts: float, pue: float = 1.1, tonnes_per_MWh: float = 0.385) -> Footprint:
    """Wh = GPU-hours x power x PUE, tCO2eq = MWh x 0.385 (Touvron et al. 2023, arXiv 2302.13971, section 6).

    Args:
        C: FLOPs.
        flops_per_second: achieved by one GPU, not its peak.
        watts: of one GPU.
        pue: power usage effectiveness of the building.
        tonnes_per_MWh: CO2 equivalent of the electricity.
    """
    for name, value in (("C", C), ("flops_per_second", flops_per_second), ("watts", watts), ("pue", pue)):
        positive(name, value)
    hours = C / flops_per_second / 3600
    kWh = hours * watts * pue / 1e3
    return Footprint(gpu_hours=hours, kWh=kWh, kg_CO2=kWh * tonnes_per_MWh)
