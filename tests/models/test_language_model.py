"""The module against Hugging Face's LLaMA, written independently from the same paper."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models import ModelConfig
from models.language_model import LanguageModel
from sweep.use.export import hugging_face_config, hugging_face_rows, hugging_face_weights

SHAPES = {
    "tiny": ModelConfig(vocab_size=61, d_model=8, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=20, context_length=16),
    "deep": ModelConfig(vocab_size=257, d_model=32, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=80, context_length=64),
    "grouped": ModelConfig(vocab_size=100, d_model=48, n_layers=2, n_heads=6, n_kv_heads=2, d_ff=128, context_length=32),
    "tied": ModelConfig(
        vocab_size=64, d_model=24, n_layers=3, n_heads=2, n_kv_heads=1, d_ff=64, context_length=40, tied_embeddings=True
    ),
    "theta": ModelConfig(
        vocab_size=64, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=96, context_length=50, rope_theta=100.0
    ),
}


def hugging_face_twin(model: LanguageModel) -> LlamaForCausalLM:
    """The same function as a LlamaForCausalLM, by the mapping with which runs are exported."""
    twin = LlamaForCausalLM(LlamaConfig(**hugging_face_config(model.config)))
    missing, unexpected = twin.load_state_dict(hugging_face_weights(model.state_dict(), model.config), strict=False)
    assert missing == (["lm_head.weight"] if model.config.tied_embeddings else [])
    assert not unexpected
    return twin


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_gradients_equal_hugging_face(name: str) -> None:
    config = SHAPES[name]
    model = LanguageModel(config)
    model.initialise(seed=1)
    for parameter in model.parameters():  # gains of one and a mean of zero would hide mistakes
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    twin, rows = hugging_face_twin(model), hugging_face_rows(config)
    tokens = torch.randint(config.vocab_size, (3, config.context_length + 1), generator=torch.Generator().manual_seed(2))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    logits, expected = model(inputs), twin(inputs).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)

    model.loss(inputs, targets).backward()
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    ours = dict(model.named_parameters())
    for parameter_name, parameter in twin.named_parameters():
        source, part = rows[parameter_name]
        gradient = ours[source].grad
        assert gradient is not None
        torch.testing.assert_close(gradient[part], parameter.grad, atol=1e-5, rtol=1e-4)


def test_a_token_does_not_see_the_future() -> None:
    config = SHAPES["deep"]
    model = LanguageModel(config)
    model.initialise(seed=0)
    tokens = torch.randint(config.vocab_size, (1, 20))
    changed = tokens.clone()
    changed[0, 12] = (changed[0, 12] + 1) % config.vocab_size
    before, after = model(tokens)[0], model(changed)[0]
    torch.testing.assert_close(before[:12], after[:12])
    assert (before[12:] - after[12:]).abs().min(dim=1).values.max() > 1e-4


def test_first_loss_is_near_that_of_guessing() -> None:
    config = SHAPES["deep"]
    model = LanguageModel(config)
    model.initialise(seed=0)
    tokens = torch.randint(config.vocab_size, (8, 65))
    # Logits of unit variance add half a nat to ln V.
    assert model.loss(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(math.log(config.vocab_size) + 0.5, abs=0.1)


def test_initialisation_depends_on_the_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = LanguageModel(SHAPES["deep"])
        model.initialise(seed)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    torch.manual_seed(99)
    first = weights(3)
    torch.manual_seed(100)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))


def test_residual_projections_start_smaller_in_deeper_models() -> None:
    def out_std(layers: int) -> float:
        config = ModelConfig(vocab_size=16, d_model=64, n_layers=layers, n_heads=1, n_kv_heads=1, d_ff=64, context_length=8)
        model = LanguageModel(config)
        model.initialise(0)
        return dict(model.named_parameters())["blocks.0.attention.out.weight"].std().item()

    assert out_std(1) / out_std(4) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 3}, "n_heads is 3"),
        ({"n_heads": 32}, "even head_dim"),
        ({"d_ff": 0}, "d_ff is 0"),
        ({"n_kv_heads": 3}, "n_kv_heads is 3"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{**vars(SHAPES["deep"]), **change})
