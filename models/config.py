"""The shape of one decoder-only Transformer."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that determines the module's parameters and the function it computes.

    The architecture is LLaMA's (Touvron et al. 2023, arXiv 2302.13971): pre-RMSNorm, SwiGLU, RoPE, no biases. Raises ValueError
    if a size is not positive, heads do not divide evenly, or head_dim is odd.

    Attributes:
        vocab_size: number of token ids, V.
        d_model: width of the residual stream, D.
        n_layers: number of blocks.
        n_heads: number of query heads, H; head_dim = d_model / n_heads must be even for RoPE.
        n_kv_heads: number of key/value heads, G; with fewer than `n_heads` this is grouped-query attention.
        d_ff: hidden width of the SwiGLU, F.
        context_length: longest sequence, T.
        tied_embeddings: whether the output head shares the weights of the input embedding.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon inside RMSNorm.
        dropout: share of the numbers that training drops from the embeddings and from what each attention and feed-forward adds
            to the residual stream; at least 0 and below 1. See `models.dropout`.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    context_length: int
    tied_embeddings: bool = False
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    dropout: float = field(default=0.0, metadata={"later": True})

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "context_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.d_model % self.n_heads or self.head_dim % 2:
            raise ValueError(f"model.n_heads is {self.n_heads}; it must divide d_model = {self.d_model} into an even head_dim")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"model.n_kv_heads is {self.n_kv_heads}; it must divide n_heads = {self.n_heads}")

    @property
    def head_dim(self) -> int:
        """K, the dimension of one attention head."""
        return self.d_model // self.n_heads
