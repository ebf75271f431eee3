"""A run that is killed, at whatever moment, ends as if it had never been: curve and weights are the same bytes."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.data import Corpus
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.store.manifest import read_manifest
from sweep.train.checkpoint import load_checkpoint
from sweep.train.loop import Runtime, train

EVERY_STEP = Runtime(checkpoint_interval_s=0, log_interval_s=0, keep=3)
WRITES = ("fsync", "replace", "unlink", "utime")


def in_a_child(work: Callable[[], Any], *, kill_after_s: float | None = None) -> int:
    """The exit code of a forked process that does `work`: 0, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(count: int, after: bool, work: Callable[[], Any], by: int = signal.SIGKILL) -> Callable[[], Any]:
    """`work` in a process that sends itself a signal just before, or just after, its `count`-th call that puts something on
    disk, or takes something off it."""

    def doomed() -> None:
        left = [count]

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0 and not after:
                    os.kill(os.getpid(), by)
                try:
                    return call(*arguments, **options)
                finally:
                    if left[0] == 0 and after:
                        os.kill(os.getpid(), by)

            return wrapped

        for name in WRITES:
            setattr(os, name, dying(getattr(os, name)))
        work()

    return doomed


@pytest.fixture
def run(tiny_run: RunConfig) -> RunConfig:
    return replace(tiny_run, steps=6, evaluation_points=2)


def undisturbed(run: RunConfig, corpus: Corpus, root: Path, keep: int = EVERY_STEP.keep) -> RunDirectory:
    directory = Store(root).run(run.run_id)
    assert train(run, corpus, directory, replace(EVERY_STEP, keep=keep)) == states.DONE
    return directory


def assert_same(one: RunDirectory, other: RunDirectory) -> None:
    assert one.status()["state"] == states.DONE
    assert one.curve.read_bytes() == other.curve.read_bytes()
    states_of = [load_checkpoint(directory.checkpoints) for directory in (one, other)]
    weights = [state["model"] for state in states_of if state is not None]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert kept(one) == kept(other) != []


def kept(directory: RunDirectory) -> list[tuple[int, str]]:
    """Step and hash of the weights that are kept along a run."""
    entries = [(entry["step"], (directory.kept / entry["file"]).read_bytes()) for entry in read_manifest(directory.kept)]
    return [(step, hashlib.sha256(content).hexdigest()) for step, content in entries]


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_every_write_changes_no_bit(
    run: RunConfig, corpus: Corpus, tmp_path: Path, after: bool, runslow: bool
) -> None:
    """A run of six steps; without --runslow of two, which still meets every kind of write."""
    run = run if runslow else replace(run, steps=2)
    clean = undisturbed(run, corpus, tmp_path / "clean")
    count = 0
    while True:
        count += 1
        directory = Store(tmp_path / f"killed-{count}").run(run.run_id)
        code = in_a_child(killed_at(count, after, lambda d=directory: train(run, corpus, d, EVERY_STEP)))  # type: ignore[misc]
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert train(run, corpus, directory, EVERY_STEP) == states.DONE
        assert_same(directory, clean)
    assert count > 30  # there were as many moments to die at


def test_kills_at_random_moments_change_no_bit(run: RunConfig, corpus: Corpus, tmp_path: Path, runslow: bool) -> None:
    """Fifty runs, or eight without --runslow, each killed three times and then trained to its end."""
    longer = replace(run, steps=120)
    durations_s = []
    for name in ("first", "clean"):  # the first may have had to build the kernels
        started = time.perf_counter()
        clean = undisturbed(longer, corpus, tmp_path / name, keep=5)
        durations_s.append(time.perf_counter() - started)
    kills = 0
    seeds = range(50 if runslow else 8)
    for seed in seeds:
        moments = random.Random(seed)
        directory = Store(tmp_path / f"run-{seed}").run(longer.run_id)
        runtime = Runtime(checkpoint_interval_s=moments.choice([0, 0.01, 0.05]), log_interval_s=0, keep=5)
        for _ in range(3):
            moment = moments.uniform(0, min(durations_s) / 2)
            code = in_a_child(lambda d=directory, r=runtime: train(longer, corpus, d, r), kill_after_s=moment)  # type: ignore[misc]
            kills += code == -signal.SIGKILL
        assert train(longer, corpus, directory, runtime) == states.DONE
        assert_same(directory, clean)
    assert kills > len(seeds)


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_the_checkpoint_before_a_damaged_one_is_taken(run: RunConfig, corpus: Corpus, tmp_path: Path, harm: str) -> None:
    clean = undisturbed(run, corpus, tmp_path / "clean")
    directory = Store(tmp_path / "harmed").run(run.run_id)
    assert train(run, corpus, directory, EVERY_STEP, should_stop=lambda step: step == 4) == states.INTERRUPTED
    path = directory.checkpoints / read_manifest(directory.checkpoints)[-1]["file"]
    content = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"flip": bytes(content), "truncate": bytes(content[:-100]), "empty": b""}[harm])
    assert train(run, corpus, directory, EVERY_STEP) == states.DONE
    assert_same(directory, clean)


@pytest.mark.parametrize("after", [False, True])
def test_an_owner_that_is_stopped_at_any_write_and_wakes_up_late_changes_nothing(
    run: RunConfig, corpus: Corpus, tmp_path: Path, after: bool, runslow: bool
) -> None:
    """Another process takes the run over and finishes it while the first is stopped, as when a node hangs and comes back."""
    run = run if runslow else replace(run, steps=2)
    clean = undisturbed(run, corpus, tmp_path / "clean")
    count = 0
    while True:
        count += 1
        directory = Store(tmp_path / f"stopped-{count}").run(run.run_id)
        child = os.fork()
        if not child:
            try:
                killed_at(count, after, lambda d=directory: train(run, corpus, d, EVERY_STEP), signal.SIGSTOP)()  # type: ignore[misc]
                os._exit(0)
            except BaseException:
                os._exit(1)
        if not os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]):
            break  # it came to its end before so many writes
        for claim in directory.path.glob("claim/*.json"):
            claim.write_text('{"released": true}')  # given up for dead
        assert train(run, corpus, directory, EVERY_STEP) == states.DONE
        before = written(directory)
        os.kill(child, signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert written(directory) == before, count
        assert_same(directory, clean)
    assert count > 30


def written(directory: RunDirectory) -> dict[str, bytes]:
    """What a run has to show."""
    folders = [*directory.checkpoints.iterdir(), *directory.kept.iterdir()]
    return {str(path): path.read_bytes() for path in [directory.path / "status.json", directory.curve, *folders]}


def test_an_owner_that_slept_through_its_own_replacement_writes_nothing_more(
    run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    """As after a node came back: the first process goes on where it was, while another has finished the run."""
    longer = replace(run, steps=40)
    clean = undisturbed(longer, corpus, tmp_path / "clean")
    directory = Store(tmp_path / "taken").run(longer.run_id)

    def be_taken_over(step: int) -> bool:
        if step == 15:
            last = max(directory.path.glob("claim/*.json"))
            last.write_text('{"released": true}')  # given up for dead
            assert in_a_child(lambda: train(longer, corpus, directory, EVERY_STEP)) == 0
        return False

    assert train(longer, corpus, directory, Runtime(log_interval_s=0, keep=3), should_stop=be_taken_over) == states.RUNNING
    assert_same(directory, clean)
