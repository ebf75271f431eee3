"""A decoder-only Transformer: pre-RMSNorm, SwiGLU, RoPE, no biases (LLaMA, arXiv 2302.13971).

Shape suffixes name the axes of every tensor:

    B batch    T position    D d_model    H query heads    G key/value heads    N all heads, H + 2 G    K head_dim    F d_ff
    V vocabulary
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.config import ModelConfig
from models.dropout import dropped, key_of

MAX_LOGITS = 2**26  # of the head in memory at once: 256 MB in float32
MAX_WHOLE = 4  # layers of a model that is compiled as a whole


class Attention(nn.Module):
    """Causal self-attention with rotary positions and, if `n_kv_heads` is less than `n_heads`, grouped queries.

    Queries, keys and values come from one matrix: small models are limited by the number of kernels, not by their size.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.qkv = nn.Linear(config.d_model, (config.n_heads + 2 * config.n_kv_heads) * config.head_dim, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        B, T, _ = x_BTD.shape
        H, G, K = self.n_heads, self.n_kv_heads, self.head_dim
        qkv_BNTK = self.qkv(x_BTD).view(B, T, H + 2 * G, K).transpose(1, 2)
        # Queries and keys are rotated by the same angles, so one call rotates both.
        qk_BNTK = rotate(qkv_BNTK[:, : H + G], cos_TK, sin_TK)
        y_BHTK = F.scaled_dot_product_attention(
            qk_BNTK[:, :H], qk_BNTK[:, H:], qkv_BNTK[:, H + G :], is_causal=True, enable_gqa=H != G
        )
        return self.out(y_BHTK.transpose(1, 2).reshape(B, T, H * K))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), with the gate and up projections in one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.d_model, 2 * config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate_BTF) * up_BTF)


class Block(nn.Module):
    """One pre-norm residual block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, key_B: Tensor | None = None) -> Tensor:
        branch_BTD = self.attention(normalised(x_BTD, self.attention_norm), cos_TK, sin_TK)
        x_BTD = x_BTD + dropped(branch_BTD, self.dropout, key_B, place=1)
        branch_BTD = self.feed_forward(normalised(x_BTD, self.feed_forward_norm))
        return x_BTD + dropped(branch_BTD, self.dropout, key_B, place=2)


class Transformer(nn.Module):
    """Maps token ids to next-token logits, or to their cross-entropy.

    Weights have no defined values until `initialise` is called, so the module can also be built on the meta device.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        cos_TK, sin_TK = rotary_tables(config.context_length, config.head_dim, config.rope_theta)
        self.register_buffer("cos_TK", cos_TK, persistent=False)
        self.register_buffer("sin_TK", sin_TK, persistent=False)
        self.recompute = False  # activation checkpointing of each block: less memory, more time
        self.residual_dtype = torch.float32  # of the residual stream; its sums round in bfloat16, which needs autocast

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights from `seed`, the same on every device.

        Matrices are normal with variance 1/fan_in. The two projections that write to the residual stream are also scaled by
        1/sqrt(2 n_layers), so that its variance does not grow with depth (GPT-2). An untied embedding has unit variance; a
        tied one has variance 1/d_model, because it is the head too. The head does not start at zero: in models of ten
        thousand parameters that raised the loss, and its dependence on the seed.
        """
        generator = torch.Generator().manual_seed(seed)

        def normal_(weight: Tensor, std: float) -> None:
            weight.copy_(torch.randn(weight.shape, generator=generator) * std)

        residual = 1 / math.sqrt(2 * self.config.n_layers)
        normal_(self.embedding.weight, self.config.d_model**-0.5 if self.config.tied_embeddings else 1.0)
        for block in self.blocks:
            assert isinstance(block, Block)
            normal_(block.attention.qkv.weight, self.config.d_model**-0.5)
            normal_(block.attention.out.weight, self.config.d_model**-0.5 * residual)
            normal_(block.feed_forward.gate_up.weight, self.config.d_model**-0.5)
            normal_(block.feed_forward.down.weight, self.config.d_ff**-0.5 * residual)
        if not self.config.tied_embeddings:
            normal_(self.head.weight, self.config.d_model**-0.5)
        for module in self.modules():
            if isinstance(module, nn.RMSNorm):
                module.weight.fill_(1.0)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        reduction: str = "mean",
        key_B: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token, shape (B, T, V), for at most `context_length` ids; with targets, their `loss`."""
        T = tokens_BT.shape[1]
        cos_TK, sin_TK = self.cos_TK[:T], self.sin_TK[:T]  # type: ignore[index]  # buffers are typed Tensor | Module
        x_BTD = self._embed(tokens_BT, key_B)
        for number, block in enumerate(self.blocks, start=1):
            inputs = (x_BTD, cos_TK, sin_TK) if key_B is None else (x_BTD, cos_TK, sin_TK, key_of(key_B, number))
            if self.recompute and torch.is_grad_enabled():  # dropout draws nothing, so there is no state to preserve
                x_BTD = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BTD = block(*inputs)
        if targets_BT is None:
            return self.head(normalised(x_BTD, self.norm))
        return self._head_loss(x_BTD, targets_BT, reduction)

    def _embed(self, tokens_BT: Tensor, key_B: Tensor | None) -> Tensor:
        x_BTD = dropped(self.embedding(tokens_BT), self.config.dropout, key_B, place=0)
        return x_BTD if self.residual_dtype == torch.float32 else x_BTD.to(self.residual_dtype)

    def _head_loss(self, x_BTD: Tensor, targets_BT: Tensor, reduction: str) -> Tensor:
        hidden_RD = normalised(x_BTD, self.norm).flatten(0, 1)
        loss = head_cross_entropy(hidden_RD, self.head.weight, targets_BT.flatten(), reduction)
        return loss.view_as(targets_BT) if reduction == "none" else loss

    def compile_parts(self) -> None:
        """Have torch.compile make the embedding, the blocks, and what follows them. All blocks are compiled once, so this takes
        as long for any depth. A shallow model is compiled as a whole, which is faster by a few percent.

        The instance's own methods are replaced (mypy's method-assign), so that who calls them need not know."""
        if len(self.blocks) <= MAX_WHOLE:
            self.loss = torch.compile(self.loss, dynamic=False)  # type: ignore[method-assign]
            return
        self._embed = torch.compile(self._embed, dynamic=False)  # type: ignore[method-assign]
        for block in self.blocks:
            block.compile(dynamic=False)
        self._head_loss = torch.compile(self._head_loss, dynamic=False)  # type: ignore[method-assign]

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor, reduction: str = "mean", key_B: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats per token; a scalar, or shape (B, T) with `reduction="none"`. Always in float32. `key_B` are
        the sequences' keys of dropout (`models.dropout.keys`); without them nothing is dropped."""
        return self(tokens_BT, targets_BT, reduction, key_B)  # through __call__, which DDP and FSDP hook into


def normalised(x_BTD: Tensor, norm: nn.Module) -> Tensor:
    """`norm` of the residual stream, shape (B, T, D), in the precision of the norm's gains whatever that of the stream is."""
    return norm(x_BTD.to(norm.weight.dtype))  # type: ignore[arg-type]  # the attributes of modules are typed Tensor | Module


def rotary_tables(context_length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoPE's angles (Su et al. 2021, arXiv 2104.09864), each of shape (T, K).

    The K/2 frequencies occur twice, in the first and in the second half of K: LLaMA's "rotate half" convention.
    """
    frequency_K = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle_TK = torch.outer(torch.arange(context_length, dtype=torch.float64), frequency_K).repeat(1, 2)
    return angle_TK.cos().float(), angle_TK.sin().float()


def rotate(x_BNTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotate each pair (k, k + K/2) of `x_BNTK` by the angle of its position. Keeps the dtype."""
    first, second = x_BNTK.chunk(2, dim=-1)
    rotated_BNTK = torch.cat((-second, first), dim=-1)
    return (x_BNTK * cos_TK + rotated_BNTK * sin_TK).type_as(x_BNTK)


def head_cross_entropy(hidden_RD: Tensor, weight_VD: Tensor, targets_R: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of `hidden_RD @ weight_VD.T` with `targets_R`, in nats, in float32, without all logits in memory at once.

    With a vocabulary of 32 thousand, the logits of a small model take more memory than everything else.

    Args:
        hidden_RD, weight_VD: input and weight of the head, multiplied in autocast's precision if it is enabled. R is the number
            of positions in the batch, B T.
        targets_R: ids.
        reduction: "mean" for a scalar, or "none" for shape (R,), for evaluation only: its backward pass would keep all logits.
    """
    rows = max(1, MAX_LOGITS // len(weight_VD))
    if rows >= len(hidden_RD):
        return F.cross_entropy(logits(hidden_RD, weight_VD).float(), targets_R, reduction=reduction)
    if reduction == "none":
        parts = zip(hidden_RD.split(rows), targets_R.split(rows), strict=True)
        return torch.cat([F.cross_entropy(logits(h, weight_VD).float(), t, reduction="none") for h, t in parts])
    return _ChunkedCrossEntropy.apply(hidden_RD, weight_VD, targets_R, rows)


def logits(hidden_RD: Tensor, weight_VD: Tensor) -> Tensor:
    """`hidden_RD @ weight_VD.T`, shape (R, V). On a GPU its rows are padded to 16 bytes and cut again: tensor cores cannot
    write rows of 257 bfloat16 numbers."""
    V = len(weight_VD)
    padding = -V % 8 if weight_VD.is_cuda else 0
    return F.linear(hidden_RD, F.pad(weight_VD, (0, 0, 0, padding)))[:, :V] if padding else F.linear(hidden_RD, weight_VD)


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
