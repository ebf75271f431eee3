"""The processes that train: a worker of the pool, which trains one run after another, or a rank of a single run."""

import math
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from sweep.claim import LostError, alone
from sweep.config import ClusterConfig
from sweep.errors import InputError, one_line
from sweep.files import is_disk_full, read_json, write_json
from sweep.launch.launchers import Launch, Watch
from sweep.launch.record import RecordedStop, recorded
from sweep.launch.signals import STOP_SIGNALS, StopFlag
from sweep.plan.cost import token_bytes, worth_compiling
from sweep.plan.run import PRECISIONS, RunConfig
from sweep.store import Store, states
from sweep.train.events import Event, Outcome

if TYPE_CHECKING:
    from sweep.data import Corpus
    from sweep.train.loop import Runtime
    from sweep.train.ranks import Parallel


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker's first message: it can take runs, or `error` says why not. `free_bytes` of its GPU are infinite on a CPU; the
    corpus takes `tokens_bytes` of them, for each process."""

    free_bytes: float = math.inf
    tokens_bytes: int = 0
    error: str = ""


def work(connection: Connection, launch: Launch, index: int) -> None:
    """Train the runs that `connection` delivers, and report on it, until it closes. A run that fails stops no other run."""
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
        while not orphaned_or_stopping():
            try:
                if connection.poll(1):
                    run = connection.recv()
                    own = replace(runtime, compile_pays=run.run_id in launch.worth_compiling)
                    report(train_safely(run, corpus, launch.store, own, on_progress=report, should_stop=orphaned_or_stopping))
                    if launch.device == "cuda":
                        empty_gpu_cache()
            except (EOFError, ConnectionResetError):
                return


def train_together(
    parallel: "Parallel",
    find: Callable[[], tuple[RunConfig, "Corpus", int]],
    store: Store,
    cluster: ClusterConfig,
    compile: str,
    watch: Watch,
) -> int:
    """Train a run in this process, one of its ranks; the exit code: 0 if the run is done, else 1.

    SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 to any rank lets all finish their step, write a checkpoint and end, and so does
    `isosweep cancel`. If one fails or dies, the others end too: the ranks communicate on the host before every step, where a
    lost connection is an error at once.

    Args:
        parallel: this process, not connected yet.
        find: returns the run, its corpus and evaluation.keep; called on rank 0, and may raise InputError.
        store, cluster, compile: as in `Launch`.
        watch: what to watch the run with, on rank 0.
    """
    runtime = set_up_torch(store, cluster, parallel.device, compile)
    parent = os.getppid()
    with RecordedStop() as stopping, parallel:
        run, corpus, keep = parallel.on_rank0(find)
        runtime = replace(runtime, compile_pays=bool(worth_compiling([run])), keep=keep, parallel=parallel)

        def should_stop(step: int) -> bool:
            # A launcher that was killed cannot ask its processes to stop: they notice that their parent has changed.
            return stopping() or (parallel.size > 1 and os.getppid() != parent)

        on_rank0 = parallel.rank == 0
        with (
            recorded([run], store, stopping) if on_rank0 else nullcontext(),
            watch([run], stopping) if on_rank0 else nullcontext(lambda event: None) as report,
        ):
            outcome = train_safely(run, corpus, store, runtime, on_progress=report, should_stop=should_stop)
            report(outcome)
        if outcome.state == states.FAILED and parallel.size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)  # not through the interpreter's exit, where libraries may wait for processes that are gone
    return int(outcome.state != states.DONE)


def _prepare(launch: Launch, index: int) -> tuple["Corpus", "Runtime", Ready]:
    """Choose this worker's threads and GPU, which must come before anything computes, and open the corpus."""
    runtime, ready = set_up_torch(launch.store, launch.cluster, launch.device, launch.compile), Ready()
    runtime = replace(runtime, keep=launch.keep)
    from sweep.data import Corpus

    corpus = Corpus.open(launch.corpus)
    if launch.device == "cuda":
        import torch

        gpu = index % torch.cuda.device_count()
        torch.cuda.set_device(gpu)
        runtime = replace(runtime, peaks=_peaks(launch.store, gpu))
        tokens_bytes = token_bytes(len(corpus.tokens("train")), corpus.vocab_size)
        ready = Ready(free_bytes=torch.cuda.mem_get_info()[0], tokens_bytes=tokens_bytes)
    return corpus, runtime, ready


def set_up_torch(store: Store, cluster: ClusterConfig, device: str, compile: str) -> "Runtime":
    """Import torch with this process's cache and number of threads; how to train on `device`."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(store.compiled))  # before torch reads it
    import torch

    from sweep.train.loop import Runtime

    torch.set_num_threads(cluster.threads)
    return Runtime(
        device=device,
        compile=compile,
        checkpoint_interval_s=cluster.checkpoint_interval_s,
        log_interval_s=cluster.log_interval_s,
        micro_batch=cluster.micro_batch,
    )


def _peaks(store: Store, gpu: int) -> dict[str, float]:
    """The GPU's peaks by precision, which MFU is relative to. The first worker of a store measures them, while the others wait
    and before any of them trains; who comes later reads them."""
    from sweep.train.device import describe_device, matmul_peak

    path = store.root / f".gpu-{platform.node()}-{gpu}.json"
    with alone(path.with_suffix(".claim")):
        with suppress(FileNotFoundError, InputError, KeyError):
            kept = read_json(path, dict, "")
            if kept["device"] == describe_device("cuda") and set(PRECISIONS) <= set(kept["peaks"]):
                return dict(kept["peaks"])
        peaks = {precision: matmul_peak("cuda", precision) for precision in PRECISIONS}
        write_json(path, {"device": describe_device("cuda"), "peaks": peaks})
    empty_gpu_cache()
    return peaks


def empty_gpu_cache() -> None:
    """Return the memory that torch keeps to the GPU, for other processes to use."""
    import torch

    with suppress(RuntimeError):  # after a fault of the device nothing works; the pool then replaces this process
        torch.cuda.empty_cache()


def train_safely(run: RunConfig, corpus: "Corpus", store: Store, runtime: "Runtime", **callbacks: Any) -> Outcome:
    """Train `run`. An exception becomes its outcome and its status, and does not end this process.

    The ranks beside rank 0 print the exception instead of writing it to the store.
    """
    from sweep.train.loop import train

    on_rank0 = runtime.parallel.rank == 0
    try:
        directory = store.run(run.run_id)
        state = train(run, corpus, directory, runtime, **callbacks)
        training_s = directory.status_or_failed().get("training_s", 0.0) if on_rank0 else 0.0
        return Outcome(run_id=run.run_id, state=state, training_s=training_s)
    except Exception as error:  # one run's failure must not stop the sweep
        if not on_rank0:
            if not isinstance(error, InputError):
                traceback.print_exc()
            return Outcome(run_id=run.run_id, state=states.FAILED, error=str(error))
        if is_disk_full(error):  # the run is as good as before, and goes on when there is room
            return Outcome(run_id=run.run_id, state=states.INTERRUPTED, error=one_line(error), disk_full=True)
        return record_failure(store, run, f"{type(error).__name__}: {error}", traceback.format_exc())


def record_failure(store: Store, run: RunConfig, error: str, trace: str = "") -> Outcome:
    """Write to the run's status that it failed, if the store can still be written; how the run ended. A run that has come to
    its end, or that another process has taken over, is left as it is."""
    directory = store.run(run.run_id)
    message = error.splitlines()[0][:500]
    try:
        with directory.own() as claim:
            if claim is None:
                return Outcome(run_id=run.run_id, state=states.RUNNING)
            before = directory.status()
            if before["state"] in states.FINAL_STATES:
                return Outcome(run_id=run.run_id, state=before["state"])
            if trace:
                directory.traceback.write_text(trace)
            kept = {key: value for key, value in before.items() if key not in ("state", "updated", "error")}
            directory.write_status(states.FAILED, claim, **kept, error=message)
    except LostError:
        return Outcome(run_id=run.run_id, state=states.RUNNING)
    except (OSError, ValueError) as second:
        message += f" (and its status could not be written: {second})"
    return Outcome(run_id=run.run_id, state=states.FAILED, error=message)
