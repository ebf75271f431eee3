"""What a body is made of: a Transformer's block in its variants, and an LSTM's.

Shape suffixes name the axes of every tensor:

    B batch    T position    D d_model    H query heads    G key/value heads    N all heads, H + 2 G    K head_dim    F d_ff
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.dropout import dropped

Normal = Callable[[Tensor, float], None]  # fills a weight with numbers of a standard deviation


class Places(NamedTuple):
    """Where the tokens of a batch are, for attention.

    Attributes:
        cos, sin: of RoPE's angles, of a shape that broadcasts to (B, heads, T, K); None without RoPE.
        seen_BT: how many keys, from the first on, each query sees; None for causal attention.
    """

    cos: Tensor | None = None
    sin: Tensor | None = None
    seen_BT: Tensor | None = None


class Attention(nn.Module):
    """Self-attention, causal unless `places.seen_BT` says what each query sees; with rotary positions if the shape has them,
    and grouped queries if `n_kv_heads` is less than `n_heads`.

    Queries, keys and values come from one matrix: small models are limited by the number of kernels, not by their size.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.qkv = nn.Linear(config.d_model, (config.n_heads + 2 * config.n_kv_heads) * config.head_dim, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        self.q_norm, self.k_norm = (
            nn.RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None for _ in range(2)
        )

    def forward(self, x_BTD: Tensor, places: Places) -> Tensor:
        B, T, _ = x_BTD.shape
        H, G, K = self.n_heads, self.n_kv_heads, self.head_dim
        qkv_BNTK = self.qkv(x_BTD).view(B, T, H + 2 * G, K).transpose(1, 2)
        qk_BNTK, v_BGTK = qkv_BNTK[:, : H + G], qkv_BNTK[:, H + G :]
        if self.q_norm is not None and self.k_norm is not None:
            q, k = normalised(qk_BNTK[:, :H], self.q_norm), normalised(qk_BNTK[:, H:], self.k_norm)
            qk_BNTK = torch.cat((q, k), dim=1).type_as(v_BGTK)
        if places.cos is not None and places.sin is not None:
            # Queries and keys are rotated by the same angles, so one call rotates both.
            qk_BNTK = rotate(qk_BNTK, places.cos, places.sin)
        mask = None if places.seen_BT is None else visible(places.seen_BT)
        y_BHTK = F.scaled_dot_product_attention(
            qk_BNTK[:, :H], qk_BNTK[:, H:], v_BGTK, attn_mask=mask, is_causal=mask is None, enable_gqa=H != G
        )
        return self.out(y_BHTK.transpose(1, 2).reshape(B, T, H * K))

    def initialise(self, normal_: Normal, scale: float) -> None:
        D = self.out.in_features
        normal_(self.qkv.weight, D**-0.5)
        normal_(self.out.weight, D**-0.5 * scale)


class SwiGLU(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202), with the gate and up projections in one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.d_model, 2 * config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate_BTF) * up_BTF)

    def initialise(self, normal_: Normal, scale: float) -> None:
        normal_(self.gate_up.weight, self.gate_up.in_features**-0.5)
        normal_(self.down.weight, self.down.in_features**-0.5 * scale)


class GELU(nn.Module):
    """Two matrices with a GELU between (Hendrycks & Gimpel 2016), as in GPT-2, without biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD)))

    def initialise(self, normal_: Normal, scale: float) -> None:
        normal_(self.up.weight, self.up.in_features**-0.5)
        normal_(self.down.weight, self.down.in_features**-0.5 * scale)


FEED_FORWARD: dict[str, type[SwiGLU] | type[GELU]] = {"swiglu": SwiGLU, "gelu": GELU}


class Block(nn.Module):
    """One pre-norm residual block of a Transformer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = norm_of(config)
        self.attention = Attention(config)
        self.feed_forward_norm = norm_of(config)
        self.feed_forward: SwiGLU | GELU = FEED_FORWARD[config.feed_forward](config)
        self.dropout = config.dropout

    def forward(self, x_BTD: Tensor, places: Places, key_B: Tensor | None = None) -> Tensor:
        branch_BTD = self.attention(normalised(x_BTD, self.attention_norm), places)
        x_BTD = x_BTD + dropped(branch_BTD, self.dropout, key_B, place=1)
        branch_BTD = self.feed_forward(normalised(x_BTD, self.feed_forward_norm))
        return x_BTD + dropped(branch_BTD, self.dropout, key_B, place=2)

    def initialise(self, normal_: Normal, scale: float) -> None:
        self.attention.initialise(normal_, scale)
        self.feed_forward.initialise(normal_, scale)


class LSTMBlock(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997) on the normalised residual stream, to which its states are added: deep stacks
    then train at the rates of a Transformer. It sees all earlier tokens, and no position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = norm_of(config)
        self.lstm = nn.LSTM(config.d_model, config.d_model, batch_first=True)
        self.dropout = config.dropout

    def forward(self, x_BTD: Tensor, places: Places, key_B: Tensor | None = None) -> Tensor:
        branch_BTD, _ = self.lstm(normalised(x_BTD, self.norm))
        return x_BTD + dropped(branch_BTD, self.dropout, key_B, place=1)

    def initialise(self, normal_: Normal, scale: float) -> None:
        """The states, between -1 and 1, are not scaled. Biases are zero but for the forget gates', which are one (Jozefowicz et
        al. 2015)."""
        D = self.lstm.hidden_size
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight"):
                normal_(parameter, D**-0.5)
            else:
                parameter.zero_()
                parameter[D : 2 * D] = 1 if name.startswith("bias_ih") else 0


def norm_of(config: ModelConfig) -> nn.Module:
    """A norm of the residual stream."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps)


def normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """`norm` of the last axis of `x`, in the precision of the norm's gains whatever that of `x` is."""
    return norm(x.to(norm.weight.dtype))  # type: ignore[arg-type]  # the attributes of modules are typed Tensor | Module


def visible(seen_BT: Tensor) -> Tensor:
    """The mask of attention, shape (B, 1, T, T): query i sees the keys before `seen_BT[:, i]`."""
    return torch.arange(seen_BT.shape[1], device=seen_BT.device) < seen_BT[:, None, :, None]


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
