"""The variants of the body: each does what it is called, learns, and sees no future."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import ModelConfig
from models.blocks import Places, visible
from models.language_model import LanguageModel, Layout

PLAIN = ModelConfig(vocab_size=61, d_model=16, n_layers=3, n_heads=2, n_kv_heads=2, d_ff=40, context_length=24)
BODIES = {
    "layer norm": replace(PLAIN, norm="layer"),
    "gelu": replace(PLAIN, feed_forward="gelu"),
    "learned": replace(PLAIN, position="learned"),
    "none": replace(PLAIN, position="none"),
    "qk_norm": replace(PLAIN, qk_norm=True, n_kv_heads=1),
    "universal": replace(PLAIN, shared=True),
    "lstm": replace(PLAIN, body="lstm"),
}


def model_of(config: ModelConfig) -> LanguageModel:
    model = LanguageModel(config)
    model.initialise(seed=3)
    return model


def ids_of(config: ModelConfig, length: int = 24) -> Tensor:
    return torch.randint(config.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", BODIES)
def test_no_token_sees_the_future_and_every_one_the_past(name: str) -> None:
    model, ids = model_of(BODIES[name]), ids_of(BODIES[name])
    changed = ids.clone()
    changed[:, 10] = (ids[:, 10] + 1) % 61
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert (before[:, 10:] - after[:, 10:]).abs().amax(dim=(0, 2)).min() > 1e-6


@pytest.mark.parametrize("name", BODIES)
def test_it_is_another_function_and_its_weights_depend_on_the_seed_alone(name: str) -> None:
    config, ids = BODIES[name], ids_of(PLAIN)
    torch.manual_seed(5)
    model, again = model_of(config), model_of(config)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in again.state_dict().items())
    assert not torch.allclose(model(ids), model_of(PLAIN)(ids))
    assert model.loss(ids[:, :-1], ids[:, 1:]).item() == pytest.approx(4.1, abs=1.2)  # log 61, and the noise of a new head


@pytest.mark.parametrize("name", BODIES)
def test_every_parameter_has_a_gradient(name: str) -> None:
    model, ids = model_of(BODIES[name]), ids_of(PLAIN)
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_a_shared_block_is_the_unshared_one_with_equal_weights() -> None:
    shared = model_of(replace(PLAIN, shared=True))
    apart = LanguageModel(PLAIN)
    weights = shared.state_dict()
    copies = {
        name.replace("blocks.0.", f"blocks.{layer}."): value
        for layer in range(PLAIN.n_layers)
        for name, value in weights.items()
        if name.startswith("blocks.0.")
    }
    apart.load_state_dict({**weights, **copies})
    torch.testing.assert_close(shared(ids_of(PLAIN)), apart(ids_of(PLAIN)))


def test_layer_norm_gelu_and_learned_positions_against_torch() -> None:
    """GPT-2's block in torch's own words, with biases that are zero."""
    config = replace(PLAIN, norm="layer", feed_forward="gelu", position="learned", n_layers=1)
    model, ids = model_of(config), ids_of(config)
    block = model.blocks[0]
    theirs = nn.TransformerEncoderLayer(
        16, 2, dim_feedforward=40, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    theirs.eval()
    ours = dict(block.named_parameters())
    zeros = {name: torch.zeros_like(value) for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(
        zeros
        | {
            "self_attn.in_proj_weight": ours["attention.qkv.weight"].detach(),
            "self_attn.out_proj.weight": ours["attention.out.weight"].detach(),
            "linear1.weight": ours["feed_forward.up.weight"].detach(),
            "linear2.weight": ours["feed_forward.down.weight"].detach(),
            "norm1.weight": torch.ones(16),
            "norm2.weight": torch.ones(16),
        }
    )
    x = F.embedding(ids, model.embedding.weight) + model.positions[0].weight  # type: ignore[operator]  # of a ModuleList
    mask = nn.Transformer.generate_square_subsequent_mask(24)
    expected = model.head(model.norm(theirs(x, src_mask=mask, is_causal=True)))
    torch.testing.assert_close(model(ids), expected, atol=1e-5, rtol=1e-4)


def test_qk_norm_makes_logits_independent_of_the_scale_of_queries() -> None:
    model, ids = model_of(replace(PLAIN, qk_norm=True)), ids_of(PLAIN)
    before = model(ids)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("qkv.weight"):
                weight[:32] *= 7  # queries and keys
    torch.testing.assert_close(model(ids), before, atol=2e-3, rtol=1e-3)  # up to the norm's epsilon


def test_the_state_of_an_lstm_is_the_recurrence_of_the_paper() -> None:
    config = replace(PLAIN, body="lstm", n_layers=1)
    model, ids = model_of(config), ids_of(config)
    weights = model.state_dict()
    x = model.embedding(ids)
    inputs = F.rms_norm(x, (16,), eps=config.norm_eps)
    assert weights["blocks.0.lstm.bias_ih_l0"].tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 32
    h, c, states = torch.zeros(2, 16), torch.zeros(2, 16), []
    for t in range(24):
        gates = inputs[:, t] @ weights["blocks.0.lstm.weight_ih_l0"].T + h @ weights["blocks.0.lstm.weight_hh_l0"].T
        i, f, g, o = (gates + weights["blocks.0.lstm.bias_ih_l0"]).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    expected = model.head(model.norm(x + torch.stack(states, dim=1)))
    torch.testing.assert_close(model(ids), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_a_layout_in_order_is_no_layout(position: str) -> None:
    """Positions one after another, places within spans that are all zero, and each token seeing itself and those before."""
    config = replace(PLAIN, position=position, position_ids=2)
    model, ids = model_of(config), ids_of(config)
    order = torch.arange(24).expand(2, 24)
    plain = replace(config, position_ids=1)
    same = model(ids, layout=Layout(order, torch.zeros_like(order), order + 1))
    if position == "learned":
        reference = LanguageModel(plain)
        reference.load_state_dict({name: value for name, value in model.state_dict().items() if name != "positions.1.weight"})
        with torch.no_grad():
            model.positions[1].weight.zero_()  # type: ignore[operator]
        same = model(ids, layout=Layout(order, torch.zeros_like(order), order + 1))
        torch.testing.assert_close(same, reference(ids))
    else:  # only every other frequency turns with the position
        again = model(ids, layout=Layout(order, order, order + 1))
        torch.testing.assert_close(again, model(ids))
        assert not torch.allclose(same, again)


def test_what_a_query_sees() -> None:
    assert visible(torch.tensor([[2, 2, 3]])).squeeze().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert Places() == (None, None, None)


def test_shares_of_a_chunked_loss_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = model_of(PLAIN), ids_of(PLAIN)
    share = torch.rand(2, 23, generator=torch.Generator().manual_seed(0))
    results = []
    for most in (2**26, 61 * 5):
        monkeypatch.setattr("models.language_model.MAX_LOGITS", most)
        model.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:], share_BT=share)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    each = model.loss(ids[:, :-1], ids[:, 1:], "none")
    torch.testing.assert_close(results[0][0], (each * share).sum().detach())
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "model.norm is batch; it must be one of rms, layer"),
        ({"body": "mamba"}, "model.body is mamba; it must be transformer, lstm, or FILE.py:Class"),
        ({"body": "lstm", "position": "learned"}, "model.position=learned has no meaning for model.body=lstm; leave it out"),
        ({"body": "lstm", "shared": True}, "model.shared=True has no meaning"),
    ],
)
def test_what_is_no_body(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        replace(PLAIN, **change)
