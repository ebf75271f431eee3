"""Every engine against plain autograd and torch's AdamW, and each taking up what another left."""

import ctypes
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models.language_model
import sweep.train.engine.native
from models import ModelConfig, SizeLadder
from models.language_model import LanguageModel
from sweep.plan.run import RunConfig
from sweep.train.engine import Engine, make_engine
from sweep.train.engine.autograd import AutogradEngine, build_optimizer, optimizer_step
from sweep.train.engine.kernels import kernels
from sweep.train.engine.native import NativeEngine
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of

ROOT = Path(__file__).resolve().parents[3]


def engine(name: str, run: RunConfig) -> Engine:
    return make_engine(name, run, sequences_of(run), device="cpu")


def train(engine: Engine, steps: int, start: int = 0) -> torch.Tensor:
    return torch.stack([engine.step(step) for step in range(start, start + steps)])


def same_state(one: Engine, other: Engine, tolerance: float) -> None:
    for name, weight in one.state()["model"].items():
        torch.testing.assert_close(other.state()["model"][name], weight, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.d_model}x{shape.n_layers}")
@pytest.mark.parametrize("other", ["native", "eager, graph"])
def test_fp32_steps_are_those_of_autograd(shape: ModelConfig, other: str) -> None:
    """In double precision as the judge: an engine is as near to it as the eager one is, a few roundings apart. A loss is a mean
    of many; a gradient's norm sums squares of what the whole way back has rounded, and an AdamW step divides by its size what
    of it is little more than rounding."""
    run = run_of(shape, peak_lr=1e-3)
    exact = AutogradEngine(run, sequences_of(run), device="cpu")
    exact.model.double()
    results = {name: train(engine(name, run), 5) for name in ("eager", other)}
    truth = train(exact, 5)
    for found in results.values():
        torch.testing.assert_close(found[:, 0].double(), truth[:, 0], rtol=2e-6, atol=0)
        torch.testing.assert_close(found[:, 1].double(), truth[:, 1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.d_model}x{shape.n_layers}")
def test_native_gradients_are_those_of_double_precision(shape: ModelConfig) -> None:
    run = run_of(shape)
    native = NativeEngine(run, sequences_of(run))
    native.step(0)
    exact = LanguageModel(shape).double()
    exact.initialise(0)
    ids = torch.from_numpy(sequences_of(run).batch(0))
    exact.loss(ids[:, :-1], ids[:, 1:]).backward()
    for name, parameter in exact.named_parameters():
        gradient = native.gradients[name]
        assert parameter.grad is not None
        error = (gradient - parameter.grad).norm() / parameter.grad.norm()
        assert error < 3e-6, (name, error)


# Flags that only take instructions away, so that what they build runs wherever the rest does.
@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86-64")
@pytest.mark.parametrize(("flags", "lanes"), [("-mno-avx512f", 8), ("-mno-avx2", 4), ("-mno-avx", 4)])
def test_every_width_of_vectors_computes_the_same(flags: str, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences that no width divides, too. Each build is kept in the cache as one of its own."""
    monkeypatch.setenv("ISOSWEEP_CXXFLAGS", f"{os.environ.get('ISOSWEEP_CXXFLAGS', '')} {flags}")
    kernels.cache_clear()
    try:
        assert kernels().vector_lanes() == (lanes if "avx2" in Path("/proc/cpuinfo").read_text() else 4)
        for shape in SHAPES:
            test_native_gradients_are_those_of_double_precision(shape)
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


@pytest.mark.parametrize("score", [80.0, 88.5, 89.0, 89.4, 100.0, 1000.0])
def test_a_key_that_is_not_seen_may_score_anything(score: float) -> None:
    """Here the second, `score` above all that the first query sees: near 89 its exponential is no number at all."""
    T, K = 19, 4
    q, k, v, dy = torch.randn(4, T, K, generator=torch.manual_seed(0))
    q[0], k[0] = torch.eye(K)[0], 0
    k[1, 0] = score * math.sqrt(K)
    qkv, y, lse, d_qkv = torch.cat([q, k, v], dim=1), torch.zeros(T, K), torch.zeros(T), torch.zeros(T, 3 * K)
    tables = torch.ones(T, K), torch.zeros(T, K)  # no position is turned

    def call(name: str, *tensors: torch.Tensor) -> None:
        getattr(kernels(), name)(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors), 1, T, 1, 1, K)

    call("attention_fp32", qkv, *tables, y, lse)
    call("attention_backward_fp32", qkv, *tables, y, lse, dy, d_qkv)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    q_, k_, v_ = (x[None] for x in exact)
    expected = torch.nn.functional.scaled_dot_product_attention(q_, k_, v_, is_causal=True)[0]
    expected.backward(dy.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)
    gradient = torch.cat([x.grad for x in exact if x.grad is not None], dim=1)
    torch.testing.assert_close(d_qkv.double(), gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max().item())


@pytest.mark.parametrize("shape", SHAPES[:4], ids=lambda shape: f"{shape.d_model}x{shape.n_layers}")
def test_native_bf16_is_as_near_to_fp32_as_autocast(shape: ModelConfig) -> None:
    """Each against the fp32 gradient: matrices in bf16 cost both about 0.4 %."""
    exact, native = (NativeEngine(run := run_of(shape, precision), sequences_of(run)) for precision in ("fp32", "bf16"))
    for each in (exact, native):
        each.step(0)
    model = LanguageModel(shape)
    model.initialise(0)
    ids = torch.from_numpy(sequences_of(run_of(shape)).batch(0))
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        truth = exact.gradients[name]
        ours, autocast = ((g.float() - truth).norm() / truth.norm() for g in (native.gradients[name], parameter.grad))
        assert ours < max(1.5 * autocast, 0.01), (name, ours, autocast)


@pytest.mark.parametrize("second", ["native", "eager", "eager, graph"])
@pytest.mark.parametrize("first", ["native", "eager", "eager, graph"])
def test_each_takes_up_what_another_left(first: str, second: str) -> None:
    run = run_of(SHAPES[1])
    whole, begun, resumed = engine(first, run), engine(first, run), engine(second, run)
    losses = train(whole, 20)
    train(begun, 8)
    resumed.load(begun.state())
    torch.testing.assert_close(train(resumed, 12, start=8), losses[8:], rtol=1e-3, atol=1e-4)
    if first == second:
        same_state(whole, resumed, tolerance=0)


@pytest.mark.parametrize("name", ["native", "eager", "eager, graph"])
def test_a_state_is_a_copy(name: str) -> None:
    trained = engine(name, run_of(SHAPES[0]))
    train(trained, 2)
    state = trained.state()
    kept = {key: value.clone() for key, value in state["model"].items()}
    train(trained, 2, start=2)
    if name == "native":  # the others hand out what torch's state_dict does
        assert all(torch.equal(state["model"][key], kept[key]) for key in kept)
    fresh = engine(name, run_of(SHAPES[0]))
    fresh.load(trained.state())
    same_state(fresh, trained, tolerance=0)


def test_native_is_the_same_bits_every_time() -> None:
    run = run_of(SHAPES[1], "bf16")
    one, other = engine("native", run), engine("native", run)
    assert torch.equal(train(one, 5), train(other, 5))
    same_state(one, other, tolerance=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_sequence_losses_are_those_of_the_model(precision: str, count: int) -> None:
    """Also where the sequences do not fill the last batch."""
    run = run_of(SHAPES[1], precision)
    native = engine("native", run)
    train(native, 3)
    model = LanguageModel(run.model)
    model.load_state_dict(native.state()["model"])
    held_out = np.random.default_rng(1).integers(0, 257, (count, 65))
    ids = torch.from_numpy(held_out)
    with torch.no_grad():
        expected = model.loss(ids[:, :-1], ids[:, 1:], reduction="none").mean(dim=1)
    losses = native.sequence_losses(held_out)
    assert losses.dtype == torch.double
    torch.testing.assert_close(losses.float(), expected, rtol=1e-5 if precision == "fp32" else 2e-3, atol=0)
    before = train(native, 2, start=3)  # an evaluation leaves no trace
    again = engine("native", run)
    train(again, 3)
    assert torch.equal(train(again, 2, start=3), before)


@pytest.mark.parametrize("engine_name", ["native", "eager"])
def test_a_few_logits_at_a_time_are_the_same_step(engine_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(SHAPES[1])
    whole = engine(engine_name, run)
    losses = train(whole, 3)
    held_out = sequences_of(run).batch(9)
    evaluated = whole.sequence_losses(held_out)
    monkeypatch.setattr(models.language_model, "MAX_LOGITS", 257 * 50)  # 192 rows: the last chunk is not full
    monkeypatch.setattr(sweep.train.engine.native, "MAX_LOGITS", 257 * 50)
    chunked = engine(engine_name, run)
    torch.testing.assert_close(train(chunked, 3), losses, rtol=1e-5, atol=0)
    torch.testing.assert_close(chunked.sequence_losses(held_out), evaluated, rtol=1e-5, atol=0)


def test_chunked_cross_entropy_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(SHAPES[1], "bf16")
    losses = train(engine("eager", run), 3)
    monkeypatch.setattr(models.language_model, "MAX_LOGITS", 257 * 50)
    torch.testing.assert_close(train(engine("eager", run), 3), losses, rtol=1e-3, atol=0)


def test_micro_batches_are_the_same_step() -> None:
    run = run_of(SHAPES[1], batch_size=4)
    batch = torch.from_numpy(sequences_of(run).batch(0))
    results = []
    for micro_batch in (4, 3, 1):
        model = LanguageModel(run.model).double()
        model.initialise(0)
        loss, norm = optimizer_step(model, build_optimizer(model, run), batch, run, micro_batch)
        results.append(torch.cat([torch.stack([loss, norm]), torch.nn.utils.parameters_to_vector(model.parameters())]))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["native", "eager"])
def test_the_step_is_adamw_as_published(name: str) -> None:
    """One clipped AdamW step (arXiv 1711.05101, algorithm 2) written out."""
    run = run_of(SHAPES[1])
    model = LanguageModel(run.model)
    model.initialise(0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.from_numpy(sequences_of(run).batch(0))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    stepped = engine(name, run)
    _, norm = stepped.step(0)
    expected_norm = math.sqrt(sum((g.double() ** 2).sum() for g in gradients.values()))
    assert norm.item() == pytest.approx(expected_norm, rel=1e-5)
    clip, lr = min(1.0, 1.0 / expected_norm), 0.005  # the first of two warm-up steps
    for name, weight in stepped.state()["model"].items():
        g = gradients[name] * clip
        decay = 1 - lr * (0.1 if weight.ndim == 2 else 0.0)
        expected = before[name] * decay - lr * g / (g.abs() + 1e-8)  # at the first step m/sqrt(v) is the sign
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ["embedding.weight", "norm.weight", "blocks.1.attention.qkv.weight", "head.weight"])
def test_a_nan_is_in_the_loss_and_the_norm(name: str) -> None:
    run = run_of(SHAPES[1], "bf16")
    native = NativeEngine(run, sequences_of(run))
    state = native.state()
    state["model"][name].fill_(math.nan)
    native.load(state)
    assert torch.isnan(native.step(0)).all()


def test_the_ladder_of_cpu_sweeps_is_trained_natively() -> None:
    """Each shape that experiment=smoke may use, a step each."""
    ladder = SizeLadder(vocab_size=257, context_length=32, aspect_ratio=10, head_dim=8, rope_theta=100)
    for N in np.geomspace(3e3, 6e4, 8):
        run = run_of(ladder.nearest(N))
        torch.testing.assert_close(engine("native", run).step(0), engine("eager", run).step(0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["native", "eager"])
def test_a_large_vocabulary_takes_little_more_memory(name: str) -> None:
    """A model of a million parameters at 2^14 tokens: its logits with 32 thousand ids would be 2 GB, and as much again for
    their gradient."""
    held = {}
    for vocab_size in (256, 32_768):
        script = PEAK_MEMORY.format(vocab_size=vocab_size, name=name)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        held[vocab_size] = float(done.stdout)
    chunk = 4 * 4 * 2 ** (22 if name == "native" else 26)  # logits, log-probabilities, gradient
    head = 6 * 4 * 32_768 * 32  # weights, gradients and moments of embedding and head
    assert held[32_768] < 2 * held[256] + chunk + 2 * head


PEAK_MEMORY = """
import resource, torch
torch.set_num_threads(1)
from models import ModelConfig
from sweep.train.engine import make_engine
from tests.sweep.train.engine_cases import run_of, sequences_of
shape = dict(d_model=32, n_layers=2, n_heads=4, n_kv_heads=4, d_ff=80, context_length=128)
run = run_of(ModelConfig(vocab_size={vocab_size}, **shape), batch_size=128)
sequences = sequences_of(run)
sequences.tokens = sequences.tokens.repeat(4)
sequences.sequences = (len(sequences.tokens) - 1) // 128
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
engine = make_engine("{name}", run, sequences, device="cpu")
for step in range(2):
    engine.step(step)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""
