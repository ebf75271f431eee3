"""A pool of worker processes on this machine: one interpreter trains many runs, and one failing run stops no other.

This module is imported by every worker before it knows its threads, so it imports no torch at the top.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import store as states
from sweep.config import ClusterConfig
from sweep.run import RunConfig
from sweep.store import Store

if TYPE_CHECKING:
    from sweep.data import Corpus
    from sweep.train import Progress, Runtime


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: a state of `sweep.store`, and for "failed" the last line of why."""

    run_id: str
    state: str
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Where and how the pool works.

    Attributes:
        store: root of the store.
        corpus: directory of the corpus that all runs share.
        device: "cpu" or "cuda"; worker k uses GPU k modulo their number.
        workers, threads: processes, and torch threads of each.
        cluster: intervals and micro-batch.
    """

    store: Path
    corpus: Path
    device: str
    workers: int
    threads: int
    cluster: ClusterConfig

    def run(
        self,
        runs: Sequence[RunConfig],
        on_event: Callable[["Progress | Outcome"], None],
        stopping: "StopFlag | None" = None,
    ) -> list[Outcome]:
        """Train `runs` in order, each by the first free worker, and report progress and outcomes as they come.

        A worker that dies fails its run alone, and another takes its place. SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 let every run
        write a checkpoint; those and the runs not begun come back as "interrupted" and "waiting". `stopping` is the flag that
        these signals set, if the caller wants to know which came.
        """
        if stopping is None:
            with StopFlag() as stopping:
                return self._run(runs, on_event, stopping)
        return self._run(runs, on_event, stopping)

    def _run(
        self, runs: Sequence[RunConfig], on_event: Callable[["Progress | Outcome"], None], stopping: "StopFlag"
    ) -> list[Outcome]:
        queue, outcomes = list(reversed(runs)), []
        workers = [self._start(k) for k in range(min(self.workers, len(runs)))]
        try:
            while True:
                for worker in workers:
                    if worker.run is None and queue and not stopping():
                        worker.give(queue.pop())
                busy = {worker.connection: worker for worker in workers if worker.run is not None}
                if not busy:
                    break
                for connection in wait(list(busy), timeout=1):
                    worker = busy[connection]  # type: ignore[index]  # wait returns what it was given
                    event = worker.receive()
                    on_event(event)
                    if isinstance(event, Outcome):
                        outcomes.append(event)
                    if not worker.process.is_alive() and queue and not stopping():
                        workers[workers.index(worker)] = self._start(worker.index)
                if stopping():
                    for worker in workers:
                        worker.ask_to_stop()
        finally:
            for worker in workers:
                worker.close()
        return outcomes + [Outcome(run_id=run.run_id, state=states.WAITING) for run in reversed(queue)]

    def _start(self, index: int) -> "_Worker":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self, index), name=f"isosweep-worker-{index}")
        # A signal that comes before the worker can handle it waits until it can: it inherits what is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(index, process, ours, self.store)


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, index: int, process: BaseProcess, connection: Connection, store: Path) -> None:
        self.index, self.process, self.connection, self.store = index, process, connection, store
        self.run: RunConfig | None = None
        self.asked_to_stop = False

    def give(self, run: RunConfig) -> None:
        self.run = run
        with suppress(OSError):  # it died while idle: receive will find that out
            self.connection.send(run)

    def receive(self) -> "Progress | Outcome":
        """The next message; if the process has died, the failure of its run."""
        assert self.run is not None
        try:
            event = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            error = f"the worker process died (exit code {self.process.exitcode}); launch --retry failed resumes the run"
            event = record_failure(Store(self.store), self.run, error)
        if isinstance(event, Outcome):
            self.run = None
        return event

    def ask_to_stop(self) -> None:
        if not self.asked_to_stop and self.process.is_alive():
            self.process.terminate()
            self.asked_to_stop = True

    def close(self) -> None:
        """End the process: at once if it is idle, after a checkpoint if not."""
        if self.run is not None:
            self.ask_to_stop()
        self.connection.close()
        self.process.join()


def _work(connection: Connection, pool: Pool, index: int) -> None:
    """A worker's life: train what comes down the pipe until it closes."""
    with StopFlag() as stopping:  # before the slow imports: a signal must not end the process half-way through them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        parent = os.getppid()

        def orphaned_or_stopping(step: int = 0) -> bool:
            # A pool that was killed outright cannot ask: its workers see that they are orphans.
            return stopping() or os.getppid() != parent

        def report(event: "Progress | Outcome") -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the pool was killed: the run will see that and stop
                connection.send(event)

        corpus, runtime = _prepare(pool, index)
        store, watch = Store(pool.store), {"on_progress": report, "should_stop": orphaned_or_stopping}
        while not orphaned_or_stopping():
            try:
                if connection.poll(1):
                    report(train_safely(connection.recv(), corpus, store, runtime, **watch))
            except (EOFError, ConnectionResetError):
                return


def _prepare(pool: Pool, index: int) -> tuple["Corpus", "Runtime"]:
    """Choose this worker's GPU and threads, which must come before anything computes, and open the corpus."""
    if pool.device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(i) for i in range(_gpus())]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    import torch

    torch.set_num_threads(pool.threads)
    from sweep.data import Corpus
    from sweep.train import Runtime

    runtime = Runtime(
        device=pool.device,
        checkpoint_interval_s=pool.cluster.checkpoint_interval_s,
        log_interval_s=pool.cluster.log_interval_s,
        micro_batch=pool.cluster.micro_batch,
    )
    return Corpus.open(pool.corpus), runtime


def train_safely(run: RunConfig, corpus: "Corpus", store: Store, runtime: "Runtime", **callbacks: Any) -> Outcome:
    """Train `run`; whatever goes wrong becomes its outcome and its status, not this process's end."""
    from sweep.train import train

    try:
        state = train(run, corpus, store.run(run.run_id), runtime, **callbacks)
        return Outcome(run_id=run.run_id, state=state)
    except Exception as error:  # one run's failure must not stop the sweep
        with suppress(OSError):
            store.run(run.run_id).traceback.write_text(traceback.format_exc())
        return record_failure(store, run, f"{type(error).__name__}: {error}")


def record_failure(store: Store, run: RunConfig, error: str) -> Outcome:
    """Note in the run's status that it failed, if the store can still be written."""
    directory = store.run(run.run_id)
    message = error.splitlines()[0][:500]
    try:
        status = {key: value for key, value in directory.status().items() if key not in ("state", "updated", "error")}
        directory.write_status(states.FAILED, **status, error=message)
    except (OSError, ValueError) as second:
        message += f" (and its status could not be written: {second})"
    return Outcome(run_id=run.run_id, state=states.FAILED, error=message)


class StopFlag:
    """Says whether one of `STOP_SIGNALS` has come; a context manager. A second SIGINT in the parent interrupts as usual."""

    def __init__(self) -> None:
        self._received: list[int] = []

    def __call__(self) -> bool:
        return bool(self._received)

    def asked_to_requeue(self) -> bool:
        """Whether a user signal came, as Slurm sends before a time limit or a preemption."""
        return bool({signal.SIGUSR1, signal.SIGUSR2} & set(self._received))

    def __enter__(self) -> "StopFlag":
        self._before = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        self._received.append(number)
        if self._received.count(signal.SIGINT) > 1 and multiprocessing.parent_process() is None:
            raise KeyboardInterrupt


def pool_size(cluster: ClusterConfig, device: str) -> int:
    """Workers for this machine: as configured, else one per GPU, or as many as `threads` each leave room for."""
    if cluster.workers != "auto":
        return int(cluster.workers)
    if device == "cuda":
        return max(1, _gpus())
    return max(1, _cores() // cluster.threads)


def _cores() -> int:
    """Cores this process may use; where the system does not say (macOS), all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def missing(runs: Iterable[RunConfig], store: Store) -> list[RunConfig]:
    """Those of `runs` that have not come to their end, in the order given."""
    return [run for run in runs if store.run(run.run_id).status()["state"] not in states.FINAL_STATES]
