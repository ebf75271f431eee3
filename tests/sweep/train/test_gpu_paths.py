"""What a GPU makes the engines do, on a machine that has none: torch.cuda's part is played by stubs."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode

from models.language_model import LanguageModel
from sweep.claim import alone
from sweep.plan.cost import MAX_PASS_TOKENS, sequences_at_once
from sweep.plan.run import PRECISIONS
from sweep.train.engine import graph
from sweep.train.engine.autograd import AutogradEngine, build_optimizer, language_model, optimizer_step, out_of_memory
from sweep.train.engine.graph import GraphEngine
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of
from tests.waiting import PATIENCE_S


def losses(engine: AutogradEngine, steps: int) -> Tensor:
    return torch.stack([engine.step(step) for step in range(steps)])


class CapturesOnCpu:
    """Stands for torch.cuda where a graph is captured and replayed: the capture takes the step, and so does a later replay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: GraphEngine) -> None:
        self.active, self.begun, self.replayed, self.engine = False, 0, 0, engine
        stream = SimpleNamespace(wait_stream=lambda other: None)
        monkeypatch.setattr(graph, "_side_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: graph)
        engine.captures = True

    def __enter__(self) -> None:
        self.active, self.begun = True, self.begun + 1

    def __exit__(self, *exception: object) -> None:
        self.active = False

    def replay(self) -> None:
        self.replayed += 1
        if self.replayed > 1:
            self.engine._one_step()


@pytest.mark.parametrize("fixed", [False, True], ids=["in parts", "micro-batch fixed"])
def test_a_graph_without_room(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fixed: bool) -> None:
    """Smaller micro-batches are tried first. What a failed capture had in memory is free by then: no traceback holds it."""
    run = run_of(SHAPES[1], batch_size=4)
    expected = losses(AutogradEngine(run, sequences_of(run), device="cpu"), 14)
    engine = GraphEngine(run, sequences_of(run), device="cpu", micro_batch=4 if fixed else None)
    captures, whole_loss = CapturesOnCpu(monkeypatch, engine), engine.model.loss
    activations: list[weakref.ref[Tensor]] = []

    def loss(tokens: Tensor, targets: Tensor, key_B: None) -> Tensor:
        if captures.active and len(tokens) > 1:
            held = torch.zeros(1000)
            activations.append(weakref.ref(held))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert all(each() is None for each in activations)
        return whole_loss(tokens, targets)

    monkeypatch.setattr(engine.model, "loss", loss)
    gc.disable()  # what only a collection of cycles would free is not free in time
    try:
        torch.testing.assert_close(losses(engine, 14), expected, rtol=1e-5, atol=0)
    finally:
        gc.enable()
    told = [record.getMessage().split("; ")[1] for record in caplog.records]
    sizes = [f"{size} sequences at a time from now on" for size in (2, 1)]
    assert told == (["its steps stay eager"] if fixed else sizes)
    assert (captures.begun, engine.graph is None, engine.name) == ((1, True, "eager") if fixed else (3, False, "eager, graph"))


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No gcc, or no Python.h: one line, and eager steps."""
    run = run_of(SHAPES[1])
    expected = losses(AutogradEngine(run, sequences_of(run), device="cpu"), 4)

    def no_compiler(module: object, inputs: object) -> object:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: real(function, dynamic=dynamic, backend=no_compiler))
    engine = GraphEngine(run, sequences_of(run), device="cpu", compiled=True)
    torch.testing.assert_close(losses(engine, 4), expected)
    (record,) = [record for record in caplog.records if record.name.startswith("sweep")]
    assert "torch.compile fails here (" in record.getMessage()
    assert "Failed to find C compiler" in record.getMessage()
    assert engine.name == "eager"


def test_new_horizons_seeds_and_rates_do_not_compile_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does an evaluation: a shape is three graphs, the embedding, a block, and what follows the blocks."""
    monkeypatch.setattr("models.language_model.MAX_WHOLE", 0)
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: real(function, dynamic=dynamic, backend="aot_eager"))
    first = run_of(SHAPES[1], "bf16")
    torch._dynamo.reset()
    counters.clear()
    for run in (
        first,
        replace(first, steps=77),
        replace(first, seed=3),
        run_of(SHAPES[1], "bf16", peak_lr=1e-4, weight_decay=0.0),
    ):
        engine = GraphEngine(run, sequences_of(run), device="cpu", compiled=True)
        plain = AutogradEngine(run, sequences_of(run), device="cpu")
        torch.testing.assert_close(losses(engine, 3), losses(plain, 3), rtol=1e-2, atol=0)
        engine.sequence_losses(sequences_of(run).batch(0)[:2])
        assert counters["stats"]["unique_graphs"] == 3
    for run, graphs in ((replace(first, batch_size=2), 6), (run_of(SHAPES[2]), 9)):  # other shapes do
        losses(GraphEngine(run, sequences_of(run), device="cpu", compiled=True), 1)
        assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_asks_the_device_for_no_value(precision: str) -> None:
    """A tensor without values has nothing to answer with: `.item()` and the like are errors."""
    run = run_of(SHAPES[1], precision)
    with FakeTensorMode():
        model = language_model(run)
        optimizer = build_optimizer(model, run)
        for group in optimizer.param_groups:
            group["lr"] = torch.zeros(())
        for _ in range(2):
            loss, norm = optimizer_step(model, optimizer, torch.zeros(3, 65, dtype=torch.int64), run, 2)
    assert loss.shape == norm.shape == ()


def test_passes_of_equal_size() -> None:
    model = replace(SHAPES[1], context_length=1024)
    for batch_size, expected in ((1, 1), (64, 64), (65, 33), (512, 64)):
        assert sequences_at_once(run_of(model, batch_size=batch_size)) == expected
        assert expected * 1024 <= MAX_PASS_TOKENS


def test_out_of_memory_in_all_its_forms() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    hidden = RuntimeError("operation failed due to a previous error during capture")
    hidden.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert out_of_memory(hidden)
    assert not out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


def test_a_step_that_does_not_fit_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own exception, raised by what would need more memory than there is."""
    run = run_of(SHAPES[1], batch_size=8)
    expected = losses(AutogradEngine(run, sequences_of(run), device="cpu"), 3)
    hungry = AutogradEngine(run, sequences_of(run), device="cpu")
    seen, whole_loss = [], hungry.model.loss

    def loss(tokens: torch.Tensor, targets: torch.Tensor, key_B: None) -> torch.Tensor:
        seen.append((len(tokens), hungry.model.recompute))
        if len(tokens) > 1 or not hungry.model.recompute:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole_loss(tokens, targets)

    monkeypatch.setattr(hungry.model, "loss", loss)
    torch.testing.assert_close(losses(hungry, 3), expected, rtol=1e-5, atol=0)
    assert [size for size, _ in seen[:5]] == [8, 4, 2, 1, 1]
    assert seen[4] == (1, True)  # activations are worked out again only where nothing else helps

    def hopeless(tokens: torch.Tensor, targets: torch.Tensor, key_B: None) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    too_large = AutogradEngine(run, sequences_of(run), device="cpu")
    monkeypatch.setattr(too_large.model, "loss", hopeless)
    with pytest.raises(torch.OutOfMemoryError):
        too_large.step(0)


def test_one_of_several_processes_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the shape's claim, the first step waits for it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(LanguageModel, "compile_parts", lambda self: None)  # what is compiled does not matter here
    compiled = AutogradEngine(run := run_of(SHAPES[0]), sequences_of(run), device="cpu", compiled=True)
    with compiled._compiling():
        (claim,) = tmp_path.glob("*.claim")
    with ThreadPoolExecutor(1) as executor:
        with alone(claim):
            first = executor.submit(compiled.step, 0)
            with pytest.raises(TimeoutError):
                first.result(timeout=0.3)
        first.result(timeout=PATIENCE_S)
        with alone(claim):
            executor.submit(compiled.step, 1).result(timeout=PATIENCE_S)  # it has what it needs
