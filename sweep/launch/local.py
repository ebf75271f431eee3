"""A pool of worker processes on this machine: one interpreter trains many runs, and one failing run stops no other.

This module is imported by every worker before it knows its threads, so it imports no torch at the top.
"""

import fcntl
import math
import multiprocessing
import os
import platform
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import ClusterConfig
from sweep.errors import InputError
from sweep.plan.cost import MAX_STREAMS, fits_beside
from sweep.plan.run import RunConfig
from sweep.store import Store, states

if TYPE_CHECKING:
    from sweep.data import Corpus
    from sweep.train.loop import Progress, Runtime


MAX_DEATHS_AT_START = 3
LONGEST_END_S = 60  # of a process without a run
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: its state, the last line of why it failed if it did, and the seconds spent in training steps."""

    run_id: str
    state: str
    error: str = ""
    training_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker can take runs. `free_bytes` is what its GPU had free, infinite on a CPU; `error` is why it never will."""

    free_bytes: float = math.inf
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Where and how the pool works.

    Attributes:
        store: root of the store.
        corpus: directory of the corpus that all runs share.
        device: "cpu" or "cuda"; worker k uses GPU k modulo their number, and a GPU trains as many runs at a time as
            `sweep.plan.cost` lets it.
        workers, threads: processes, and torch threads of each.
        cluster: intervals and micro-batch.
        compile: as `RuntimeConfig.compile`.
        worth_compiling: run_id of the runs that "auto" compiles.
    """

    store: Path
    corpus: Path
    device: str
    workers: int
    threads: int
    cluster: ClusterConfig
    compile: str = "auto"
    worth_compiling: frozenset[str] = frozenset()

    def run(
        self,
        runs: Sequence[RunConfig],
        on_event: Callable[["Progress | Outcome"], None],
        stopping: "StopFlag | None" = None,
    ) -> list[Outcome]:
        """Train `runs` in order, each by the first free worker that has room, and report progress and outcomes as they come.

        A worker that dies fails its run alone, and another takes its place; so it does after a failed run on a GPU, which
        may have left the device unusable to the process. SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 let every run
        write a checkpoint; those and the runs not begun come back as "interrupted" and "waiting". `stopping` is the flag that
        these signals set, if the caller wants to know which came.

        Raises:
            InputError: if workers cannot start; runs that are in training then write a checkpoint.
        """
        if stopping is None:
            with StopFlag() as stopping:
                return self._run(runs, on_event, stopping)
        return self._run(runs, on_event, stopping)

    def _run(
        self, runs: Sequence[RunConfig], on_event: Callable[["Progress | Outcome"], None], stopping: "StopFlag"
    ) -> list[Outcome]:
        queue, outcomes, deaths = list(runs), [], 0
        workers = [self._start(k) for k in range(min(self.workers, len(runs)))]
        try:
            while True:
                if not stopping():
                    self._hand_out(queue, workers)
                training = [worker for worker in workers if worker.run is not None]
                if not training and (stopping() or not queue):
                    break
                listening = {worker.connection: worker for worker in workers if worker in training or worker.ready is None}
                for connection in wait(list(listening), timeout=1):
                    worker = listening[connection]  # type: ignore[index]  # wait returns what it was given
                    event = worker.receive()
                    if isinstance(event, Ready):
                        continue
                    if event is None:
                        deaths += 1
                        if deaths > MAX_DEATHS_AT_START:
                            raise InputError(f"worker processes die at their start (exit code {worker.process.exitcode})")
                    else:
                        on_event(event)
                    if isinstance(event, Outcome):
                        outcomes.append(event)
                    spoilt = isinstance(event, Outcome) and event.state == states.FAILED and self.device == "cuda"
                    if spoilt or not worker.process.is_alive():
                        worker.close()
                        workers[workers.index(worker)] = self._start(worker.index)
                if stopping():
                    for worker in workers:
                        worker.ask_to_stop()
        finally:
            for worker in workers:
                worker.close()
        return outcomes + [Outcome(run_id=run.run_id, state=states.WAITING) for run in queue]

    def _hand_out(self, queue: list[RunConfig], workers: Sequence["_Worker"]) -> None:
        """Give every idle worker the first run in `queue` that its GPU has room for, beside what the GPU is training."""
        gpus = _gpus() if self.device == "cuda" else len(workers)
        for worker in workers:
            if worker.ready is None or worker.run is not None:
                continue
            neighbours = [other for other in workers if other.index % gpus == worker.index % gpus]
            beside = [other.run for other in neighbours if other.run is not None]
            # Who started later found less free, because others were training: what they found is what there was.
            free_bytes = max(other.ready.free_bytes for other in neighbours if other.ready is not None)
            run = next((run for run in queue if fits_beside(run, beside, free_bytes)), None)
            if run is not None:
                queue.remove(run)
                worker.give(run)

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
        self.ready: Ready | None = None
        self.asked_to_stop = False

    def give(self, run: RunConfig) -> None:
        self.run = run
        with suppress(OSError):  # it died while idle: receive will find that out
            self.connection.send(run)

    def receive(self) -> "Progress | Outcome | Ready | None":
        """The next message; if the process has died, the failure of its run, or None if it had none.

        Raises:
            InputError: if the process says that it cannot start.
        """
        try:
            event = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            if self.run is None:
                return None
            error = f"the worker process died (exit code {self.process.exitcode}); launch --retry failed resumes the run"
            event = record_failure(Store(self.store), self.run, error)
        if isinstance(event, Outcome):
            self.run = None
        elif isinstance(event, Ready):
            if event.error:
                raise InputError(f"a worker process cannot start: {event.error}")
            self.ready = event
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
        self.process.join(None if self.run is not None else LONGEST_END_S)
        if self.process.is_alive():  # it has no run, and hangs: a driver after a fault, a compiler's pool
            self.process.kill()
            self.process.join()


def _work(connection: Connection, pool: Pool, index: int) -> None:
    """A worker's life: train what comes down the pipe until it closes."""
    with StopFlag() as stopping:  # before the slow imports: a signal must not end the process half-way through them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        parent = os.getppid()

        def orphaned_or_stopping(step: int = 0) -> bool:
            # A pool that was killed outright cannot ask: its workers see that they are orphans.
            return stopping() or os.getppid() != parent

        def report(event: "Progress | Outcome | Ready") -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the pool was killed: the run will see that and stop
                connection.send(event)

        try:
            corpus, runtime, ready = _prepare(pool, index)
        except Exception as error:
            report(Ready(error=f"{type(error).__name__}: {error}"))
            return
        report(ready)
        store, watch = Store(pool.store), {"on_progress": report, "should_stop": orphaned_or_stopping}
        while not orphaned_or_stopping():
            try:
                if connection.poll(1):
                    run = connection.recv()
                    own = replace(runtime, compile_pays=run.run_id in pool.worth_compiling)
                    report(train_safely(run, corpus, store, own, **watch))
                    if pool.device == "cuda":
                        _give_back_memory()
            except (EOFError, ConnectionResetError):
                return


def _prepare(pool: Pool, index: int) -> tuple["Corpus", "Runtime", Ready]:
    """Choose this worker's GPU and threads, which must come before anything computes, and open the corpus."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Store(pool.store).compiled))  # before torch reads it
    import torch

    torch.set_num_threads(pool.threads)
    ready = Ready()
    if pool.device == "cuda":
        torch.cuda.set_device(index % torch.cuda.device_count())
        _measure_peak_alone(pool, index % torch.cuda.device_count())
        ready = Ready(free_bytes=torch.cuda.mem_get_info()[0])
    from sweep.data import Corpus
    from sweep.train.loop import Runtime

    runtime = Runtime(
        device=pool.device,
        compile=pool.compile,
        checkpoint_interval_s=pool.cluster.checkpoint_interval_s,
        log_interval_s=pool.cluster.log_interval_s,
        micro_batch=pool.cluster.micro_batch,
    )
    return Corpus.open(pool.corpus), runtime, ready


def _measure_peak_alone(pool: Pool, gpu: int) -> None:
    """Measure what MFU is relative to, one worker after another, before any trains."""
    from sweep.train.device import matmul_peak

    with open(pool.store / f".gpu-{platform.node()}-{gpu}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        matmul_peak("cuda", "bf16")
        _give_back_memory()


def _give_back_memory() -> None:
    """Leave the GPU's memory that a run took to whoever needs it next."""
    import torch

    with suppress(RuntimeError):  # after a fault of the device nothing works; the pool then replaces this process
        torch.cuda.empty_cache()


def train_safely(run: RunConfig, corpus: "Corpus", store: Store, runtime: "Runtime", **callbacks: Any) -> Outcome:
    """Train `run`; whatever goes wrong becomes its outcome and its status, not this process's end."""
    from sweep.train.loop import train

    try:
        directory = store.run(run.run_id)
        state = train(run, corpus, directory, runtime, **callbacks)
        return Outcome(run_id=run.run_id, state=state, training_s=directory.status().get("training_s", 0.0))
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
    """Workers for this machine: as configured, else as many as its GPUs may have use for, or `threads` each leave room for."""
    if cluster.workers != "auto":
        return int(cluster.workers)
    if device == "cuda":
        return max(1, min(MAX_STREAMS * _gpus(), _cores()))
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
