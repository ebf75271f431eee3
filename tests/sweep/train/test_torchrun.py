"""Ranks as a user starts them: a signal, a kill or an error ends all of them, and the run resumes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.data import Corpus
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.train.checkpoint import load_checkpoint
from sweep.train.loop import train
from tests.sweep.train.processes import free_port, rank_environment, rows
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture
def long_run(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> RunDirectory:
    """The directory of a run of some seconds, in a store that has its corpus."""
    store = Store(tmp_path / "store")
    store.corpora.mkdir(parents=True)
    (store.corpora / corpus.fingerprint).symlink_to(corpus.directory)
    run = replace(tiny_run, steps=1000)
    directory = store.run(run.run_id)
    directory.create(run)
    return directory


def command(directory: RunDirectory, strategy: str) -> list[str]:
    """The arguments of Python that train the run of `directory`."""
    overrides = {"store": directory.path.parents[1], "device": "cpu"}
    overrides |= {"cluster.strategy": strategy, "cluster.log_interval_s": 0.05, "cluster.checkpoint_interval_s": 0.3}
    return ["-m", "sweep", "train", directory.path.name, *(f"{name}={value}" for name, value in overrides.items())]


def start(arguments: list[str], **environment: str) -> subprocess.Popen:
    root = str(Path(__file__).resolve().parents[3])
    inherited = {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=os.environ | inherited | environment, cwd=root)


def start_ranks(directory: RunDirectory, strategy: str, size: int = 2) -> list[subprocess.Popen]:
    port = free_port()
    return [start(command(directory, strategy), **rank_environment(rank, size, port)) for rank in range(size)]


FAIL_ON_THE_SECOND_RANK = """
import os, sys
import sweep.train.engine.autograd
from sweep.cli import main

def planted(*arguments, step=sweep.train.engine.autograd.optimizer_step, calls=[]):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 50:
        raise ArithmeticError("planted")
    return step(*arguments)

sweep.train.engine.autograd.optimizer_step = planted
sys.exit(main(sys.argv[1:]))
"""


def trained(directory: RunDirectory, step: int) -> Callable[[], bool]:
    return lambda: directory.status()["step"] >= step


def assert_finishes(directory: RunDirectory, corpus: Corpus) -> None:
    """One process takes the run up and ends it, and each step is in its curve once."""
    run = directory.config()
    assert train(run, corpus, directory) == states.DONE
    assert [row["step"] for row in rows(directory) if "loss" in row] == list(range(1, run.steps + 1))


def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(long_run: RunDirectory, corpus: Corpus) -> None:
    first, second = start_ranks(long_run, "ddp")
    wait_until(trained(long_run, 20))
    second.send_signal(signal.SIGTERM)
    assert [process.wait(PATIENCE_S) for process in (first, second)] == [1, 1]
    status = long_run.status()
    assert status["state"] == states.INTERRUPTED
    checkpoint = load_checkpoint(long_run.checkpoints)
    assert checkpoint is not None
    assert 20 <= checkpoint["step"] == status["step"] < 1000
    assert_finishes(long_run, corpus)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others_and_the_run_resumes(long_run: RunDirectory, corpus: Corpus, victim: int) -> None:
    processes = start_ranks(long_run, "fsdp")
    wait_until(trained(long_run, 5))
    processes[victim].kill()
    assert processes[1 - victim].wait(PATIENCE_S) == 1
    assert long_run.status()["state"] == (states.FAILED if victim else states.RUNNING)  # the first was to say so
    assert not long_run.claim.held()
    assert_finishes(long_run, corpus)


def test_an_error_on_another_rank_ends_all(long_run: RunDirectory, corpus: Corpus) -> None:
    port = free_port()
    arguments = ["-c", FAIL_ON_THE_SECOND_RANK, *command(long_run, "ddp")[2:]]
    processes = [start(arguments, **rank_environment(rank, 2, port)) for rank in range(2)]
    assert [process.wait(PATIENCE_S) for process in processes] == [1, 1]
    assert long_run.status()["state"] == states.FAILED
    assert_finishes(long_run, corpus)


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL])
def test_a_run_ends_with_its_torchrun(long_run: RunDirectory, corpus: Corpus, how: signal.Signals) -> None:
    options = ["--nproc-per-node=2", "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1,SIGUSR2"]
    launcher = start(["-m", "torch.distributed.run", *options, *command(long_run, "fsdp")])
    wait_until(trained(long_run, 5))
    launcher.send_signal(how)
    assert launcher.wait(PATIENCE_S) != 0
    wait_until(lambda: not long_run.claim.held())
    assert long_run.status()["state"] == states.INTERRUPTED
    assert_finishes(long_run, corpus)
