"""Compiling ahead, by torch's real compiler."""

import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from sweep.config import ClusterConfig
from sweep.launch.ahead import compile_shapes
from sweep.launch.launchers import Launch
from sweep.launch.worker import set_up_torch
from sweep.plan.run import RunConfig
from sweep.store import Store
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of


def first_step(connection: Connection, launch: Launch, run: RunConfig) -> None:
    """Take a step as a worker does, and send what torch found in its cache."""
    set_up_torch(launch.store, launch.cluster, launch.device, launch.compile)
    from torch._dynamo.utils import counters

    from sweep.train.engine import make_engine

    make_engine("compiled, graph", run, sequences_of(run), device=launch.device).step(0)
    connection.send({name: counters["aot_autograd"][f"autograd_cache_{name}"] for name in ("hit", "miss")})


@pytest.mark.slow
def test_a_worker_finds_what_was_compiled_ahead(tmp_path: Path) -> None:
    """The processes import different modules in another order; the keys of torch's cache must not depend on that."""
    launch = Launch(name="x", store=Store(tmp_path), corpus=tmp_path, device="cpu", cluster=ClusterConfig(), compile="on")
    run = run_of(SHAPES[0], "bf16")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    ahead = context.Process(target=compile_shapes, args=(theirs, launch, 0))
    ahead.start()
    theirs.close()
    ours.send(replace(run, seed=7))
    assert ours.recv() is None
    ours.close()
    ahead.join()
    assert ahead.exitcode == 0
    ours, theirs = context.Pipe()
    worker = context.Process(target=first_step, args=(theirs, launch, run))
    worker.start()
    theirs.close()
    assert ours.recv() == {"hit": 1, "miss": 0}
    worker.join()
