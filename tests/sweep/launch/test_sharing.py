"""Several runs on one GPU: MPS, its shared faults, and compiling ahead. The GPU is imagined, the processes are real."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.config import ClusterConfig
from sweep.data import Corpus
from sweep.launch import mps, pool
from sweep.launch.ahead import Ahead
from sweep.launch.launchers import Launch
from sweep.launch.signals import StopFlag
from sweep.launch.worker import _peaks
from sweep.plan.run import PRECISIONS, RunConfig
from sweep.store import Store, states
from sweep.train.events import Event, Outcome
from tests.waiting import PATIENCE_S

DAEMON = """#!/bin/bash
if [ "$1" = -d ]; then touch "$CUDA_MPS_PIPE_DIRECTORY/control"; else cat >> "$TOLD"; rm "$CUDA_MPS_PIPE_DIRECTORY/control"; fi
"""


@pytest.fixture
def launch(corpus: Corpus, tmp_path: Path) -> Launch:
    cluster = ClusterConfig(log_interval_s=0.01)
    return Launch(name="x", store=Store(tmp_path / "store"), corpus=corpus.directory, device="cpu", cluster=cluster)


def test_what_failed_beside_others_is_trained_once_more_alone(launch: Launch, tiny_run: RunConfig) -> None:
    """Ids beyond the vocabulary fail a run for good; the one whose process dies with it is not lost."""
    broken = replace(tiny_run, model=replace(tiny_run.model, vocab_size=10), steps=5000)
    victim, other = replace(tiny_run, steps=20_000), replace(tiny_run, steps=20_000, seed=1)
    heard: list[Event] = []
    beside: list[int] = []
    killed: list[int] = []

    def on_event(event: Event) -> None:
        heard.append(event)
        if not killed and (worker := next((each for each in training.workers if each.run == victim and each.beside), None)):
            killed.append(worker.process.pid or 0)
            os.kill(killed[0], signal.SIGKILL)
        elif event.run_id == victim.run_id in training.again and not isinstance(event, Outcome):
            beside.append(sum(each.run is not None for each in training.workers))

    launch.store.root.mkdir()
    with StopFlag() as stopping, Ahead([], launch, 2) as ahead:
        training = pool._Training(launch, 2, 1, True, ahead, on_event, stopping)
        outcomes = {each.run_id: each.state for each in training.of([victim, other, broken])}
    assert outcomes == {broken.run_id: states.FAILED, victim.run_id: states.DONE, other.run_id: states.DONE}
    assert set(beside) == {1}
    reported = [event.run_id for event in heard if isinstance(event, Outcome)]
    assert sorted(reported) == sorted(outcomes)  # each once: a first failure is no outcome


def test_a_peak_is_measured_once_for_a_store(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes later finds the card busy; another card is measured for itself, and a damaged file again."""
    asked: list[str] = []

    def matmul_peak(device: str, precision: str) -> float:
        asked.append(precision)
        return 5e14

    monkeypatch.setattr("sweep.train.device.matmul_peak", matmul_peak)
    launch.store.root.mkdir()
    names = ["H200"]
    monkeypatch.setattr("sweep.train.device.describe_device", lambda device: names[-1])
    first = _peaks(launch.store, 0)
    assert first == dict.fromkeys(PRECISIONS, 5e14)
    assert _peaks(launch.store, 0) == first
    assert len(asked) == len(PRECISIONS)
    names.append("H100")
    assert _peaks(launch.store, 0) == first
    assert len(asked) == 2 * len(PRECISIONS)
    (file,) = launch.store.root.glob(".gpu-*-0.json")
    earlier = json.loads(file.read_text())
    del earlier["peaks"]["bf16_weights"]  # as a version before that precision wrote it
    for unusable in ("{", json.dumps(earlier)):
        asked.clear()
        file.write_text(unusable)
        assert _peaks(launch.store, 0) == first
        assert len(asked) == len(PRECISIONS)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program called nvidia-cuda-mps-control, and where it writes what it was told."""
    program, told = tmp_path / "bin" / mps.CONTROL, tmp_path / "told"
    program.parent.mkdir()
    program.write_text(DAEMON)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(told))
    monkeypatch.setattr(mps, "PROBE", "")
    monkeypatch.setattr(mps, "USUAL_PIPES", tmp_path / "nobody's")
    yield told
    assert mps.PIPES not in os.environ


def test_mps_is_started_and_stopped(daemon: Path) -> None:
    with mps.served(wanted=False) as shared:
        assert not shared
    with mps.served(wanted=True) as shared:
        directory = Path(os.environ[mps.PIPES])
        assert shared
        assert directory.stat().st_mode & 0o077 == 0
        with mps.served(wanted=True) as inner:  # it is there now: nobody starts a second one, or stops it
            assert inner
        assert not daemon.exists()
    assert daemon.read_text() == "quit -t 5\n"
    assert not directory.exists()


@pytest.mark.parametrize(("problem", "told"), [("probe", "CUDA error 3"), ("daemon", "permission denied")])
def test_mps_that_does_not_work(
    daemon: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: str, told: str
) -> None:
    if problem == "probe":
        monkeypatch.setattr(mps, "PROBE", "raise SystemExit(3)")
    else:
        (daemon.parent / "bin" / mps.CONTROL).write_text("#!/bin/bash\necho permission denied >&2\nexit 1\n")
    with mps.served(wanted=True) as shared:
        assert not shared
        assert mps.PIPES not in os.environ  # or its processes would look for it
    assert capsys.readouterr().err == f"isosweep: MPS does not work here ({told}): one process at a time uses a GPU\n"


def test_shapes_are_compiled_in_order_and_once(launch: Launch, tiny_run: RunConfig) -> None:
    """Here every compilation fails, for want of a GPU: a worker may then try for itself."""
    runs = [replace(tiny_run, batch_size=size, seed=seed) for size in (3, 4) for seed in (0, 1)]
    on_gpu = replace(launch, device="cuda", worth_compiling=frozenset(run.run_id for run in runs))
    launch.store.root.mkdir()
    with Ahead([*runs, replace(tiny_run, batch_size=9)], on_gpu, cores=2) as ahead:
        assert [run.batch_size for run in ahead.waiting.values()] == [3, 4]
        assert ahead.has(replace(tiny_run, batch_size=9))
        ahead.go_on(runs, free_bytes=1e12)
        assert [ahead.has(run) for run in runs] == [False] * 4
        assert len(ahead.going) == 1  # one process, as there are two cores
        deadline = time.monotonic() + PATIENCE_S
        while not ahead.has(runs[0]) and time.monotonic() < deadline:
            ahead.go_on(runs, free_bytes=1e12)
            time.sleep(0.05)
        assert [ahead.has(run) for run in runs] == [True, True, False, False]
        compilers = list(ahead.compilers)
    assert not any(compiler.process.is_alive() for compiler in compilers)
    assert not Ahead(runs, launch, cores=2).waiting  # a CPU's workers compile for themselves
    assert not Ahead(runs, replace(on_gpu, compile="off"), cores=2).waiting
    assert len(Ahead(runs, replace(on_gpu, worth_compiling=frozenset(), compile="on"), cores=2).waiting) == 2
