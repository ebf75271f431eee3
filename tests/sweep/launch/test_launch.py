"""The pool: every run once, whatever happens to a worker."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sweep.claim import LostError
from sweep.config import ClusterConfig
from sweep.data import Corpus
from sweep.launch.launchers import Launch
from sweep.launch.pool import Pool, pool_size
from sweep.launch.signals import StopFlag
from sweep.launch.worker import record_failure
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.train.events import Outcome, Progress
from sweep.train.loop import train
from tests.waiting import PATIENCE_S, wait_until


def pool(store: Path, corpus: Corpus, workers: int = 2, **cluster: float) -> Pool:
    config = ClusterConfig(log_interval_s=0, **cluster)  # type: ignore[arg-type]
    launch = Launch(name="x", store=Store(store), corpus=corpus.directory, device="cpu", cluster=config)
    return Pool(launch=launch, workers=workers)


def states_of(runs: list[RunConfig], store: Path) -> list[str]:
    return [Store(store).run(run.run_id).status()["state"] for run in runs]


def test_every_run_is_trained_once_and_as_alone(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    runs = [replace(tiny_run, seed=seed) for seed in range(5)]
    events: list[Progress | Outcome] = []
    outcomes = pool(tmp_path / "pool", corpus).run(runs, events.append)
    assert sorted(outcome.run_id for outcome in outcomes) == sorted(run.run_id for run in runs)
    assert {outcome.state for outcome in outcomes} == {states.DONE}
    assert Store(tmp_path / "pool").unfinished(runs) == []
    assert {event.run_id for event in events if isinstance(event, Progress)} == {run.run_id for run in runs}
    alone = Store(tmp_path / "alone").run(runs[3].run_id)
    train(runs[3], corpus, alone)
    assert Store(tmp_path / "pool").run(runs[3].run_id).curve.read_bytes() == alone.curve.read_bytes()


def test_a_failing_run_fails_alone(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    broken = replace(tiny_run, model=replace(tiny_run.model, vocab_size=10))  # ids beyond the vocabulary
    runs = [broken, tiny_run, replace(tiny_run, seed=1)]
    outcomes = {outcome.run_id: outcome for outcome in pool(tmp_path, corpus).run(runs, lambda event: None)}
    assert outcomes[broken.run_id].state == states.FAILED
    assert "IndexError" in outcomes[broken.run_id].error
    assert states_of(runs, tmp_path) == [states.FAILED, states.DONE, states.DONE]
    assert "embedding" in Store(tmp_path).run(broken.run_id).traceback.read_text()
    assert Store(tmp_path).run(broken.run_id).status()["error"] == outcomes[broken.run_id].error


def test_a_killed_worker_fails_its_run_and_the_next_launch_resumes_it(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    victim = replace(tiny_run, steps=4000)
    runs = [victim, *(replace(tiny_run, seed=seed) for seed in range(3))]
    killed: list[int] = []

    def kill_once(event: Progress | Outcome) -> None:
        if isinstance(event, Progress) and event.run_id == victim.run_id and event.step > 50 and not killed:
            owner = Store(tmp_path).run(victim.run_id).claim.owner()
            assert owner is not None
            os.kill(owner.pid, signal.SIGKILL)
            killed.append(owner.pid)

    outcomes = {o.run_id: o for o in pool(tmp_path, corpus, checkpoint_interval_s=0.05).run(runs, kill_once)}
    assert len(killed) == 1
    assert outcomes[victim.run_id].state == states.FAILED
    assert "exit code -9" in outcomes[victim.run_id].error
    assert [outcomes[run.run_id].state for run in runs[1:]] == [states.DONE] * 3

    assert Store(tmp_path).unfinished(runs) == [victim]
    (outcome,) = pool(tmp_path, corpus).run([victim], lambda event: None)
    assert outcome.state == states.DONE
    alone = Store(tmp_path / "alone").run(victim.run_id)
    train(victim, corpus, alone)
    assert Store(tmp_path).run(victim.run_id).curve.read_bytes() == alone.curve.read_bytes()


LAUNCH = """
import sys
from pathlib import Path
from sweep.config import ClusterConfig
from sweep.launch.launchers import Launch
from sweep.launch.pool import Pool
from sweep.store import Store
store, corpus, run_id = sys.argv[1:]
if __name__ == "__main__":
    run = Store(Path(store)).run(run_id).config()
    cluster = ClusterConfig(log_interval_s=0.05)
    launch = Launch(name="x", store=Store(Path(store)), corpus=Path(corpus), device="cpu", cluster=cluster)
    print(Pool(launch=launch, workers=1).run([run], lambda event: print("going", flush=True))[0].state)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_pool_leaves_a_checkpoint_and_no_process(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, how: signal.Signals
) -> None:
    run = replace(tiny_run, steps=8000)
    directory = Store(tmp_path / "store").run(run.run_id)
    directory.create(run)
    script = tmp_path / "launch.py"
    script.write_text(LAUNCH)
    command = [sys.executable, str(script), str(tmp_path / "store"), str(corpus.directory), run.run_id]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        process.wait(timeout=PATIENCE_S)
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert not alive
    wait_until(lambda: directory.status()["state"] == states.INTERRUPTED)
    assert 0 < directory.status()["step"] < 8000
    assert train(run, corpus, directory) == states.DONE
    alone = Store(tmp_path / "alone").run(run.run_id)
    train(run, corpus, alone)
    assert directory.curve.read_bytes() == alone.curve.read_bytes()


def test_nohup_is_kept() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as stopping:
            signal.raise_signal(signal.SIGHUP)
            assert not stopping()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_parent_that_lost_the_run_writes_no_failure(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    store = Store(tmp_path)
    directory = store.run(tiny_run.run_id)
    directory.create(tiny_run)
    with directory.own() as claim:
        assert claim is not None
        directory.write_status(states.RUNNING, claim, step=3)
        assert record_failure(store, tiny_run, "it broke").state == states.RUNNING
        assert directory.status()["state"] == states.RUNNING
    assert train(tiny_run, corpus, directory) == states.DONE
    before = (directory.path / "status.json").read_bytes()
    assert record_failure(store, tiny_run, "it broke", "Traceback").state == states.DONE
    assert (directory.path / "status.json").read_bytes() == before
    assert not directory.traceback.exists()
    with directory.own() as claim:
        assert claim is not None
        with pytest.raises(LostError):
            directory.write_status(states.RUNNING, claim, step=2)


def test_pool_size_suits_the_machine() -> None:
    assert pool_size(ClusterConfig(workers="3"), "cpu") == 3
    cores = len(os.sched_getaffinity(0))
    assert pool_size(ClusterConfig(), "cpu") == cores
    assert pool_size(ClusterConfig(threads=cores), "cpu") == 1


def test_a_worker_that_was_asked_to_stop_is_replaced(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    victim = replace(tiny_run, steps=8000)
    stopped: list[int] = []

    def stop_once(event: Progress | Outcome) -> None:
        owner = Store(tmp_path).run(victim.run_id).claim.owner()
        if isinstance(event, Progress) and event.run_id == victim.run_id and not stopped and owner is not None:
            os.kill(owner.pid, signal.SIGTERM)
            stopped.append(owner.pid)

    runs = [victim, replace(tiny_run, seed=1)]
    outcomes = {outcome.run_id: outcome.state for outcome in pool(tmp_path, corpus, workers=1).run(runs, stop_once)}
    assert outcomes == {victim.run_id: states.INTERRUPTED, runs[1].run_id: states.DONE}
