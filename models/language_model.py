"""A language model: an embedding, a body, a norm and a head, and its loss. By default a decoder-only Transformer with
pre-RMSNorm, SwiGLU, RoPE and no biases (LLaMA, arXiv 2302.13971).

Shape suffixes are those of `models.blocks`, and V vocabulary, R rows (positions of a batch).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks import Block, LSTMBlock, Places, norm_of, normalised, rotary_tables
from models.config import ModelConfig
from models.dropout import dropped, key_of
from models.own import OwnBlock

MAX_LOGITS = 2**26  # of the head in memory at once: 256 MB in float32
MAX_WHOLE = 4  # layers of a model that is compiled as a whole


class Layout(NamedTuple):
    """Where each token of a batch is, if not one after another: positions, shape (B, T), the places within cut-out spans, shape
    (B, T), and how many tokens each one sees, from the first on, shape (B, T). See `models.config.ModelConfig.position_ids`."""

    position_BT: Tensor
    within_BT: Tensor
    seen_BT: Tensor


class LanguageModel(nn.Module):
    """Maps token ids to next-token logits, or to their cross-entropy.

    Weights have no defined values until `initialise` is called, so the module can also be built on the meta device. Raises
    LookupError if the body is a user's own and `models.own` does not have it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        tables = config.position_ids if config.position == "learned" else 0
        self.positions = nn.ModuleList(nn.Embedding(config.context_length, config.d_model) for _ in range(tables))
        self.blocks = nn.ModuleList(body_of(config))
        self.norm = norm_of(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        if config.body == "transformer" and config.position == "rope":
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
        tied one has variance 1/d_model, because it is the head too; learned positions have a tenth of its standard deviation.
        The head does not start at zero: in models of ten thousand parameters that raised the loss, and its dependence on the
        seed. A user's own body has the weights that its class draws.
        """
        generator = torch.Generator().manual_seed(seed)

        def normal_(weight: Tensor, std: float) -> None:
            weight.copy_(torch.randn(weight.shape, generator=generator) * std)

        for module in self.modules():
            if isinstance(module, nn.RMSNorm | nn.LayerNorm):
                module.reset_parameters()
        embedding_std = self.config.d_model**-0.5 if self.config.tied_embeddings else 1.0
        normal_(self.embedding.weight, embedding_std)
        for block in self.blocks:
            assert isinstance(block, Block | LSTMBlock | OwnBlock)
            block.initialise(normal_, 1 / math.sqrt(2 * self.config.n_layers))
        if not self.config.tied_embeddings:
            normal_(self.head.weight, self.config.d_model**-0.5)
        for table in self.positions:
            assert isinstance(table, nn.Embedding)
            normal_(table.weight, 0.1 * embedding_std)

    def forward(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor | None = None,
        reduction: str = "mean",
        key_B: Tensor | None = None,
        layout: Layout | None = None,
        share_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token, shape (B, T, V), for at most `context_length` ids; with targets, their `loss`."""
        places = self._places(tokens_BT.shape[1], layout)
        x_BTD = self._embed(tokens_BT, key_B, layout)
        for number, block in enumerate(self._passes(), start=1):
            inputs = (x_BTD, places) if key_B is None else (x_BTD, places, key_of(key_B, number))
            if self.recompute and torch.is_grad_enabled():  # dropout draws nothing, so there is no state to preserve
                x_BTD = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BTD = block(*inputs)
        if targets_BT is None:
            return self.head(normalised(x_BTD, self.norm))
        return self._head_loss(x_BTD, targets_BT, reduction, share_BT)

    def _passes(self) -> Iterator[nn.Module]:
        """The blocks, in the order in which a token passes through them."""
        return (block for _ in range(self.config.n_layers if self.config.shared else 1) for block in self.blocks)

    def _places(self, T: int, layout: Layout | None) -> Places:
        cos, sin = getattr(self, "cos_TK", None), getattr(self, "sin_TK", None)
        if cos is None or sin is None:
            return Places(seen_BT=None if layout is None else layout.seen_BT)
        if layout is None:
            return Places(cos[:T], sin[:T])
        # (B, 1, T, K): every other frequency turns with the place within a span.
        within = torch.arange(self.config.head_dim, device=cos.device) % (self.config.head_dim // 2) % 2 == 1
        cos, sin = (
            torch.where(within, table[layout.within_BT], table[layout.position_BT]).unsqueeze(1) for table in (cos, sin)
        )
        return Places(cos, sin, layout.seen_BT)

    def _embed(self, tokens_BT: Tensor, key_B: Tensor | None, layout: Layout | None = None) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if self.positions:
            ids = (torch.arange(tokens_BT.shape[1], device=tokens_BT.device),) if layout is None else layout[:2]
            for table, at in zip(self.positions, ids, strict=False):  # text in order has no places within spans
                x_BTD = x_BTD + table(at)
        x_BTD = dropped(x_BTD, self.config.dropout, key_B, place=0)
        return x_BTD if self.residual_dtype == torch.float32 else x_BTD.to(self.residual_dtype)

    def _head_loss(self, x_BTD: Tensor, targets_BT: Tensor, reduction: str, share_BT: Tensor | None = None) -> Tensor:
        hidden_RD = normalised(x_BTD, self.norm).flatten(0, 1)
        share_R = None if share_BT is None else share_BT.flatten()
        loss = head_cross_entropy(hidden_RD, self.head.weight, targets_BT.flatten(), reduction, share_R)
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

    def loss(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        reduction: str = "mean",
        key_B: Tensor | None = None,
        layout: Layout | None = None,
        share_BT: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy in nats per token; a scalar, or shape (B, T) with `reduction="none"`. Always in float32.

        `key_B` are the sequences' keys of dropout (`models.dropout.keys`); without them nothing is dropped. Tokens are one
        after another, and each sees those before it, unless there is a `layout`. The mean is over all targets; with
        `share_BT` it is the sum of the losses times that."""
        return self(tokens_BT, targets_BT, reduction, key_B, layout, share_BT)  # by __call__, which DDP and FSDP hook into


def body_of(config: ModelConfig) -> list[nn.Module]:
    """The blocks of a body, each once. Raises LookupError as `LanguageModel`."""
    if config.own_body:
        return [OwnBlock(config)]
    kind = Block if config.body == "transformer" else LSTMBlock
    return [kind(config) for _ in range(1 if config.shared else config.n_layers)]


def head_cross_entropy(
    hidden_RD: Tensor, weight_VD: Tensor, targets_R: Tensor, reduction: str = "mean", share_R: Tensor | None = None
) -> Tensor:
    """Cross-entropy of `hidden_RD @ weight_VD.T` with `targets_R`, in nats, in float32, without all logits in memory at once.

    With a vocabulary of 32 thousand, the logits of a small model take more memory than everything else.

    Args:
        hidden_RD, weight_VD: input and weight of the head, multiplied in autocast's precision if it is enabled. R is the number
            of positions in the batch, B T.
        targets_R: ids.
        reduction: "mean" for a scalar, or "none" for shape (R,), for evaluation only: its backward pass would keep all logits.
        share_R: of each row in a weighted sum, in place of the mean.
    """
    rows = max(1, MAX_LOGITS // len(weight_VD))
    if rows >= len(hidden_RD):
        scores_RV = logits(hidden_RD, weight_VD).float()
        if share_R is None or reduction == "none":
            return F.cross_entropy(scores_RV, targets_R, reduction=reduction)
        return (F.cross_entropy(scores_RV, targets_R, reduction="none") * share_R).sum()
    if reduction == "none":
        parts = zip(hidden_RD.split(rows), targets_R.split(rows), strict=True)
        return torch.cat([F.cross_entropy(logits(h, weight_VD).float(), t, reduction="none") for h, t in parts])
    return _ChunkedCrossEntropy.apply(hidden_RD, weight_VD, targets_R, rows, share_R)


def logits(hidden_RD: Tensor, weight_VD: Tensor) -> Tensor:
    """`hidden_RD @ weight_VD.T`, shape (R, V). On a GPU its rows are padded to 16 bytes and cut again: tensor cores cannot
    write rows of 257 bfloat16 numbers."""
    V = len(weight_VD)
    padding = -V % 8 if weight_VD.is_cuda else 0
    return F.linear(hidden_RD, F.pad(weight_VD, (0, 0, 0, padding)))[:, :V] if padding else F.linear(hidden_RD, weight_VD)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The mean loss, or the sum of the rows' shares, a few rows at a time. The forward pass also computes the gradients."""

    @staticmethod
    def forward(ctx: Any, hidden_RD: Tensor, weight_VD: Tensor, targets_R: Tensor, rows: int, share_R: Tensor | None) -> Tensor:
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
                share = None if share_R is None else share_R[start : start + rows]
                loss += _weighted(F.nll_loss(log_p, targets, reduction="none"), share, R).sum()
                d_logits = log_p.exp_()
                d_logits[torch.arange(len(targets), device=targets.device), targets] -= 1
                scaled = _weighted(d_logits, None if share is None else share[:, None], R).to(precision)
                d_hidden[start : start + rows] = scaled @ weight
                d_weight += scaled.T @ hidden
        ctx.save_for_backward(d_hidden, d_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * gradient, d_weight * gradient, None, None, None


def _weighted(x: Tensor, share: Tensor | None, R: int) -> Tensor:
    return x / R if share is None else x * share
