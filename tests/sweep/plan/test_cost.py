"""Which engine, what to compile, and what shares a GPU."""

import math
from dataclasses import replace

import pytest

from models import SizeLadder
from sweep.plan.cost import (
    COMPILING_PAYS_FROM,
    choose_engine,
    fits_beside,
    flops,
    memory_bytes,
    streams,
    token_bytes,
    worth_compiling,
)
from sweep.plan.device import warn_of_narrow_heads
from sweep.plan.run import RunConfig

LADDER = SizeLadder(vocab_size=257, context_length=1024, aspect_ratio=64, head_dim=64)


def of_size(run: RunConfig, N: float, steps: int = 100) -> RunConfig:
    return replace(run, model=LADDER.nearest(N), steps=steps)


def choose(device: str, compiled: str = "auto", pays: bool = False, size: int = 1, micro_batch: int | None = None) -> str:
    return choose_engine(device, compiled=compiled, compile_pays=pays, parallel_size=size, micro_batch=micro_batch)


def test_engine() -> None:
    assert choose("cpu") == "native"
    assert choose("cpu", "off") == "eager"
    assert choose("cpu", "on") == "compiled"
    assert choose("cpu", pays=True) == "native"
    assert choose("cpu", size=2) == "eager"
    assert choose("cpu", micro_batch=2) == "eager"
    assert choose("cuda") == "eager, graph"
    assert choose("cuda", pays=True) == "compiled, graph"
    assert choose("cuda", "on") == "compiled, graph"
    assert choose("cuda", "off") == "eager"
    assert choose("cuda", "on", size=2) == "eager"


def test_the_runs_of_a_shape_repay_its_compilation_together(tiny_run: RunConfig) -> None:
    one = of_size(tiny_run, 1e7)
    steps = math.ceil(0.6 * COMPILING_PAYS_FROM / flops(replace(one, steps=1)))
    first, second = (replace(one, steps=steps, seed=seed) for seed in (0, 1))
    assert worth_compiling([first]) == frozenset()
    assert worth_compiling([first, second]) == {first.run_id, second.run_id}
    other = replace(second, batch_size=2 * second.batch_size)  # compiled for itself
    assert worth_compiling([first, replace(other, steps=steps // 2)]) == frozenset()


@pytest.mark.parametrize(("N", "together"), [(1e6, 4), (5e6, 3), (1.5e7, 2), (1e8, 1)])
def test_a_gpu_trains_as_many_as_it_gains_from(tiny_run: RunConfig, N: float, together: int) -> None:
    run = of_size(tiny_run, N)
    assert streams(run.N) == together
    for running in range(1, 6):
        assert fits_beside(run, [run] * running, free_bytes=1e12) == (running < together)


def test_a_large_and_a_small_run_do_not_share(tiny_run: RunConfig) -> None:
    small, large = of_size(tiny_run, 1e6), of_size(tiny_run, 1e8)
    assert not fits_beside(small, [large], free_bytes=1e12)
    assert fits_beside(of_size(tiny_run, 1.5e7), [small, small], free_bytes=1e12)


def test_memory_admits(tiny_run: RunConfig) -> None:
    run = replace(of_size(tiny_run, 1e6), batch_size=64)
    room = 2 * (memory_bytes(run, sequences=64) + 6e8) / 0.9
    assert fits_beside(run, [run], free_bytes=1.01 * room)
    assert not fits_beside(run, [run], free_bytes=0.99 * room)
    assert not fits_beside(run, [run], free_bytes=1.01 * room, tokens_bytes=token_bytes(10**8, 257))  # of each process
    assert token_bytes(10, 2**15) * 2 == token_bytes(10, 2**15 + 1) == 40
    assert fits_beside(run, [], free_bytes=0)  # alone it may try: the engine takes smaller parts


def test_shapes_for_cpus_on_a_gpu_are_named(tiny_run: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    wide = of_size(tiny_run, 1e6)
    for runs, device in (([wide], "cuda"), ([tiny_run], "cpu"), ([], "cuda")):
        warn_of_narrow_heads(runs, device)
        assert capsys.readouterr().err == ""
    warn_of_narrow_heads([wide, tiny_run], "cuda")
    told = "isosweep: heads of 4 numbers keep most of a GPU idle; model=ladder has wider ones\n"
    assert capsys.readouterr().err == told
