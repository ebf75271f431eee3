"""AdamW with the settings that all engines share."""

import torch
from torch import Tensor

from models.transformer import Transformer
from sweep.plan.run import RunConfig


def decays(parameter: Tensor) -> bool:
    """Whether a parameter decays: matrices do, gains of norms do not."""
    return parameter.ndim >= 2


def in_order(model: Transformer) -> list[str]:
    """Names of the parameters, in the order of AdamW's state."""
    named = list(model.named_parameters())
    return [name for name, p in named if decays(p)] + [name for name, p in named if not decays(p)]


def build_optimizer(model: Transformer, run: RunConfig, lr: float | Tensor | None = None) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) for `run`, fused; if `lr` is a tensor, a CUDA graph can capture the step."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if decays(p)], "weight_decay": run.optimizer.weight_decay},
        {"params": [p for p in parameters if not decays(p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=run.optimizer.peak_lr if lr is None else lr,
        betas=(run.optimizer.beta1, run.optimizer.beta2),
        eps=run.optimizer.eps,
        fused=True,
        capturable=isinstance(lr, Tensor) and lr.is_cuda,
    )
