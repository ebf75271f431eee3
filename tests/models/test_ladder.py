"""The size ladder from 2 thousand to a billion parameters."""

import math

import numpy as np
import pytest

from models import ModelConfig, SizeLadder, count_parameters

LADDER = SizeLadder(vocab_size=257, context_length=128)


def test_it_spans_two_thousand_to_a_billion_in_small_steps() -> None:
    sizes = np.array([count_parameters(shape).total for shape in LADDER.shapes()])
    assert sizes[0] < 2_500
    assert sizes[-1] > 1e9
    steps = sizes[1:] / sizes[:-1]
    assert (steps > 1).all()
    assert steps.max() < 2.2  # where a second or third layer comes in
    assert np.median(steps) < 1.4


def test_shapes_keep_their_proportions() -> None:
    for shape in LADDER.shapes():
        if shape.d_model >= 32:
            assert shape.head_dim == 8
            assert shape.d_model / shape.n_layers == pytest.approx(16, rel=0.2)
            assert shape.d_ff / shape.d_model == pytest.approx(8 / 3, rel=0.07)
        assert shape.head_dim % 2 == 0


@pytest.mark.parametrize("convention", ["total", "non_embedding"])
@pytest.mark.parametrize("N", [5e3, 3e4, 1e6, 3e7, 1e9])
def test_nearest_is_nearest(N: float, convention: str) -> None:
    def distance(shape: ModelConfig) -> float:
        return abs(math.log(count_parameters(shape).by_convention(convention) / N))

    nearest = LADDER.nearest(N, convention)
    assert distance(nearest) == min(map(distance, LADDER.shapes()))
    assert distance(nearest) < math.log(1.4)


def test_a_size_between_shapes_is_remarked_upon() -> None:
    """Unless it is as near to one as sizes mostly are."""
    sizes = [N for N, _ in LADDER.sized()]
    middle, near = math.sqrt(sizes[0] * sizes[1]) * 1.001, sizes[5] * 1.05
    assert LADDER.remark(middle) == (
        f"N = {middle:,.0f} becomes {sizes[1]:,}, the nearest that a shape of the ladder has; "
        f"its neighbours have {sizes[0]:,} and {sizes[2]:,}"
    )
    assert LADDER.remark(near) == ""
    told = [bool(LADDER.remark(N)) for N in np.geomspace(sizes[-20], sizes[-1], 200)]
    assert 0 < sum(told) < len(told) / 2


@pytest.mark.parametrize("N", [100, 1e15, 0, -5, float("nan")])
def test_sizes_that_do_not_exist_are_refused(N: float) -> None:
    with pytest.raises(ValueError, match="exist"):
        LADDER.nearest(N)


def test_grouped_queries_share_heads_where_they_divide() -> None:
    ladder = SizeLadder(vocab_size=257, context_length=128, head_dim=64, aspect_ratio=64, kv_groups=4)
    assert ladder.shape(512).n_kv_heads == 2
    assert ladder.shape(192).n_kv_heads == 3  # three heads: nothing to share evenly by four


@pytest.mark.parametrize(
    "variant", [{}, {"feed_forward": "gelu"}, {"position": "learned"}, {"shared": True}, {"norm": "layer"}]
)
@pytest.mark.parametrize("convention", ["total", "non_embedding"])
def test_with_exact_size_variants_have_one_size(variant: dict, convention: str) -> None:
    ladder = SizeLadder(vocab_size=257, context_length=128, exact_size=True, **variant)
    for N in (2.2e4, 1e5, 3e7):
        shape = ladder.nearest(N, convention)
        assert count_parameters(shape).by_convention(convention) == pytest.approx(N, rel=0.005)
        assert 0.4 < shape.d_ff / ladder.shape(shape.d_model).d_ff < 2.5
        assert ladder.remark(N, convention) == ""


def test_all_widths_may_have_the_same_number_of_layers() -> None:
    shapes = SizeLadder(vocab_size=257, context_length=128, n_layers=6, shared=True).shapes()
    assert {shape.n_layers for shape in shapes} == {6}
    assert count_parameters(shapes[9]).attention == 4 * shapes[9].d_model ** 2  # of one block
