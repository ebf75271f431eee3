"""A pool of worker processes on this machine. A run that fails stops no other run."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from sweep.config import ClusterConfig
from sweep.errors import InputError
from sweep.launch import mps
from sweep.launch.ahead import Ahead
from sweep.launch.launchers import Launch
from sweep.launch.room import Room
from sweep.launch.signals import STOP_SIGNALS, StopFlag
from sweep.launch.worker import Ready, record_failure, work
from sweep.machine import cores
from sweep.plan.cost import MAX_STREAMS, fits_beside
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.train.events import Event, Outcome

MAX_DEATHS_AT_START = 3
MAX_REFUSALS = 20  # after a fault, MPS may refuse new processes until those that it had are gone
REFUSAL_S = 1.0
MAX_IDLE_EXIT_S = 60  # that a worker without a run may take to end


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of up to `workers` processes for a launch.

    Worker k uses GPU k modulo their number, and a GPU trains as many runs at a time as `sweep.plan.cost` lets it. More than one
    at a time needs MPS; without it, one is the most that cluster.workers=auto does.
    """

    launch: Launch
    workers: int

    def run(
        self, runs: Sequence[RunConfig], on_event: Callable[[Event], None], stopping: StopFlag | None = None
    ) -> list[Outcome]:
        """Train `runs` in order, each on the first free worker that has room, and report events as they come.

        While the disk is full no run is handed out, and runs that stopped for that go on when there is room. A worker that dies
        fails only its own run, and a new worker replaces it. A worker on a GPU is also replaced after a failed run, which may
        have left the device unusable to the process. Under MPS a fault of one process is a fault of all on its GPU: a run that
        failed beside others is trained once more, later and alone. `STOP_SIGNALS` let every run write a checkpoint; those runs
        end "interrupted", and the runs that had not begun "waiting". `stopping` is the flag that these signals set; a caller
        that passes its own, already entered, can ask it which signal came.

        Raises InputError if workers cannot start; runs that are in training then write a checkpoint.
        """
        if stopping is None:
            with StopFlag() as stopping:
                return self.run(runs, on_event, stopping)
        gpus = _gpus() if self.launch.device == "cuda" else 0
        with mps.served(wanted=0 < gpus < self.workers) as shared, Ahead(runs, self.launch, cores()) as ahead:
            one_each = gpus and not shared and self.launch.cluster.workers == "auto"
            count = min(gpus if one_each else self.workers, len(runs))
            return _Training(self.launch, count, gpus, shared, ahead, on_event, stopping).of(list(runs))


class _Training:
    """What goes on while a pool trains: workers, and the runs that are still to be handed out.

    Args:
        launch, on_event, stopping: as in `Pool`.
        workers: how many.
        gpus: how many, 0 on a CPU.
        shared: whether a fault of one process on a GPU is one of all.
        ahead: what compiles for the workers.
    """

    def __init__(
        self,
        launch: Launch,
        workers: int,
        gpus: int,
        shared: bool,
        ahead: Ahead,
        on_event: Callable[[Event], None],
        stopping: StopFlag,
    ) -> None:
        self.launch, self.gpus, self.shared, self.ahead = launch, gpus, shared, ahead
        self.on_event, self.stopping = on_event, stopping
        self.outcomes: list[Outcome] = []
        self.again: set[str] = set()  # run_ids of the runs that are trained once more
        self.failed_starts = 0  # one after another
        self.room = Room(launch.store.root, launch.keep)
        self.workers = [_Worker.start(launch, k) for k in range(workers)]

    def of(self, queue: list[RunConfig]) -> list[Outcome]:
        """Train the runs of `queue`; how each ended."""
        self.queue = queue
        try:
            while True:
                if not self.stopping() and queue and self.room.there_is(queue[0]):
                    self._hand_out()
                training = [worker for worker in self.workers if worker.run is not None]
                if not training and (self.stopping() or not queue):
                    break
                listening = {each.connection: each for each in self.workers if each in training or each.ready is None}
                for connection in wait(list(listening), timeout=0.2 if self.ahead.going else 1):
                    worker = listening[connection]  # type: ignore[index]  # wait returns what it was given
                    if worker in self.workers:  # it may have been replaced just now
                        self._hear(worker)
                if self.stopping():
                    for worker in self.workers:
                        worker.ask_to_stop()
        finally:
            for worker in self.workers:
                worker.close()
        return self.outcomes + [Outcome(run_id=run.run_id, state=states.WAITING) for run in queue]

    def _hand_out(self) -> None:
        """Give every idle worker the first run in the queue that fits on its GPU beside the runs in training there, and has not
        to wait for a compiler."""
        free = [worker.ready.free_bytes for worker in self.workers if worker.ready is not None]
        self.ahead.go_on(self.queue, max(free, default=0.0))
        for worker in self.workers:
            if worker.ready is None or worker.run is not None:
                continue
            neighbours = [other for other in self.workers if self._same_gpu(worker, other)]
            # A worker that started later found less memory free, because others were training: the largest value counts.
            free_bytes = max(other.ready.free_bytes for other in neighbours if other.ready is not None)
            training = [other for other in neighbours if other.run is not None]
            beside = [other.run for other in training if other.run is not None]
            if any(run.run_id in self.again for run in beside):
                continue
            for run in self.queue:
                if beside and run.run_id in self.again:
                    continue
                if self.ahead.has(run) and fits_beside(run, beside, free_bytes, worker.ready.tokens_bytes):
                    self.queue.remove(run)
                    worker.give(run)
                    for each in (worker, *training):
                        each.beside |= bool(beside)
                    break

    def _hear(self, worker: "_Worker") -> None:
        """Take the next message of `worker`, and replace the workers that it is the end of."""
        event = worker.receive()
        if event is None or (isinstance(event, Ready) and event.error):
            self._failed_start(worker, event.error if event else "")
        elif isinstance(event, Ready):
            self.failed_starts = 0
        elif isinstance(event, Outcome) and event.disk_full and not self.stopping():
            self.queue.insert(0, worker.last)
            self.room.was_full(event.error)
        elif isinstance(event, Outcome) and event.state == states.FAILED:
            if self.shared and worker.beside and event.run_id not in self.again:
                self.again.add(event.run_id)
                self.queue.append(worker.last)
            else:
                self._report(event)
            lost = [worker] if self.gpus or not worker.process.is_alive() else []
            lost += [other for other in self.workers if self.shared and other.run is None and self._same_gpu(worker, other)]
            self._replace(*dict.fromkeys(lost))
        else:
            self.room.was_enough()
            self._report(event)
            interrupted = isinstance(event, Outcome) and event.state == states.INTERRUPTED  # by a signal
            if interrupted or not worker.process.is_alive():
                self._replace(worker)

    def _report(self, event: Event) -> None:
        if isinstance(event, Outcome):
            self.outcomes.append(event)
        self.on_event(event)

    def _failed_start(self, worker: "_Worker", error: str) -> None:
        """Replace a worker that could not start. Raises InputError if that cannot be expected to help."""
        self.failed_starts += 1
        refused = self.shared and (not error or "CUDA" in error)
        if error and (not refused or self.failed_starts > MAX_REFUSALS):
            raise InputError(f"a worker process cannot start: {error}")
        if self.failed_starts > (MAX_REFUSALS if refused else MAX_DEATHS_AT_START):
            raise InputError(f"worker processes die at their start (exit code {worker.process.exitcode})")
        if refused:
            time.sleep(REFUSAL_S)
        self._replace(worker)

    def _replace(self, *workers: "_Worker") -> None:
        for worker in workers:
            worker.close()
            self.workers.remove(worker)
            if not self.stopping():
                self.workers.append(_Worker.start(self.launch, worker.index))

    def _same_gpu(self, worker: "_Worker", other: "_Worker") -> bool:
        return worker.index % self.gpus == other.index % self.gpus if self.gpus else worker is other


class _Worker:
    """The parent's end of one worker process. Its run is None while it has none; `last` is the run that it had last, and
    `beside` whether another run was in training on its GPU at some time meanwhile."""

    def __init__(self, index: int, process: BaseProcess, connection: Connection, store: Store) -> None:
        self.index, self.process, self.connection, self.store = index, process, connection, store
        self.run: RunConfig | None = None
        self.last: RunConfig
        self.beside = False
        self.ready: Ready | None = None
        self.asked_to_stop = False

    @classmethod
    def start(cls, launch: Launch, index: int) -> "_Worker":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, launch, index), name=f"isosweep-worker-{index}")
        # The child inherits what is blocked, so a signal that comes before it can handle it waits until it can.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return cls(index, process, ours, launch.store)

    def give(self, run: RunConfig) -> None:
        self.run = self.last = run
        self.beside = False
        with suppress(OSError):  # it died while idle: receive will find that out
            self.connection.send(run)

    def receive(self) -> "Event | Ready | None":
        """The next message; if the process has died, the failure of its run, or None if it had none."""
        try:
            event = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            if self.run is None:
                return None
            error = f"the worker process died (exit code {self.process.exitcode}); launch --retry failed resumes the run"
            event = record_failure(self.store, self.run, error)
        if isinstance(event, Outcome):
            self.run = None
        elif isinstance(event, Ready) and not event.error:
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
        self.process.join(None if self.run is not None else MAX_IDLE_EXIT_S)
        if self.process.is_alive():  # it has no run and hangs, in a driver after a fault or in a compiler's pool
            self.process.kill()
            self.process.join()


def pool_size(cluster: ClusterConfig, device: str) -> int:
    """Workers for this machine: as configured, else as many as its GPUs can use, or its cores at `threads` each."""
    if cluster.workers != "auto":
        return int(cluster.workers)
    if device == "cuda":
        return max(1, min(streams_per_gpu() * _gpus(), cores()))
    return max(1, cores() // cluster.threads)


def streams_per_gpu() -> int:
    """The most runs that a GPU of this machine trains at a time."""
    return MAX_STREAMS if mps.available() else 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
