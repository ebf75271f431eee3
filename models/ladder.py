"""A family of shapes, one for each width, from a few thousand to a billion parameters."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from models.accounting import count_parameters
from models.config import ModelConfig

MAX_WIDTH = 8192
MAX_OWN = 3e9  # parameters of a user's own body, whose shapes are built to be counted
WIDENING = {"swiglu": 8 / 3, "gelu": 4}  # d_ff / d_model, at which a feed-forward has 8 d_model^2 parameters
# What a shape has from its ladder as it is.
AS_IN_A_SHAPE = (
    "tied_embeddings",
    "rope_theta",
    "dropout",
    "body",
    "norm",
    "feed_forward",
    "position",
    "position_ids",
    "qk_norm",
    "shared",
)


def power_of_two(x: float) -> int:
    """The largest power of two at most `x`, for x >= 1."""
    return 2 ** int(math.log2(x))


@dataclass(frozen=True, kw_only=True)
class SizeLadder:
    """Shapes whose depth, heads and d_ff follow from their width.

    At fixed N the loss hardly depends on the shape (Kaplan et al. 2020, section 3.1). Still, a family whose shape varies
    irregularly with N adds that to the IsoFLOP valley, so this one keeps d_model / n_layers and head_dim constant.

    Attributes:
        vocab_size, context_length, tied_embeddings, rope_theta, dropout, body, norm, feed_forward, position,
            position_ids, qk_norm, shared: as in `ModelConfig`.
        aspect_ratio: d_model / n_layers, as closely as whole layers allow.
        exact_size: `nearest` lets d_ff make up for what the widths leave of N, so that variants of one N have it within a
            fraction of a percent; a body without a feed-forward is as near as its widths are.
        n_layers: the same number of layers, or passes through a shared block, at every width, in place of `aspect_ratio`.
        head_dim: dimension of a head, or the nearest that divides the width. ValueError is raised unless it is a multiple of
            four: widths are multiples of half a head, and must be even for RoPE.
        kv_groups: query heads for each key/value head, where they divide evenly; 1 is multi-head attention.
    """

    vocab_size: int
    context_length: int
    aspect_ratio: float = 16
    head_dim: int = 8
    kv_groups: int = 1
    tied_embeddings: bool = False
    rope_theta: float = 10_000.0
    dropout: float = 0.0
    n_layers: int | None = None
    exact_size: bool = False
    body: str = "transformer"
    norm: str = "rms"
    feed_forward: str = "swiglu"
    position: str = "rope"
    position_ids: int = 1
    qk_norm: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        if self.head_dim < 4 or self.head_dim % 4:
            raise ValueError(f"model.head_dim={self.head_dim} is not a multiple of 4; take 8, 16, 32, 64 or 128")

    def widths(self) -> Iterator[int]:
        """All widths, ascending, in steps of half a head, then of a head, then of about an eighth of the width."""
        width = self.head_dim // 2
        while width <= MAX_WIDTH:
            yield width
            width += self.head_dim // 2 if width < 4 * self.head_dim else max(self.head_dim, power_of_two(width / 8))

    def shape(self, d_model: int) -> ModelConfig:
        """The shape of width `d_model`. d_ff is 8/3 d_model, or 4 d_model of a GELU, rounded to a multiple of a power of two
        that grows with it; a body without attention has one head. Raises ValueError if `d_model` is odd, or a choice does not
        exist."""
        if d_model < 2 or d_model % 2:
            raise ValueError(f"d_model is {d_model}; it must be even for RoPE")
        n_heads = 1
        if self.body == "transformer":
            n_heads = min(
                (heads for heads in range(1, d_model // 2 + 1) if d_model % heads == 0 and d_model // heads % 2 == 0),
                key=lambda heads: abs(math.log(d_model / heads / self.head_dim)),
            )
        multiple = min(64, power_of_two(d_model / 2))
        d_ff = round(WIDENING.get(self.feed_forward, 4) * d_model / multiple) * multiple
        shape = ModelConfig(
            vocab_size=self.vocab_size,
            d_model=d_model,
            n_layers=self.n_layers or max(1, math.floor(d_model / self.aspect_ratio + 0.5)),
            n_heads=n_heads,
            n_kv_heads=n_heads // math.gcd(n_heads, self.kv_groups),
            d_ff=max(multiple, d_ff),
            context_length=self.context_length,
            **{name: getattr(self, name) for name in AS_IN_A_SHAPE},
        )
        return counted(shape)

    def shapes(self) -> tuple[ModelConfig, ...]:
        """All shapes, smallest first."""
        return tuple(shape for _, shape in self.sized())

    def sized(self, convention: str = "total") -> tuple[tuple[int, ModelConfig], ...]:
        """(N, shape) of all shapes, smallest first, with N under a parameter convention."""
        return _sized(self, convention)

    def nearest(self, N: float, convention: str = "total") -> ModelConfig:
        """The shape whose N under a parameter convention is nearest to `N` in ratio, or as `exact_size` says. Raises ValueError
        if `N` is more than a factor of 1.5 outside the ladder, or the convention is unknown."""
        if not (math.isfinite(N) and N > 0):
            raise ValueError(f"a model size of {N} does not exist; ask for a positive number of parameters")
        size, best = min(self.sized(convention), key=lambda sized: abs(math.log(sized[0] / N)))
        if not 1 / 1.5 <= size / N <= 1.5:
            raise ValueError(
                f"no model of {N:,.0f} parameters ({convention}) exists: the nearest shape of this ladder has "
                f"{size:,} (d_model {best.d_model}); ask for a size near that, or change the ladder or the vocabulary"
            )
        return self._filled(N, convention) if self.exact_size and self.body == "transformer" else best

    def _filled(self, N: float, convention: str) -> ModelConfig:
        """The shape with a d_ff that makes `N` parameters, of the width at which this changes d_ff least in ratio."""

        def other(sized: tuple[int, ModelConfig]) -> tuple[float, ModelConfig]:
            size, shape = sized
            per_unit = count_parameters(replace(shape, d_ff=shape.d_ff + 1)).by_convention(convention) - size
            d_ff = max(1, round(shape.d_ff + (N - size) / per_unit))
            return abs(math.log(d_ff / shape.d_ff)), replace(shape, d_ff=d_ff)

        near = (sized for sized in self.sized(convention) if 0.25 <= sized[0] / N <= 4)
        return min(map(other, near), key=lambda pair: pair[0])[1]

    def remark(self, N: float, convention: str = "total") -> str:
        """What there is to say of the shape that `nearest` has for `N`: nothing, unless it is further off than it is between
        two neighbours that are as far apart as is usual on this ladder. Raises ValueError as `nearest`."""
        if self.exact_size and self.body == "transformer":
            return ""
        self.nearest(N, convention)
        sizes = [size for size, _ in self.sized(convention)]
        steps = sorted(math.log(larger / smaller) for smaller, larger in pairwise(sizes))
        got = min(sizes, key=lambda size: abs(math.log(size / N)))
        if abs(math.log(got / N)) <= steps[len(steps) // 2] / 2:
            return ""
        others = sizes[max(0, sizes.index(got) - 1) : sizes.index(got) + 2]
        beside = " and ".join(f"{size:,}" for size in others if size != got)
        return f"N = {N:,.0f} becomes {got:,}, the nearest that a shape of the ladder has; its neighbours have {beside}"


def counted(shape: ModelConfig) -> ModelConfig:
    """`shape` with the numbers of a user's own body, which has to be registered; another shape as it is."""
    if not shape.own_body:
        return shape
    from models.own import measured  # torch is slow to import, and is not needed for other bodies

    return measured(shape)


@lru_cache(maxsize=16)  # a grid looks up thousands of sizes
def _sized(ladder: SizeLadder, convention: str) -> tuple[tuple[int, ModelConfig], ...]:
    sized: list[tuple[int, ModelConfig]] = []
    for shape in map(ladder.shape, ladder.widths()):
        sized.append((count_parameters(shape).by_convention(convention), shape))
        if shape.own_body and sized[-1][0] > MAX_OWN:
            break
    return tuple(sized)
