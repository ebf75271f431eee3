"""The tasks of a Slurm array: which runs each of them has, and training these in a pool of the task's own."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.config import ClusterConfig, SlurmConfig, shown
from sweep.errors import InputError
from sweep.files import read_json, write_sealed
from sweep.launch.launchers import Launch, Watch
from sweep.launch.pool import Pool, streams_per_gpu
from sweep.launch.signals import StopFlag
from sweep.plan import code
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.train.events import Event, Outcome
from sweep.words import counted

GRACE_S = 600  # longer than any KillWait
REQUEUE_EXIT = 75  # EX_TEMPFAIL: for clusters whose RequeueExit names it, where scontrol may not


@dataclass(frozen=True, kw_only=True)
class Task:
    """Runs that one task trains, and the seconds that this is expected to take; None if unknown."""

    runs: tuple[RunConfig, ...]
    seconds: float | None


def write_tasks(directory: Path, tasks: Sequence[Task], launch: Launch) -> None:
    """Write tasks.json, and the run directories that its run_ids stand for."""
    for task in tasks:
        for run in task.runs:
            launch.store.run(run.run_id).create(run)
    values = {
        "name": launch.name,
        "store": str(launch.store.root.resolve()),
        "corpus": str(launch.corpus.resolve()),
        "device": launch.device,
        "cluster": shown(launch.cluster),  # a task needs no secrets, and who shares the store reads this file
        "compile": launch.compile,
        "keep": launch.keep,
        "worth_compiling": sorted(launch.worth_compiling),
        "tracker": launch.tracker,
        "allow_code": code.is_allowed(),  # where sbatch passes no environment on
        "tasks": [[run.run_id for run in task.runs] for task in tasks],
    }
    write_sealed(directory / "tasks.json", values)


def read_tasks(directory: Path) -> dict[str, Any]:
    """What `write_tasks` wrote. Raises InputError if it is missing or damaged."""
    path = directory / "tasks.json"
    try:
        return read_json(path, dict, f"delete {directory} and launch again")
    except OSError as error:
        raise InputError(f"no such task: {path} cannot be read ({error.strerror}); launch again") from error


def task_workers(cluster: ClusterConfig) -> int:
    """Processes that a task trains with."""
    assert cluster.slurm is not None
    if cluster.workers != "auto":
        return int(cluster.workers)
    cores = max(1, cluster.slurm.cpus_per_task // cluster.threads)
    return min(streams_per_gpu() * cluster.slurm.gpus_per_task, cores) or cores


def task_name() -> str:
    """Slurm's name of the task or job that this process belongs to; "" outside of any."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def run_task(directory: Path, index: int, watch_for: Callable[[dict[str, Any] | None, Store], Watch]) -> int:
    """Train those runs of task `index` of a submission that are neither finished nor in training elsewhere; the exit code.

    USR1 and USR2, which come before a time limit or a preemption, and SIGTERM make every run write a checkpoint. After USR1 or
    USR2 the task asks Slurm to queue it again. SIGTERM alone is how Slurm cancels, and how it preempts where no user signal
    goes before. Slurm then ends the task, and knows whether to queue it again: a task that ended itself would count as
    complete, so this one waits to be ended.

    `watch_for` returns what to watch the runs with, given the fields of the tracker and the store.
    """
    manifest = read_tasks(directory)
    if not 0 <= index < len(manifest["tasks"]):
        raise InputError(f"submission={directory} task={index}: no such task; there are {len(manifest['tasks'])}")
    run_ids, store = manifest["tasks"][index], Store(Path(manifest["store"]))
    cluster = ClusterConfig(**{**manifest["cluster"], "slurm": SlurmConfig(**manifest["cluster"]["slurm"])})
    launch = Launch(
        name=manifest["name"],
        store=store,
        corpus=Path(manifest["corpus"]),
        device=manifest["device"],
        cluster=cluster,
        compile=manifest["compile"],
        keep=manifest.get("keep", 0),  # submissions of older versions have none
        worth_compiling=frozenset(manifest["worth_compiling"]),
    )
    store.require_writable()
    if manifest.get("allow_code"):
        code.allow(store.root)
    pool = Pool(launch=launch, workers=task_workers(cluster))
    known, damaged = [], False
    for run_id in run_ids:
        try:
            known.append(store.run(run_id).config())
        except InputError as error:  # which stops no other run
            print(error, flush=True)
            damaged = True
    todo = store.unfinished(known)
    print(f"{launch.name}, task {index}: {counted(len(run_ids), 'run')}, {len(todo)} to train", flush=True)
    with StopFlag() as stopping, watch_for(manifest["tracker"], store)(todo, stopping) as report:

        def print_outcome(event: Event) -> None:
            if isinstance(event, Outcome):
                print(f"{event.run_id} {event.state} {event.error}".rstrip(), flush=True)
            report(event)

        outcomes = pool.run(todo, print_outcome, stopping)
    left = [outcome for outcome in outcomes if outcome.state in (states.INTERRUPTED, states.WAITING)]
    if left and stopping.asked_to_requeue():
        return _requeue(len(left))
    if left:
        print(f"{counted(len(left), 'run')} not done: waiting for Slurm to end this task", flush=True)
        time.sleep(GRACE_S)
    return int(damaged or any(outcome.state == states.FAILED for outcome in outcomes))


def _requeue(left: int) -> int:
    """Ask Slurm to start this task again; the exit code."""
    name = task_name()
    print(f"{counted(left, 'run')} not done: queueing {name} again", flush=True)
    try:
        asked = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True)
        if asked.returncode == 0:
            return 0
        problem = f"scontrol: {last_line(asked.stderr)}"
    except OSError as error:
        problem = f"scontrol cannot be run ({error.strerror})"
    print(f"{problem}; launch again to go on", flush=True)
    return REQUEUE_EXIT


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
