"""FLOPs against torch's own counter, and the conventions against one another."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import ModelConfig, count_parameters, flops_per_token
from models.accounting import FLOP_CONVENTIONS, exact
from models.language_model import LanguageModel

PLAIN = ModelConfig(vocab_size=61, d_model=16, n_layers=3, n_heads=2, n_kv_heads=2, d_ff=40, context_length=32)
VARIANTS = {
    "layer norm": {"norm": "layer"},
    "gelu": {"feed_forward": "gelu"},
    "learned": {"position": "learned"},
    "two positions": {"position": "learned", "position_ids": 2},
    "none": {"position": "none"},
    "qk_norm": {"qk_norm": True, "n_heads": 4, "n_kv_heads": 2},
    "gpt2": {"norm": "layer", "feed_forward": "gelu", "position": "learned", "tied_embeddings": True},
    "universal": {"shared": True, "n_layers": 5},
    "lstm": {"body": "lstm", "n_heads": 1, "n_kv_heads": 1},
}
SHAPES = [
    ModelConfig(vocab_size=257, d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=40, context_length=32),
    ModelConfig(vocab_size=100, d_model=48, n_layers=3, n_heads=6, n_kv_heads=2, d_ff=128, context_length=64),
    ModelConfig(
        vocab_size=64, d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=96, context_length=9, tied_embeddings=True
    ),
]


ALL = [*SHAPES, *(replace(PLAIN, **changes) for changes in VARIANTS.values())]  # type: ignore[arg-type]  # of several types


@pytest.mark.parametrize("config", ALL)
def test_parameters_are_those_of_the_module(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = LanguageModel(config)
    counts = count_parameters(config)
    groups = {"norm": "norm", "positions": "embedding", "lstm": "recurrent"} | {name: name for name in vars(counts)}
    by_group = dict.fromkeys(vars(counts), 0)
    for name, parameter in model.named_parameters():
        by_group[next(group for word, group in groups.items() if word in name)] += parameter.numel()
    assert by_group == vars(counts)
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())
    assert counts.non_embedding == counts.total - counts.embedding - counts.head


@pytest.mark.parametrize("config", ALL)
def test_exact_flops_are_what_torch_counts(config: ModelConfig) -> None:
    # On the meta device attention decomposes into the products that the counter sees, forward and backward.
    # So do the products of an LSTM, where oneDNN does not make them.
    with torch.device("meta"):
        model = LanguageModel(config)
        tokens = torch.zeros(2, config.context_length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(tokens).sum().backward()
    per_token = counter.get_total_flops() / tokens.numel()
    if config.body == "lstm":  # nobody needs the gradient of the state before the first token
        per_token += config.n_layers * 8 * config.d_model**2 / config.context_length
    assert exact(config, causal=False) == pytest.approx(per_token, rel=1e-12)


def test_every_pass_through_a_shared_block_costs_its_parameters_again() -> None:
    """6 N would be a fifth of what such a body computes."""
    shared = replace(PLAIN, shared=True, n_layers=5)
    alone, apart = replace(PLAIN, n_layers=1), replace(PLAIN, n_layers=5)
    assert count_parameters(shared).total == count_parameters(alone).total
    for convention in FLOP_CONVENTIONS:
        assert flops_per_token(shared, convention) == flops_per_token(apart, convention) > flops_per_token(alone, convention)


def test_a_plain_lstm_by_hand() -> None:
    """Two layers of width 16: 4 gates of 16 inputs, 16 states and two biases, and a gain for each input."""
    config = replace(PLAIN, body="lstm", n_layers=2, n_heads=1, n_kv_heads=1)
    counts = count_parameters(config)
    assert (counts.recurrent, counts.norm) == (2 * 4 * 16 * (16 + 16 + 2), 3 * 16)
    assert exact(config) == 6 * (2 * 4 * 16 * 32 + 61 * 16)


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
