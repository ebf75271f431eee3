"""The shape of one language model."""

from dataclasses import dataclass, field

# What each field may be. A body of a user's own is "Class@hash", see `models.own`.
BODIES = ("transformer", "lstm")
NORMS = ("rms", "layer")
FEED_FORWARDS = ("swiglu", "gelu")
POSITIONS = ("rope", "learned", "none")
CHOICES = {"norm": NORMS, "feed_forward": FEED_FORWARDS, "position": POSITIONS}
OF_A_TRANSFORMER = ("feed_forward", "position", "position_ids", "qk_norm", "shared")  # fields that no other body has a use for


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that determines the module's parameters and the function it computes.

    By default the architecture is LLaMA's (Touvron et al. 2023, arXiv 2302.13971): pre-RMSNorm, SwiGLU, RoPE, no biases. Raises
    ValueError if a size is not positive, heads do not divide evenly, head_dim is odd, or a choice does not exist or has no
    meaning in this body.

    Attributes:
        vocab_size: number of token ids, V.
        d_model: width of the residual stream, D.
        n_layers: number of blocks, or of passes through the one block if it is `shared`.
        n_heads: number of query heads, H; head_dim = d_model / n_heads must be even for RoPE.
        n_kv_heads: number of key/value heads, G; with fewer than `n_heads` this is grouped-query attention.
        d_ff: hidden width of the feed-forward, F.
        context_length: longest sequence, T.
        tied_embeddings: whether the output head shares the weights of the input embedding.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon inside the norms.
        dropout: share of the numbers that training drops from the embeddings and from what each attention and feed-forward adds
            to the residual stream; at least 0 and below 1. See `models.dropout`.
        body: what is between the embedding and the final norm: "transformer", "lstm" (Hochreiter & Schmidhuber 1997, a residual
            stack), or a class of a user's own as "Class@hash of its source".
        norm: "rms" (Zhang & Sennrich 2019), or "layer" with gains and biases (Ba et al. 2016).
        feed_forward: "swiglu" (Shazeer 2020), or "gelu", two matrices as in GPT-2.
        position: "rope" (Su et al. 2021); "learned", a table of T vectors that is added to the embeddings; or "none".
        position_ids: of each token: 1, or 2 as in GLM (Du et al. 2021): where it is, and where within a span that was cut out.
            Learned ones have a table each; of RoPE's frequencies every other one then turns with the second.
        qk_norm: whether the queries and keys of each head are normalised, with gains (Henry et al. 2020).
        shared: whether all layers are passes through one block (universal Transformer, Dehghani et al. 2018; Kaplan et al.
            2020, Fig. 17).
        body_parameters, body_flops: parameters of a user's own body, and the FLOPs per token of its forward pass, measured
            when the run was planned; 0 of other bodies, whose numbers follow from the other fields.
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
    body: str = field(default="transformer", metadata={"later": True})
    norm: str = field(default="rms", metadata={"later": True})
    feed_forward: str = field(default="swiglu", metadata={"later": True})
    position: str = field(default="rope", metadata={"later": True})
    position_ids: int = field(default=1, metadata={"later": True})
    qk_norm: bool = field(default=False, metadata={"later": True})
    shared: bool = field(default=False, metadata={"later": True})
    body_parameters: int = field(default=0, metadata={"later": True})
    body_flops: float = field(default=0.0, metadata={"later": True})

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "context_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {self.dropout}; it must be at least 0 and below 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be one of {', '.join(choices)}")
        if self.body not in BODIES and "@" not in self.body:
            raise ValueError(f"model.body is {self.body}; it must be {', '.join(BODIES)}, or FILE.py:Class")
        if self.body != "transformer":
            self._check_other_body()
        elif self.d_model % self.n_heads or self.head_dim % 2:
            raise ValueError(f"model.n_heads is {self.n_heads}; it must divide d_model = {self.d_model} into an even head_dim")
        elif self.n_heads % self.n_kv_heads:
            raise ValueError(f"model.n_kv_heads is {self.n_kv_heads}; it must divide n_heads = {self.n_heads}")

    def _check_other_body(self) -> None:
        for name in OF_A_TRANSFORMER:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ValueError(f"model.{name}={getattr(self, name)} has no meaning for model.body={self.body}; leave it out")
        if self.own_body and self.dropout:
            raise ValueError(f"model.dropout={self.dropout} does not reach into model.body={self.body}; set it to 0")

    @property
    def own_body(self) -> bool:
        """Whether the body is a user's own."""
        return self.body not in BODIES

    @property
    def head_dim(self) -> int:
        """K, the dimension of one attention head."""
        return self.d_model // self.n_heads
