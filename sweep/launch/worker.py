"""A worker process of the pool: one interpreter trains many runs, one after another, and survives those that fail."""

import fcntl
import math
import os
import platform
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from sweep.launch.events import Event, Outcome
from sweep.launch.launchers import Launch
from sweep.launch.signals import STOP_SIGNALS, StopFlag
from sweep.plan.run import RunConfig
from sweep.store import Store, states

if TYPE_CHECKING:
    from sweep.data import Corpus
    from sweep.train.loop import Runtime


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker's first message: it can take runs, or `error` says why it cannot.

    `free_bytes` is the memory that its GPU had free; infinite on a CPU.
    """

    free_bytes: float = math.inf
    error: str = ""


def work(connection: Connection, launch: Launch, index: int) -> None:
    """Train the runs that `connection` delivers, and report on it, until it closes."""
    with StopFlag() as stopping:  # before the slow imports: a signal must not end the process half-way through them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        parent = os.getppid()

        def orphaned_or_stopping(step: int = 0) -> bool:
            # A pool that was killed cannot ask its workers to stop: they notice that their parent has changed.
            return stopping() or os.getppid() != parent

        def report(event: "Event | Ready") -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the pool was killed; the run notices that itself
                connection.send(event)

        try:
            corpus, runtime, ready = _prepare(launch, index)
        except Exception as error:
            report(Ready(error=f"{type(error).__name__}: {error}"))
            return
        report(ready)
        store = launch.store
        while not orphaned_or_stopping():
            try:
                if connection.poll(1):
                    run = connection.recv()
                    own = replace(runtime, compile_pays=run.run_id in launch.worth_compiling)
                    report(train_safely(run, corpus, store, own, on_progress=report, should_stop=orphaned_or_stopping))
                    if launch.device == "cuda":
                        _empty_gpu_cache()
            except (EOFError, ConnectionResetError):
                return


def _prepare(launch: Launch, index: int) -> tuple["Corpus", "Runtime", Ready]:
    """Choose this worker's GPU and threads, which must come before anything computes, and open the corpus."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(launch.store.compiled))  # before torch reads it
    import torch

    torch.set_num_threads(launch.cluster.threads)
    ready = Ready()
    if launch.device == "cuda":
        gpu = index % torch.cuda.device_count()
        torch.cuda.set_device(gpu)
        _measure_peak(launch.store, gpu)
        ready = Ready(free_bytes=torch.cuda.mem_get_info()[0])
    from sweep.data import Corpus
    from sweep.train.loop import Runtime

    runtime = Runtime(
        device=launch.device,
        compile=launch.compile,
        checkpoint_interval_s=launch.cluster.checkpoint_interval_s,
        log_interval_s=launch.cluster.log_interval_s,
        micro_batch=launch.cluster.micro_batch,
    )
    return Corpus.open(launch.corpus), runtime, ready


def _measure_peak(store: Store, gpu: int) -> None:
    """Measure the GPU's peak, which MFU is relative to: the workers take turns, before any of them trains."""
    from sweep.train.device import matmul_peak

    with open(store.root / f".gpu-{platform.node()}-{gpu}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        matmul_peak("cuda", "bf16")
        _empty_gpu_cache()


def _empty_gpu_cache() -> None:
    """Return the memory that torch keeps to the GPU, for other processes to use."""
    import torch

    with suppress(RuntimeError):  # after a fault of the device nothing works; the pool then replaces this process
        torch.cuda.empty_cache()


def train_safely(run: RunConfig, corpus: "Corpus", store: Store, runtime: "Runtime", **callbacks: Any) -> Outcome:
    """Train `run`. An exception becomes its outcome and its status, and does not end this process."""
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
    """Write to the run's status that it failed, if the store can still be written."""
    directory = store.run(run.run_id)
    message = error.splitlines()[0][:500]
    try:
        directory.create(run)  # it may have failed before that
        status = {key: value for key, value in directory.status().items() if key not in ("state", "updated", "error")}
        directory.write_status(states.FAILED, **status, error=message)
    except (OSError, ValueError) as second:
        message += f" (and its status could not be written: {second})"
    return Outcome(run_id=run.run_id, state=states.FAILED, error=message)
