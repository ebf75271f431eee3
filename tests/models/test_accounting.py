"""FLOPs against torch's own counter, and the conventions against one another."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import ModelConfig, count_parameters, flops_per_token
from models.accounting import exact
from models.transformer import Transformer

SHAPES = [
    ModelConfig(vocab_size=257, d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=40, context_length=32),
    ModelConfig(vocab_size=100, d_model=48, n_layers=3, n_heads=6, n_kv_heads=2, d_ff=128, context_length=64),
    ModelConfig(
        vocab_size=64, d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=96, context_length=9, tied_embeddings=True
    ),
]


@pytest.mark.parametrize("config", SHAPES)
def test_exact_flops_are_what_torch_counts(config: ModelConfig) -> None:
    # On the meta device attention decomposes into the products that the counter sees, forward and backward.
    with torch.device("meta"):
        model = Transformer(config)
        tokens = torch.zeros(2, config.context_length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(tokens).sum().backward()
    per_token = counter.get_total_flops() / tokens.numel()
    assert exact(config, causal=False) == pytest.approx(per_token, rel=1e-12)


def test_causal_attention_counts_the_pairs_on_and_below_the_diagonal() -> None:
    config = SHAPES[0]
    T, width = config.context_length, config.n_heads * config.head_dim
    masked = T * T - sum(position + 1 for position in range(T))
    saved = 3 * config.n_layers * 4 * width * masked / T
    assert exact(config, causal=False) - exact(config) == pytest.approx(saved)


def test_six_n_and_kaplan_differ_by_the_embeddings() -> None:
    config = SHAPES[0]
    counts = count_parameters(config)
    assert flops_per_token(config, "6N") == 6 * counts.total
    assert flops_per_token(config, "kaplan") == 6 * counts.non_embedding
    assert flops_per_token(config, "6N") - flops_per_token(config, "kaplan") == 6 * 2 * config.vocab_size * config.d_model


def test_appendix_f_by_hand() -> None:
    """Every line of Chinchilla's Appendix F for d = 16, 2 layers, 2 heads of 8, f = 40, s = 32, V = 257."""
    forward = 2 * 32 * 257 * 16 + 2 * (
        2 * 3 * 32 * 16 * 16 + 2 * 32 * 32 * 16 + 3 * 2 * 32 * 32 + 2 * 32 * 32 * 16 + 2 * 32 * 16 * 16 + 2 * 32 * 3 * 16 * 40
    ) + 2 * 32 * 16 * 257  # fmt: skip
    assert flops_per_token(SHAPES[0], "chinchilla") == 3 * forward / 32


def test_unknown_conventions_are_refused() -> None:
    with pytest.raises(ValueError, match="7N"):
        flops_per_token(SHAPES[0], "7N")
    with pytest.raises(ValueError, match="most"):
        count_parameters(SHAPES[0]).by_convention("most")
