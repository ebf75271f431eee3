"""Engines and the pool on a GPU: `pytest -m gpu` where there is one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import ModelConfig
from sweep.config import ClusterConfig
from sweep.data import Corpus, TrainingSequences
from sweep.launch.launchers import Launch
from sweep.launch.pool import Pool
from sweep.plan.run import PRECISIONS, RunConfig
from sweep.store import Store, states
from sweep.train.engine import Engine, make_engine
from sweep.train.events import Outcome
from sweep.train.loop import Runtime, train
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

ENGINES = ["eager", "eager, graph", "compiled, graph"]


def losses(engine: Engine, steps: int, start: int = 0) -> torch.Tensor:
    return torch.stack([engine.step(step) for step in range(start, start + steps)]).cpu()


def on_gpu(name: str, run: RunConfig) -> Engine:
    return make_engine(name, run, sequences_of(run), device="cuda")


@pytest.mark.parametrize("shape", SHAPES[1:4], ids=lambda shape: f"{shape.d_model}x{shape.n_layers}")
@pytest.mark.parametrize("name", ENGINES)
def test_fp32_follows_the_cpu(name: str, shape) -> None:  # type: ignore[no-untyped-def]
    run = run_of(shape)
    cpu = make_engine("native", run, sequences_of(run), device="cpu")
    torch.testing.assert_close(losses(on_gpu(name, run), 12), losses(cpu, 12), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENGINES[1:])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_is_the_eager_step(name: str, precision: str) -> None:
    run = run_of(SHAPES[1], precision)
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    found, expected = (losses(on_gpu(each, run), 20)[:, 0] for each in (name, "eager"))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ENGINES)
def test_each_takes_up_what_another_left(name: str) -> None:
    run = run_of(SHAPES[1])
    whole, begun, resumed = on_gpu(name, run), on_gpu("eager, graph", run), on_gpu(name, run)
    expected = losses(whole, 20)
    losses(begun, 8)
    resumed.load(begun.state())
    torch.testing.assert_close(losses(resumed, 12, start=8), expected[8:], rtol=1e-4, atol=1e-4)


def test_steps_after_the_table_of_starts_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(SHAPES[0])
    expected = losses(on_gpu("eager", run), 20)
    monkeypatch.setattr("sweep.train.engine.graph.STEPS_AHEAD", 7)
    torch.testing.assert_close(losses(on_gpu("eager, graph", run), 20), expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("sweep.train.engine.graph.MEMORY_FOR_TOKENS", 0.0)  # as if they did not fit
    torch.testing.assert_close(losses(on_gpu("eager, graph", run), 20), expected, rtol=1e-5, atol=1e-5)


def test_a_graph_that_does_not_fit_is_tried_with_half_the_sequences(caplog: pytest.LogCaptureFixture) -> None:
    """The process may have less memory than its eager steps took."""
    shape = ModelConfig(vocab_size=257, d_model=256, n_layers=8, n_heads=4, n_kv_heads=4, d_ff=704, context_length=512)
    run = run_of(shape, "bf16", batch_size=64, peak_lr=1e-3)
    tokens = TrainingSequences(np.arange(2**17, dtype=np.uint16) % 257, context_length=512, batch_size=64, seed=0)
    expected = losses(make_engine("eager", run, tokens, device="cuda"), 12)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    engine = make_engine("eager, graph", run, tokens, device="cuda")
    try:
        found = [engine.step(step) for step in range(3)]
        most = 0.8 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties().total_memory
        torch.cuda.set_per_process_memory_fraction(most)
        found += [engine.step(step) for step in range(3, 12)]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(torch.stack(found).cpu()[:, 0], expected[:, 0], rtol=1e-2, atol=1e-2)
    assert "no memory for a CUDA graph beside the rest; 32 sequences at a time from now on" in caplog.text
    assert engine.name == "eager, graph"


@pytest.mark.timeout(900)  # on a machine whose disk is slow the compiler's imports alone take a minute
def test_a_pool_compiles_ahead(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    shape = replace(tiny_run.model, d_model=64, n_heads=2, n_kv_heads=2)
    runs = [replace(tiny_run, model=shape, batch_size=size, steps=40, precision="bf16") for size in (4, 8, 16)]
    store = Store(tmp_path)
    launch = Launch(name="x", store=store, corpus=corpus.directory, device="cuda", cluster=ClusterConfig(), compile="on")
    Pool(launch=launch, workers=2).run(runs, lambda event: None)
    for run in runs:
        (start,) = json.loads((store.run(run.run_id).path / "provenance.json").read_text())["starts"]
        assert start["engine"] == "compiled, graph"
        assert start["attention"] in ("cudnn", "flash")
    assert len(list(store.compiled.glob("*.lock"))) == 3


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_a_run_stopped_and_resumed(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, compile: str) -> None:
    runtime, run = Runtime(device="cuda", compile=compile), replace(tiny_run, steps=40)
    clean, stopped = (Store(tmp_path / name).run(run.run_id) for name in ("clean", "stopped"))
    assert train(run, corpus, clean, runtime) == states.DONE
    assert train(run, corpus, stopped, runtime, should_stop=lambda step: step == 17) == states.INTERRUPTED
    assert train(run, corpus, stopped, runtime) == states.DONE
    assert stopped.status()["val_loss"] == pytest.approx(clean.status()["val_loss"], abs=1e-3)
    cpu = Store(tmp_path / "cpu").run(run.run_id)
    assert train(run, corpus, cpu) == states.DONE
    assert clean.status()["val_loss"] == pytest.approx(cpu.status()["val_loss"], abs=1e-3)


def test_a_packed_pool_and_a_poisoned_device(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    """Ids beyond the vocabulary are a device-side assertion: the process is lost, the sweep is not."""
    broken = replace(tiny_run, model=replace(tiny_run.model, vocab_size=10))
    runs = [broken, *(replace(tiny_run, seed=seed, precision="bf16") for seed in range(6))]
    launch = Launch(name="x", store=Store(tmp_path), corpus=corpus.directory, device="cuda", cluster=ClusterConfig())
    pool = Pool(launch=launch, workers=3)
    outcomes = {outcome.run_id: outcome.state for outcome in pool.run(runs, lambda event: None) if isinstance(outcome, Outcome)}
    assert outcomes.pop(broken.run_id) == states.FAILED
    assert set(outcomes.values()) == {states.DONE}
