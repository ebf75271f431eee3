"""Parameters and FLOPs of a `ModelConfig`, by convention.

The exponent of a scaling law depends on which parameters and FLOPs are counted (Porian et al. 2024, arXiv 2406.19146), so each
convention has a name here and every fit says which one it used.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from models.config import ModelConfig

BACKWARD_AND_FORWARD = 3  # a backward pass costs two forward passes (Kaplan et al. 2020, section 2.1)


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Parameters by group. A tied head counts as part of the embedding, once, and so do learned positions;
    `recurrent` are those of a body without attention."""

    embedding: int
    attention: int
    feed_forward: int
    recurrent: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        """Every parameter: Chinchilla's N (arXiv 2203.15556)."""
        return self.embedding + self.non_embedding + self.head

    @property
    def non_embedding(self) -> int:
        """All but the embeddings and the head: Kaplan's N (arXiv 2001.08361, section 2.1)."""
        return self.attention + self.feed_forward + self.recurrent + self.norm

    def by_convention(self, convention: str) -> int:
        """N under one of `PARAMETER_CONVENTIONS`. Raises ValueError for another name."""
        if convention not in PARAMETER_CONVENTIONS:
            raise ValueError(f"parameter convention {convention!r} is none of {', '.join(PARAMETER_CONVENTIONS)}")
        return getattr(self, convention)


PARAMETER_CONVENTIONS = ("total", "non_embedding")
MATRICES = {"swiglu": 3, "gelu": 2}  # of a feed-forward


def count_parameters(config: ModelConfig) -> ParameterCounts:
    """Parameters of `models.language_model.LanguageModel(config)`, without building it."""
    d, vocabulary = config.d_model, config.vocab_size * config.d_model
    norm = d if config.norm == "rms" else 2 * d
    table = config.position_ids * config.context_length * d if config.position == "learned" else 0
    attention = feed_forward = recurrent = norms = 0
    if config.body == "transformer":
        layers = 1 if config.shared else config.n_layers
        attention = layers * (2 * d * d + 2 * d * config.n_kv_heads * config.head_dim)
        feed_forward = layers * MATRICES[config.feed_forward] * d * config.d_ff
        norms = layers * (2 * norm + (2 * config.head_dim if config.qk_norm else 0))
    elif config.body == "lstm":  # four gates, each with a matrix of the input, one of the state, and two biases
        recurrent, norms = config.n_layers * 4 * (2 * d * d + 2 * d), config.n_layers * norm
    else:
        recurrent = config.body_parameters
    return ParameterCounts(
        embedding=vocabulary + table,
        attention=attention,
        feed_forward=feed_forward,
        recurrent=recurrent,
        norm=norms + norm,
        head=0 if config.tied_embeddings else vocabulary,
    )


def count_used(config: ModelConfig) -> ParameterCounts:
    """Parameters, each as often as a token passes through it: those of a shared block once for every pass. 6 N of these is the
    compute of a token, where 6 times the parameters that there are would be too little."""
    return count_parameters(replace(config, shared=False))


def chinchilla(config: ModelConfig) -> float:
    """Chinchilla's Appendix F for sequences of s tokens, with the matrices of this feed-forward in the dense block.

    The embedding counts as a matrix product, and attention as all s^2 pairs, masked or not. The products of a body without
    attention are those of `exact`.
    """
    s, d, V = config.context_length, config.d_model, config.vocab_size
    embedding = head = 2 * s * V * d
    if config.body == "transformer":
        heads, kh = config.n_heads, config.n_heads * config.head_dim
        qkv = 2 * s * d * (kh + 2 * config.n_kv_heads * config.head_dim)
        logits = 2 * s * s * kh
        softmax = 3 * heads * s * s
        reduction = 2 * s * s * kh
        projection = 2 * s * kh * d
        dense = 2 * s * MATRICES[config.feed_forward] * d * config.d_ff
        body: float = config.n_layers * (qkv + logits + softmax + reduction + projection + dense)
    else:
        body = s * _recurrent(config)
    return BACKWARD_AND_FORWARD * (embedding + body + head) / s


def exact(config: ModelConfig, *, causal: bool = True) -> float:
    """The matrix products that the module needs: none for the embedding, and attention over unmasked pairs only.

    With `causal=False` attention counts all pairs, as `torch.utils.flop_counter.FlopCounterMode` does.
    """
    head = 2.0 * config.vocab_size * config.d_model
    if config.body != "transformer":
        return BACKWARD_AND_FORWARD * (head + _recurrent(config))
    used = count_used(config)
    keys = (config.context_length + 1) / 2 if causal else config.context_length
    attention = 4 * keys * config.n_heads * config.head_dim  # q·k and weights·v, per token and layer
    return BACKWARD_AND_FORWARD * (head + 2.0 * (used.attention + used.feed_forward) + config.n_layers * attention)


def _recurrent(config: ModelConfig) -> float:
    """FLOPs of the products of a token's forward pass through an LSTM, or through a user's own body."""
    return config.body_flops if config.own_body else config.n_layers * 2 * 4 * 2 * config.d_model**2


FLOP_CONVENTIONS: dict[str, Callable[[ModelConfig], float]] = {
    "6N": lambda config: 6.0 * count_used(config).total,  # the approximation of Chinchilla's analysis, C = 6 N D
    "kaplan": lambda config: 6.0 * count_used(config).non_embedding,  # C = 6 N B S (Kaplan et al. 2020)
    "chinchilla": chinchilla,
    "exact": exact,
}


def flops_per_token(config: ModelConfig, convention: str = "6N") -> float:
    """Training FLOPs, forward and backward, per token under one of `FLOP_CONVENTIONS`. Raises ValueError for another name."""
    if convention not in FLOP_CONVENTIONS:
        raise ValueError(f"FLOP convention {convention!r} is none of {', '.join(FLOP_CONVENTIONS)}")
    return FLOP_CONVENTIONS[convention](config)
