"""Dropout whose masks are a function of keys."""

from typing import Any

import numpy as np
import pytest
import torch

from models import ModelConfig
from models.blocks import Places
from models.dropout import dropped, key_of, keys
from models.language_model import LanguageModel

SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 16,
    "n_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 2,
    "d_ff": 40,
    "context_length": 12,
}


def test_a_share_is_dropped_and_the_mean_stays() -> None:
    kept = dropped(torch.ones(64, 32, 48), 0.1, torch.from_numpy(keys(0, 0, 64)), place=1)
    assert sorted(kept.unique().tolist()) == pytest.approx([0, 1 / 0.9])
    assert kept.mean().item() == pytest.approx(1, abs=4 * (0.1 / 0.9 / kept.numel()) ** 0.5)


def test_masks_are_independent_along_every_axis() -> None:
    """Neighbours in the width, positions, sequences, places, steps: each correlation is within four standard errors of zero."""
    ones = torch.ones(64, 32, 48)

    def mask(step: int, place: int) -> torch.Tensor:
        kept = dropped(ones, 0.5, torch.from_numpy(keys(0, step, 64)), place)
        return kept - kept.mean()

    one = mask(0, 1)
    others = [one.roll(1, axis) for axis in range(3)] + [mask(0, 0), mask(0, 2), mask(1, 1)]
    others.append(dropped(ones, 0.5, key_of(torch.from_numpy(keys(0, 0, 64)), 1), 1) - 1)
    for other in others:
        assert abs((one * other).mean().item()) < 4 / one.numel() ** 0.5


def test_keys_are_a_function_of_seed_and_step() -> None:
    np.testing.assert_array_equal(keys(1, 2, 5), keys(1, 2, 5))
    assert (keys(1, 2, 5) != keys(1, 3, 5)).all()
    assert (keys(1, 2, 5) != keys(2, 2, 5)).all()


def test_the_module_drops_embeddings_and_both_branches_and_only_with_keys() -> None:
    """Against the same formula written out in full."""
    model, plain = LanguageModel(ModelConfig(**SHAPE, dropout=0.3)), LanguageModel(ModelConfig(**SHAPE))
    for each in (model, plain):
        each.initialise(0)
    ids, key_B = torch.arange(24).view(2, 12), torch.from_numpy(keys(0, 0, 2))
    torch.testing.assert_close(model(ids), plain(ids), rtol=0, atol=0)

    x = dropped(plain.embedding(ids), 0.3, key_B, 0)
    for number, block in enumerate(plain.blocks, start=1):
        key = key_of(key_B, number)
        places = Places(plain.cos_TK, plain.sin_TK)  # type: ignore  # buffers
        x = x + dropped(block.attention(block.attention_norm(x), places), 0.3, key, 1)  # type: ignore  # of a ModuleList
        x = x + dropped(block.feed_forward(block.feed_forward_norm(x)), 0.3, key, 2)  # type: ignore  # of a ModuleList
    expected = plain.head(plain.norm(x))
    torch.testing.assert_close(model(ids, key_B=key_B), expected)
    assert (expected - plain(ids)).abs().max() > 0.1


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"model.dropout is .* below 1"):
        ModelConfig(**SHAPE, dropout=rate)
