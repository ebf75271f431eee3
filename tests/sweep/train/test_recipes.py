"""Schedules, optimizers and precisions other than the usual: each trained by the engine that can, and as published."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from models.language_model import LanguageModel
from sweep.config import compose
from sweep.data import Corpus
from sweep.errors import InputError
from sweep.plan import cost
from sweep.plan.grid import expand
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.train.engine import Engine, make_engine
from sweep.train.engine.autograd import language_model
from sweep.train.engine.choice import choose_on_cpu
from sweep.train.engine.native import supports
from sweep.train.loop import train
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of

ENGINES = ["eager", "eager, graph"]


def engine(name: str, run: RunConfig) -> Engine:
    return make_engine(name, run, sequences_of(run), device="cpu")


def losses(engine: Engine, steps: int, start: int = 0) -> torch.Tensor:
    return torch.stack([engine.step(step)[0] for step in range(start, start + steps)])


def expanded(*overrides: str) -> list[RunConfig]:
    config = compose(["experiment=smoke", "grid.isoflop.budgets=[1e11]", "grid.isoflop.sizes=1", *overrides])
    return [plan.run for plan in expand(config, corpus="x", vocab_size=257, training_tokens=1e12)]


@pytest.mark.parametrize("shape", ["linear", "constant", "inverse_sqrt", "wsd"])
def test_every_engine_takes_its_rates_from_the_schedule(shape: str) -> None:
    run = run_of(SHAPES[1], peak_lr=1e-3)
    usual = losses(engine("eager", run), 40)
    run = replace(run, schedule=replace(run.schedule, shape=shape))
    assert supports(run) == ""
    expected = losses(engine("eager", run), 40)
    for other in ("native", "eager, graph"):
        torch.testing.assert_close(losses(engine(other, run), 40), expected, rtol=1e-4, atol=0)
    assert (expected - usual).abs().max() > 10 * 1e-4 * usual.max()  # or this would show nothing


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("kind", "reference"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_steps_are_those_of_torchs_optimizer(name: str, kind: str, reference: Callable[..., torch.optim.Optimizer]) -> None:
    """The whole model, in torch's plain loop; a decay so large that where it enters matters."""
    run = run_of(SHAPES[1], kind=kind, weight_decay=3.0)
    model = LanguageModel(run.model)
    model.initialise(0)
    matrices, gains = ([p for p in model.parameters() if (p.ndim == 2) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": 3.0}, {"params": gains, "weight_decay": 0.0}]
    optimizer = reference(groups, betas=(0.9, 0.95), eps=1e-8)
    found = engine(name, run)
    for step, lr in enumerate([0.005, 0.01, 0.01]):  # two steps of warm-up, then the peak
        ids = torch.from_numpy(sequences_of(run).batch(step))
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(found.step(step)[0], loss.detach(), rtol=1e-5, atol=0)
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(found.state()["model"][key], weight, rtol=1e-3, atol=1e-5, msg=key)


def test_without_decay_the_kinds_are_one() -> None:
    one, other = (losses(engine("eager", run_of(SHAPES[1], kind=kind, weight_decay=0.0)), 10) for kind in ("adam", "adamw"))
    assert torch.equal(one, other)


def test_adam_is_not_trained_natively_where_adamw_of_the_shape_was(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    """What is known of a shape's engines is known of one optimizer."""
    assert choose_on_cpu(tiny_run).engine == "native"
    adam = replace(tiny_run, optimizer=replace(tiny_run.optimizer, kind="adam"))
    assert "optimizer.kind" in supports(adam)
    directory = Store(tmp_path).run(adam.run_id)
    assert train(adam, corpus, directory) == "done"
    (start,) = json.loads((directory.path / "provenance.json").read_text())["starts"]
    assert start["engine"] == "eager"
    assert choose_on_cpu(tiny_run).engine == "native"


@pytest.mark.parametrize("name", ENGINES)
def test_bf16_weights_have_no_copy_and_learn(name: str) -> None:
    run = run_of(SHAPES[1], "bf16_weights")
    assert "precision=bf16_weights" in supports(run)
    trained = engine(name, run)
    found = losses(trained, 40)
    assert found[-5:].mean() < found[0] - 0.5
    state = trained.state()
    moments = [each[moment] for each in state["optimizer"]["state"].values() for moment in ("exp_avg", "exp_avg_sq")]
    assert {value.dtype for value in [*state["model"].values(), *moments]} == {torch.bfloat16}
    resumed = engine(name, run)
    resumed.load(deepcopy(trained.state()))  # torch would share the moments
    ids = sequences_of(run).batch(7)
    assert torch.equal(resumed.sequence_losses(ids), trained.sequence_losses(ids))
    assert torch.equal(losses(resumed, 3, start=37), losses(trained, 3, start=37))


def test_bf16_weights_begin_as_the_others_rounded() -> None:
    run = run_of(SHAPES[3], "bf16_weights")  # with tied embeddings
    exact = LanguageModel(run.model)
    exact.initialise(0)
    model = language_model(run)
    model.initialise(0)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, exact.state_dict()[name].bfloat16()), name
    assert model.head.weight is model.embedding.weight
    assert model.cos_TK.dtype == torch.float32


def test_a_small_update_is_lost_without_a_copy() -> None:
    """1 - 1e-3 is 1 in bf16, whose numbers below 1 are 2^-8 apart: gains do not move, and with a copy in fp32 they do."""
    for precision, moved in (("bf16", True), ("bf16_weights", False)):
        run = run_of(SHAPES[1], precision, peak_lr=1e-3)
        trained = engine("eager", run)
        losses(trained, 5)
        assert bool((trained.state()["model"]["norm.weight"] != 1).any()) == moved


def test_bf16_weights_take_half_the_memory() -> None:
    run = run_of(SHAPES[1], "bf16")
    saved = cost.memory_bytes(run, 1) - cost.memory_bytes(replace(run, precision="bf16_weights"), 1)
    assert saved == pytest.approx(cost.BYTES_PER_PARAMETER * run.N / 2)


def test_a_run_of_bf16_weights_is_trained_and_resumed(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run = replace(tiny_run, precision="bf16_weights")
    whole, parts = (Store(tmp_path / name).run(run.run_id) for name in ("whole", "parts"))
    assert train(run, corpus, whole) == "done"
    assert train(run, corpus, parts, should_stop=lambda step: step == 5) == "interrupted"
    assert train(run, corpus, parts) == "done"
    assert parts.curve.read_bytes() == whole.curve.read_bytes()


def test_what_a_run_does_not_use_is_not_in_its_identity() -> None:
    (base,) = expanded()
    defaults = ("schedule.shape=cosine", "schedule.decay_fraction=0.5", "optimizer.kind=adamw")
    assert {run.run_id for override in defaults for run in expanded(override)} == {base.run_id}
    others = [["optimizer.kind=adam"], ["precision=bf16_weights"], ["schedule.shape=wsd"]]
    others += [["schedule.shape=wsd", "schedule.decay_fraction=0.5"]]
    others += [[f"schedule.shape={shape}"] for shape in ("linear", "constant", "inverse_sqrt")]
    assert len({base.run_id} | {expanded(*each)[0].run_id for each in others}) == 1 + len(others)
    (linear,) = expanded("schedule.shape=linear", "schedule.cycle=2")
    assert (linear.schedule.shape, linear.schedule.cycle) == ("linear", 2)
    assert RunConfig.from_dict(linear.to_dict()) == linear


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.shape=wsd", "schedule.cycle=1.5"], "schedule.cycle=1.5 has no meaning for schedule.shape=wsd; set it to 1"),
        (["schedule.shape=constant", "schedule.cycle=2"], "choose schedule.shape=cosine or linear"),
        (["schedule.shape=exponential"], "schedule.shape=exponential is none of cosine, linear, constant, inverse_sqrt, wsd"),
        (["schedule.decay_fraction=0"], "schedule.decay_fraction=0.0 is out of range"),
        (["optimizer.kind=sgd"], "optimizer.kind=sgd is none of adamw, adam"),
    ],
)  # fmt: skip
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expanded(*overrides)
