"""Which engine trains on a CPU: the native one only where it computes what the model computes, and is faster."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models.blocks
from models import ModelConfig
from models.blocks import Attention, Block, Places, SwiGLU
from models.language_model import LanguageModel
from sweep.data import Corpus
from sweep.plan import measured
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.train.engine import choice, make_engine
from sweep.train.engine.autograd import AutogradEngine
from sweep.train.engine.choice import choose_on_cpu, difference
from sweep.train.engine.native import SUPPORTED, NativeEngine, supports
from sweep.train.loop import train
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache. The kernels are loaded already, or built once more."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    choice._warn_once.cache_clear()
    return tmp_path / "cache" / "isosweep"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.d_model}x{shape.n_layers}")
def test_rounding_is_no_difference(shape: ModelConfig, precision: str) -> None:
    assert difference(run_of(shape, precision)) == ""


def other_activation(self: SwiGLU, x: Tensor) -> Tensor:
    gate, up = self.gate_up(x).chunk(2, dim=-1)
    return self.down(F.gelu(gate) * up)


def other_scale(self: Block, x: Tensor, places: Places) -> Tensor:
    x = x + 1.05 * self.attention(self.attention_norm(x), places)
    return x + self.feed_forward(self.feed_forward_norm(x))


def no_gain_in_the_norm(self: Block, x: Tensor, places: Places) -> Tensor:
    plain = F.rms_norm(x, x.shape[-1:], eps=1e-5)  # as long as gains are one, this changes no loss
    gains: Any = self.attention_norm.weight
    x = x + self.attention(plain * 1.0 + 0 * gains.sum(), places)
    return x + self.feed_forward(self.feed_forward_norm(x))


def other_rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., ::2], x[..., 1::2]
    half = x.shape[-1] // 2
    c, s = cos[..., :half], sin[..., :half]
    return torch.stack((even * c - odd * s, odd * c + even * s), dim=-1).flatten(-2)


def full_attention(self: Attention, x: Tensor, places: Places) -> Tensor:
    return self.out(x)


CHANGES = [
    (SwiGLU, "forward", other_activation),
    (Block, "forward", other_scale),
    (Block, "forward", no_gain_in_the_norm),
    (models.blocks, "rotate", other_rotation),
    (Attention, "forward", full_attention),
]


@pytest.mark.parametrize(("owner", "name", "new"), CHANGES, ids=[new.__name__ for _, _, new in CHANGES])
def test_a_changed_model_is_trained_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: object, name: str, new: Callable[..., Tensor],
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(owner, name, new)
    tiny_run = replace(tiny_run, model=replace(tiny_run.model, d_model=8, d_ff=20))
    directory = Store(tmp_path).run(tiny_run.run_id)
    train(tiny_run, corpus, directory)
    (start,) = json.loads((directory.path / "provenance.json").read_text())["starts"]
    assert start["engine"] == "eager"
    assert "its step is not that of models.language_model.LanguageModel" in start["why_not_native"]
    assert "several times slower: its step is not that" in caplog.text
    first = json.loads(directory.curve.read_text().splitlines()[0])
    model = LanguageModel(tiny_run.model)
    model.initialise(tiny_run.seed)
    from sweep.data import TrainingSequences

    shape = {"context_length": tiny_run.model.context_length, "batch_size": tiny_run.batch_size}
    ids = torch.from_numpy(TrainingSequences(corpus.tokens("train"), **shape, seed=tiny_run.seed).batch(0))
    assert first["loss"] == pytest.approx(model.loss(ids[:, :-1], ids[:, 1:]).item(), rel=1e-5)


def test_other_parameters_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithBias(SwiGLU):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__(config)
            self.down = nn.Linear(config.d_ff, config.d_model)

    run = run_of(SHAPES[1])
    assert supports(run) == ""
    monkeypatch.setitem(models.blocks.FEED_FORWARD, "swiglu", WithBias)
    assert "blocks.0.feed_forward.down.bias" in supports(run)
    assert choose_on_cpu(run).engine == "eager"


def test_a_field_that_the_engine_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(SHAPES[1])
    assert "precision=bf16_residual" in supports(replace(run, precision="bf16_residual"))
    monkeypatch.setitem(SUPPORTED, "model", SUPPORTED["model"].replace("rope_theta ", ""))
    assert supports(run) == "the native engine does not know model.rope_theta"


def test_the_faster_engine_is_chosen_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    run = run_of(SHAPES[1])
    rates = {"NativeEngine": 10.0, "AutogradEngine": 20.0}
    asked = []

    def rate(engine: object) -> float:
        asked.append(type(engine).__name__)
        return rates[asked[-1]]

    monkeypatch.setattr(choice, "_tokens_per_s", rate)
    assert choose_on_cpu(run).engine == "eager"
    rates["NativeEngine"] = 30.0
    assert choose_on_cpu(replace(run, seed=5, steps=9)).engine == "eager"  # the same shape
    assert choose_on_cpu(replace(run, batch_size=5)).engine == "native"  # another one
    assert len(asked) == 4
    (file, other) = sorted(cache.glob("engine-*.json"))
    for damaged in (b"", b"{", b"[1]"):
        file.write_bytes(damaged)
        other.write_bytes(damaged)
        assert choose_on_cpu(run).engine == "native"
    file.unlink()
    other.unlink()
    cache.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert choose_on_cpu(run).engine == "native"  # measured for this process alone


def test_what_depends_on_the_sources_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = run_of(SHAPES[1])
    choose_on_cpu(run)
    assert measured.read(run, torch.get_num_threads())
    assert measured.read(run, 77) is None
    machine = measured._machine()
    for changed in ("sources", "processor", "torch", "switches"):
        monkeypatch.setattr(measured, "_machine", lambda changed=changed: machine | {changed: "another"})
        assert measured.read(run, torch.get_num_threads()) is None


def test_a_plan_expects_what_was_measured(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    store, run = Store(tmp_path), replace(tiny_run, steps=3000)
    assert store.speed_seen([run], "cpu", 4096).borrowed
    assert train(run, corpus, store.run(run.run_id)) == "done"
    known = measured.read(run, torch.get_num_threads())
    assert known
    assert known.engine == "native"
    elapsed = store.run(run.run_id).status()["elapsed_s"]
    later = Store(tmp_path / "another").speed_seen([run], "cpu", 4096, torch.get_num_threads())
    assert not later.borrowed
    assert later.shapes
    assert later.seconds(run) == pytest.approx(elapsed, rel=0.3)


def test_the_engines_agree_after_the_choice() -> None:
    run = run_of(SHAPES[2])
    chosen = make_engine(choose_on_cpu(run).engine, run, sequences_of(run), device="cpu")
    eager = make_engine("eager", run, sequences_of(run), device="cpu")
    torch.testing.assert_close(chosen.step(0), eager.step(0), rtol=1e-5, atol=0)


def test_a_large_batch_is_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of a whole batch may take minutes."""
    tokens = []

    def rate(engine: NativeEngine | AutogradEngine) -> float:
        tokens.append(engine.run.batch_tokens)
        return 1.0

    monkeypatch.setattr(choice, "_tokens_per_s", rate)
    monkeypatch.setattr(choice, "MAX_TOKENS", 100)
    known = choose_on_cpu(run_of(SHAPES[0], batch_size=64))
    assert tokens == [96, 96]
    assert measured.read(run_of(SHAPES[0], batch_size=64), torch.get_num_threads()) == known
