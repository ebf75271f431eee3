"""The gradient noise scale of McCandlish et al. 2018 (arXiv 1812.06162): how large a batch still pays, from gradients alone."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweep.data import TrainingSequences
from sweep.plan.run import NOISE_SEQUENCES, RunConfig
from sweep.train.engine.autograd import attention, language_model, to_device
from sweep.train.ranks import Parallel


def measure_noise_scale(
    run: RunConfig, state: dict[str, Any], sequences: TrainingSequences, step: int, device: str, parallel: Parallel
) -> dict[str, float]:
    """The noise scale after `step` steps, on the `NOISE_SEQUENCES` sequences that training would see next; see `noise_scale`.

    All ranks make this call; rank 0 measures, and all get the numbers. Gradients are in float32 whatever the run's precision,
    before clipping, and without AdamW's scaling: the "simple" noise scale that Kaplan et al. compare with B_crit.

    Args:
        state: of the engine, as `Engine.state` has it; its weights on rank 0 are used.
    """

    def measure() -> dict[str, float]:
        with torch.random.fork_rng(devices=[]):  # the module draws weights that are replaced at once
            model = language_model(run)
        model.load_state_dict(state["model"])
        model.to(device).residual_dtype = torch.float32
        starts = sequences.starts(step, -(-NOISE_SEQUENCES // run.batch_size)).ravel()[:NOISE_SEQUENCES]
        ids = sequences.tokens[starts[:, None] + np.arange(run.model.context_length + 1)].astype(np.int64)
        with attention(device):
            mean_of_squares, square_of_mean = gradient_squares(model, to_device(ids, device))
        return noise_scale(mean_of_squares, square_of_mean, run.model.context_length, NOISE_SEQUENCES)

    return parallel.on_rank0(measure)


def gradient_squares(model: Any, ids_KS: Tensor) -> tuple[float, float]:
    """The mean of |g|^2 over the gradients g of K sequences, and the square of the norm of their mean; ids (K, T + 1)."""
    parameters = list(model.parameters())
    total, squares = torch.zeros(sum(p.numel() for p in parameters), device=ids_KS.device), []
    for ids_S in ids_KS:
        loss = model.loss(ids_S[None, :-1], ids_S[None, 1:])
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        squares.append(gradient.double().square().sum())
        total += gradient
    return torch.stack(squares).mean().item(), (total.double() / len(ids_KS)).square().sum().item()


def noise_scale(mean_of_squares: float, square_of_mean: float, tokens: int, count: int) -> dict[str, float]:
    """Unbiased estimates from `count` gradients of `tokens` tokens each (McCandlish et al., appendix A.1): B_small = tokens and
    B_big = count * tokens.

    Returns:
        grad_sq, |G|^2 = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small), the true gradient's squared norm, which
        may come out negative where noise hides it; grad_var, S = (|G_small|^2 - |G_big|^2) / (1 / B_small - 1 / B_big), the
        trace of the covariance of one token's gradient; and where grad_sq is positive noise_scale, their ratio S / |G|^2 in
        tokens. A ratio of noisy values is biased: average both over points first, as `sweep.compare.experiments.batch` does.
    """
    big = count * tokens
    grad_sq = (big * square_of_mean - tokens * mean_of_squares) / (big - tokens)
    grad_var = (mean_of_squares - square_of_mean) / (1 / tokens - 1 / big)
    ratio = {"noise_scale": grad_var / grad_sq} if grad_sq > 0 else {}
    return {"grad_sq": grad_sq, "grad_var": grad_var, **ratio}
