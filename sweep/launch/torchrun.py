"""One run on all the processes that torchrun or srun started: what each of them does."""

import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from sweep.config import ClusterConfig
from sweep.data import Corpus
from sweep.errors import InputError
from sweep.follow.progress import SweepProgress
from sweep.launch.local import Outcome, StopFlag, train_safely
from sweep.plan.cost import worth_compiling
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.tracking.mirror import Mirror, Tracker
from sweep.train.loop import Runtime, train
from sweep.train.ranks import Parallel


def train_together(
    parallel: Parallel,
    find: Callable[[], tuple[RunConfig, Corpus]],
    store: Store,
    cluster: ClusterConfig,
    compile: str,
    tracker: Tracker | None,
) -> int:
    """Train a run as one of the processes of `parallel`; the exit code: 0 if the run is done, else 1.

    SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 to any process lets all finish their step, write a checkpoint and end. If one fails or
    dies, the others end too: they meet on the host before every step, and a lost connection is an error there at once.

    Args:
        parallel: this process, not connected yet.
        find: gives the run and its corpus; the first process asks.
        store: where the run goes.
        cluster: threads, intervals and micro-batch.
        compile: as `RuntimeConfig.compile`.
        tracker: where the first process mirrors the curve to, if anywhere.

    Raises:
        InputError: from `find`.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(store.compiled))
    torch.set_num_threads(cluster.threads)
    first, parent = parallel.rank == 0, os.getppid()
    console = Console() if first else Console(file=io.StringIO())
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
            # A launcher that was killed outright cannot ask: its processes see that they are orphans.
            return stopping() or (parallel.size > 1 and os.getppid() != parent)

        with (
            Mirror(tracker if first else None, store, lambda text: console.print(f"wandb: {text}")) as mirror,
            SweepProgress([run], console) as progress,
        ):
            report, train_here = mirror.beside(progress), train_safely if first else _train_beside
            outcome = train_here(run, corpus, store, runtime, on_progress=report, should_stop=should_stop)
            report(outcome)
        if outcome.state == states.FAILED and parallel.size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)  # not through the interpreter's exit, where libraries may wait for processes that are gone
    return int(outcome.state != states.DONE)


def _train_beside(run: RunConfig, corpus: Corpus, store: Store, runtime: Runtime, **callbacks: Any) -> Outcome:
    """`train_safely` for all processes but the first, which writes down why a run failed: these print it."""
    try:
        return Outcome(run_id=run.run_id, state=train(run, corpus, store.run(run.run_id), runtime, **callbacks))
    except Exception as error:
        if not isinstance(error, InputError):
            traceback.print_exc()
        return Outcome(run_id=run.run_id, state=states.FAILED, error=str(error))
