"""Parameters and FLOPs of a `ModelConfig`, by convention.

The exponent of a scaling law depends on which parameters and FLOPs are counted (Porian et al. 2024, arXiv 2406.19146), so each
convention has a name here and every fit says which one it used.
"""

from collections.abc import Callable
from dataclasses import dataclass

from models.config import ModelConfig

BACKWARD_AND_FORWARD = 3  # a backward pass costs two forward passes (Kaplan et al. 2020, section 2.1)


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Parameters by group. A tied head counts as part of the embedding, once."""

    embedding: int
    attention: int
    feed_forward: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        """Every parameter: Chinchilla's N (arXiv 2203.15556)."""
        return self.embedding + self.non_embedding + self.head

    @property
    def non_embedding(self) -> int:
        """All but the embedding and the head: Kaplan's N (arXiv 2001.08361, section 2.1)."""
        return self.attention + self.feed_forward + self.norm

    def by_convention(self, convention: str) -> int:
        """N under one of `PARAMETER_CONVENTIONS`. Raises ValueError for another name."""
        if convention not in PARAMETER_CONVENTIONS:
            raise ValueError(f"parameter convention {convention!r} is none of {', '.join(PARAMETER_CONVENTIONS)}")
        return getattr(self, convention)


PARAMETER_CONVENTIONS = ("total", "non_embedding")


def count_parameters(config: ModelConfig) -> ParameterCounts:
    """Parameters of `models.transformer.Transformer(config)`, without building it."""
    vocabulary = config.vocab_size * config.d_model
    query_and_out = 2 * config.d_model * config.d_model
    key_and_value = 2 * config.d_model * config.n_kv_heads * config.head_dim
    return ParameterCounts(
        embedding=vocabulary,
        attention=config.n_layers * (query_and_out + key_and_value),
        feed_forward=config.n_layers * 3 * config.d_model * config.d_ff,
        norm=(2 * config.n_layers + 1) * config.d_model,
        head=0 if config.tied_embeddings else vocabulary,
    )


def chinchilla(config: ModelConfig) -> float:
    """Chinchilla's Appendix F for sequences of s tokens, with SwiGLU's three matrices in the dense block.

    The embedding counts as a matrix product, and attention as all s^2 pairs, masked or not.
    """
    s, d, V = config.context_length, config.d_model, config.vocab_size
    heads, kh = config.n_heads, config.n_heads * config.head_dim
    embedding = 2 * s * V * d
    qkv = 2 * s * d * (kh + 2 * config.n_kv_heads * config.head_dim)
    logits = 2 * s * s * kh
    softmax = 3 * heads * s * s
    reduction = 2 * s * s * kh
    projection = 2 * s * kh * d
    dense = 2 * s * 3 * d * config.d_ff
    head = 2 * s * d * V
    forward = embedding + config.n_layers * (qkv + logits + softmax + reduction + projection + dense) + head
    return BACKWARD_AND_FORWARD * forward / s


def exact(config: ModelConfig, *, causal: bool = True) -> float:
    """The matrix products that the module needs: none for the embedding, and attention over unmasked pairs only.

    With `causal=False` attention counts all pairs, as `torch.utils.flop_counter.FlopCounterMode` does.
    """
    counts = count_parameters(config)
    matrices = counts.attention + counts.feed_forward + config.vocab_size * config.d_model
    keys = (config.context_length + 1) / 2 if causal else config.context_length
    attention = 4 * keys * config.n_heads * config.head_dim  # q·k and weights·v, per token and layer
    return BACKWARD_AND_FORWARD * (2.0 * matrices + config.n_layers * attention)


FLOP_CONVENTIONS: dict[str, Callable[[ModelConfig], float]] = {
    "6N": lambda config: 6.0 * count_parameters(config).total,  # the approximation of Chinchilla's analysis, C = 6 N D
    "kaplan": lambda config: 6.0 * count_parameters(config).non_embedding,  # C = 6 N B S (Kaplan et al. 2020)
    "chinchilla": chinchilla,
    "exact": exact,
}


def flops_per_token(config: ModelConfig, convention: str = "6N") -> float:
    """Training FLOPs, forward and backward, per token under one of `FLOP_CONVENTIONS`. Raises ValueError for another name."""
    if convention not in FLOP_CONVENTIONS:
        raise ValueError(f"FLOP convention {convention!r} is none of {', '.join(FLOP_CONVENTIONS)}")
    return FLOP_CONVENTIONS[convention](config)
