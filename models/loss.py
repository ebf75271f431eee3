"""Cross-entropy of the head, computed without holding all logits in memory at once.

With a vocabulary of 32 thousand, the logits of a small model take more memory than everything else.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LOGITS = 2**26  # in memory at once: 256 MB in float32


def head_cross_entropy(hidden_RD: Tensor, weight_VD: Tensor, targets_R: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of `hidden_RD @ weight_VD.T` with `targets_R`, in nats, in float32.

    Args:
        hidden_RD, weight_VD: input and weight of the head, multiplied in autocast's precision if it is enabled. R is the number
            of positions in the batch, B T.
        targets_R: ids.
        reduction: "mean" for a scalar, or "none" for shape (R,), for evaluation only: its backward pass would keep all logits.
    """
    rows = max(1, MAX_LOGITS // len(weight_VD))
    if rows >= len(hidden_RD):
        return F.cross_entropy(F.linear(hidden_RD, weight_VD).float(), targets_R, reduction=reduction)
    if reduction == "none":
        parts = zip(hidden_RD.split(rows), targets_R.split(rows), strict=True)
        return torch.cat([F.cross_entropy(F.linear(h, weight_VD).float(), t, reduction="none") for h, t in parts])
    return _ChunkedCrossEntropy.apply(hidden_RD, weight_VD, targets_R, rows)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The mean loss, a few rows at a time. The forward pass also computes the gradients, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden_RD: Tensor, weight_VD: Tensor, targets_R: Tensor, rows: int) -> Tensor:
        device = hidden_RD.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_RD.dtype
        R = len(hidden_RD)
        with torch.autocast(device, enabled=False):
            weight = weight_VD.to(precision)
            d_hidden, d_weight = torch.empty_like(hidden_RD), torch.zeros_like(weight_VD)
            loss = hidden_RD.new_zeros((), dtype=torch.float32)
            for start in range(0, R, rows):
                hidden, targets = hidden_RD[start : start + rows].to(precision), targets_R[start : start + rows]
                log_p = F.log_softmax((hidden @ weight.T).float(), dim=1)
                loss += F.nll_loss(log_p, targets, reduction="sum")
                d_logits = log_p.exp_()
                d_logits[torch.arange(len(targets), device=targets.device), targets] -= 1
                scaled = (d_logits / R).to(precision)
                d_hidden[start : start + rows] = scaled @ weight
                d_weight += scaled.T @ hidden
        ctx.save_for_backward(d_hidden, d_weight)
        return loss / R

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * gradient, d_weight * gradient, None, None
