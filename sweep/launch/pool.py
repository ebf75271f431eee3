"""A pool of worker processes on this machine. A run that fails stops no other run."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from sweep.config import ClusterConfig
from sweep.errors import InputError
from sweep.launch.launchers import Launch
from sweep.launch.signals import STOP_SIGNALS, StopFlag
from sweep.launch.worker import Ready, record_failure, work
from sweep.plan.cost import MAX_STREAMS, fits_beside
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.train.events import Event, Outcome

MAX_DEATHS_AT_START = 3
MAX_IDLE_EXIT_S = 60  # that a worker without a run may take to end


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of up to `workers` processes for a launch.

    Worker k uses GPU k modulo their number, and a GPU trains as many runs at a time as `sweep.plan.cost` lets it.
    """

    launch: Launch
    workers: int

    def run(
        self, runs: Sequence[RunConfig], on_event: Callable[[Event], None], stopping: StopFlag | None = None
    ) -> list[Outcome]:
        """Train `runs` in order, each on the first free worker that has room, and report events as they come.

        A worker that dies fails only its own run, and a new worker replaces it. A worker on a GPU is also replaced after a
        failed run, which may have left the device unusable to the process. SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 let every run
        write a checkpoint; those runs end "interrupted", and the runs that had not begun "waiting". `stopping` is the flag
        that these signals set; a caller that passes its own, already entered, can ask it which signal came.

        Raises InputError if workers cannot start; runs that are in training then write a checkpoint.
        """
        if stopping is None:
            with StopFlag() as stopping:
                return self.run(runs, on_event, stopping)
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
                    ending = not worker.process.is_alive()
                    if isinstance(event, Outcome):
                        outcomes.append(event)
                        ending |= event.state == states.INTERRUPTED  # it got a signal
                        ending |= event.state == states.FAILED and self.launch.device == "cuda"
                    if ending:
                        worker.close()
                        workers.remove(worker)
                        if not stopping():
                            workers.append(self._start(worker.index))
                if stopping():
                    for worker in workers:
                        worker.ask_to_stop()
        finally:
            for worker in workers:
                worker.close()
        return outcomes + [Outcome(run_id=run.run_id, state=states.WAITING) for run in queue]

    def _hand_out(self, queue: list[RunConfig], workers: Sequence["_Worker"]) -> None:
        """Give every idle worker the first run in `queue` that fits on its GPU beside the runs in training there."""
        gpus = _gpus() if self.launch.device == "cuda" else len(workers)
        for worker in workers:
            if worker.ready is None or worker.run is not None:
                continue
            neighbours = [other for other in workers if other.index % gpus == worker.index % gpus]
            beside = [other.run for other in neighbours if other.run is not None]
            # A worker that started later found less memory free, because others were training: the largest value counts.
            free_bytes = max(other.ready.free_bytes for other in neighbours if other.ready is not None)
            run = next((run for run in queue if fits_beside(run, beside, free_bytes)), None)
            if run is not None:
                queue.remove(run)
                worker.give(run)

    def _start(self, index: int) -> "_Worker":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self.launch, index), name=f"isosweep-worker-{index}")
        # The child inherits what is blocked, so a signal that comes before it can handle it waits until it can.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return _Worker(index, process, ours, self.launch.store)


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, index: int, process: BaseProcess, connection: Connection, store: Store) -> None:
        self.index, self.process, self.connection, self.store = index, process, connection, store
        self.run: RunConfig | None = None
        self.ready: Ready | None = None
        self.asked_to_stop = False

    def give(self, run: RunConfig) -> None:
        self.run = run
        with suppress(OSError):  # it died while idle: receive will find that out
            self.connection.send(run)

    def receive(self) -> "Event | Ready | None":
        """The next message; if the process has died, the failure of its run, or None if it had none. Raises InputError if the
        process says that it cannot start."""
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
        self.process.join(None if self.run is not None else MAX_IDLE_EXIT_S)
        if self.process.is_alive():  # it has no run and hangs, in a driver after a fault or in a compiler's pool
            self.process.kill()
            self.process.join()


def pool_size(cluster: ClusterConfig, device: str) -> int:
    """Workers for this machine: as configured, else as many as its GPUs can use, or its cores at `threads` each."""
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
