"""One run on all the processes that torchrun or srun started, the ranks of the run."""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from sweep.config import ClusterConfig
from sweep.errors import InputError
from sweep.launch.events import Outcome
from sweep.launch.launchers import Watch
from sweep.launch.signals import StopFlag
from sweep.launch.worker import train_safely
from sweep.plan.cost import worth_compiling
from sweep.plan.run import RunConfig
from sweep.store import Store, states

if TYPE_CHECKING:
    from sweep.data import Corpus
    from sweep.train.loop import Runtime
    from sweep.train.ranks import Parallel


def train_together(
    parallel: "Parallel",
    find: Callable[[], tuple[RunConfig, "Corpus"]],
    store: Store,
    cluster: ClusterConfig,
    compile: str,
    watch: Watch,
) -> int:
    """Train a run as one rank of `parallel`; the exit code: 0 if the run is done, else 1.

    SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 to any rank lets all finish their step, write a checkpoint and end. If one fails or
    dies, the others end too: the ranks communicate on the host before every step, where a lost connection is an error at once.

    Args:
        parallel: this process, not connected yet.
        find: returns the run and its corpus; called on rank 0.
        store: where the run goes.
        cluster: threads, intervals and micro-batch.
        compile: as `RuntimeConfig.compile`.
        watch: what to watch the run with, on rank 0.

    Raises:
        InputError: from `find`.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(store.compiled))  # before torch reads it
    import torch

    from sweep.train.loop import Runtime

    torch.set_num_threads(cluster.threads)
    parent = os.getppid()
    with StopFlag() as stopping, parallel:
        run, corpus = parallel.on_rank0(find)
        runtime = Runtime(
            device=parallel.device,
            checkpoint_interval_s=cluster.checkpoint_interval_s,
            log_interval_s=cluster.log_interval_s,
            micro_batch=cluster.micro_batch,
            compile=compile,
            compile_pays=bool(worth_compiling([run])),
            parallel=parallel,
        )

        def should_stop(step: int) -> bool:
            # A launcher that was killed cannot ask its processes to stop: they notice that their parent has changed.
            return stopping() or (parallel.size > 1 and os.getppid() != parent)

        if parallel.rank == 0:
            watched, train_here = watch([run], stopping), train_safely
        else:
            watched, train_here = nullcontext(lambda event: None), _train_beside_rank0
        with watched as report:
            outcome = train_here(run, corpus, store, runtime, on_progress=report, should_stop=should_stop)
            report(outcome)
        if outcome.state == states.FAILED and parallel.size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)  # not through the interpreter's exit, where libraries may wait for processes that are gone
    return int(outcome.state != states.DONE)


def _train_beside_rank0(run: RunConfig, corpus: "Corpus", store: Store, runtime: "Runtime", **callbacks: Any) -> Outcome:
    """`train_safely` for the ranks beside rank 0, which print an error instead of writing it to the store."""
    from sweep.train.loop import train

    try:
        return Outcome(run_id=run.run_id, state=train(run, corpus, store.run(run.run_id), runtime, **callbacks))
    except Exception as error:
        if not isinstance(error, InputError):
            traceback.print_exc()
        return Outcome(run_id=run.run_id, state=states.FAILED, error=str(error))
