"""A Slurm array: submit what is missing and return; every task trains its runs, and puts itself back until they are done.

<store>/submissions/<time>-<random>/tasks.json   which runs each task has, and how to train them
                                   setup.sh      lines to run first
                                   job.json      Slurm's job
                                   task-<k>.log  what task k printed
"""

import getpass
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep.config import ClusterConfig, SlurmConfig
from sweep.errors import InputError
from sweep.files import write_atomically, write_json
from sweep.launch.local import Outcome, Pool, StopFlag
from sweep.plan.cost import MAX_STREAMS, memory_bytes, worth_compiling
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.store.states import INTERRUPTED, WAITING
from sweep.tracking.mirror import Mirror, Tracker

OVERHEAD_S, MARGIN, MIN_MINUTES = 300, 1.5, 15  # of a task, beyond what its runs are expected to take
PROCESS_MB = 1200  # of a worker, beside its run
GRACE_S = 600  # longer than any KillWait
MIRROR_S = 5  # that a task which must stop waits for wandb: its next start goes on there
REQUEUE_EXIT = 75  # EX_TEMPFAIL: for clusters whose RequeueExit names it, where scontrol may not


@dataclass(frozen=True, kw_only=True)
class Task:
    """Runs that one array task trains, and how long that is expected to take; None if unknown."""

    runs: tuple[RunConfig, ...]
    seconds: float | None


def pack(runs: Sequence[RunConfig], seconds: Sequence[float | None], *, workers: int, task_s: float) -> list[Task]:
    """Tasks of about `task_s` each, the longest first: long runs alone, short ones together (first fit, longest first).

    A task's workers share its runs, so it holds up to `workers` times `task_s` of them. A run of unknown length is alone.
    """
    known = [(length, run) for run, length in zip(runs, seconds, strict=True) if length is not None]
    packs: list[list[tuple[float, RunConfig]]] = []
    for length, run in sorted(known, key=lambda pair: -pair[0]):
        fitting = (pack for pack in packs if sum(other for other, _ in pack) + length <= workers * task_s)
        if (first := next(fitting, None)) is not None and length < task_s:
            first.append((length, run))
        else:
            packs.append([(length, run)])
    tasks = [
        Task(runs=tuple(run for _, run in pack), seconds=max(pack[0][0], sum(length for length, _ in pack) / workers))
        for pack in packs
    ]
    tasks += [Task(runs=(run,), seconds=None) for run, length in zip(runs, seconds, strict=True) if length is None]
    return sorted(tasks, key=lambda task: -(task.seconds if task.seconds is not None else float("inf")))


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What all tasks of a sweep share: its name, the store, the corpus's directory, the device, how to run, and the mirror.

    `compile` is `RuntimeConfig.compile`.
    """

    name: str
    store: Store
    corpus: Path
    device: str
    cluster: ClusterConfig
    compile: str
    tracker: Tracker | None


def submit(tasks: Sequence[Task], what: Submission) -> list[str]:
    """Submit `tasks` as one array, or several where the cluster allows no array that long; the job numbers.

    Raises:
        InputError: if sbatch is not there or refuses.
    """
    longest = _longest_array()
    return [_submit(tasks[start : start + longest], what) for start in range(0, len(tasks), longest)]


def _submit(tasks: Sequence[Task], what: Submission) -> str:
    slurm = what.cluster.slurm
    assert slurm is not None
    root = what.store.root.resolve()
    directory = root / "submissions" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    directory.mkdir(parents=True)
    write_json(
        directory / "tasks.json",
        {
            "name": what.name,
            "store": str(root),
            "corpus": str(what.corpus.resolve()),
            "device": what.device,
            "cluster": asdict(what.cluster),
            "compile": what.compile,
            "worth_compiling": sorted(worth_compiling([run for task in tasks for run in task.runs])),
            "tracker": asdict(what.tracker) if what.tracker else None,
            "tasks": [[run.run_id for run in task.runs] for task in tasks],
        },
    )
    write_atomically(directory / "setup.sh", "\n".join(slurm.setup) + "\n")
    for task in tasks:
        for run in task.runs:
            what.store.run(run.run_id).create(run)
    command = ["sbatch", "--parsable", *_options(tasks, what.name, directory, what.cluster, slurm), str(script())]
    command += [str(directory), slurm.python or sys.executable]
    # From where python -m sweep is this very code, and without this shell's own job, if it is one.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
    environment |= {key: value for key, value in os.environ.items() if key == "SLURM_CONF"}
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    except FileNotFoundError as error:
        raise InputError(
            "cluster=slurm: there is no sbatch on this machine; launch from a login node of the cluster"
        ) from error
    if done.returncode:
        raise InputError(f"cluster=slurm: sbatch refused: {_last_line(done.stderr)} (it was: {shlex.join(command)})")
    job = done.stdout.strip().split(";")[0]
    write_json(directory / "job.json", {"job": job})
    return job


def _options(tasks: Sequence[Task], name: str, directory: Path, cluster: ClusterConfig, slurm: SlurmConfig) -> list[str]:
    """sbatch's command line, from the configuration and the estimates."""
    throttle = f"%{slurm.max_at_once}" if slurm.max_at_once else ""
    options = {
        "job-name": name,
        "array": f"0-{len(tasks) - 1}{throttle}",
        "output": str(directory / "task-%a.log"),
        "cpus-per-task": slurm.cpus_per_task,
        "mem": f"{slurm.memory_mb or memory_mb(tasks, workers(cluster))}M",
        "signal": f"B:USR1@{slurm.signal_s}",
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "gres": f"gpu:{slurm.gpus_per_task}" if slurm.gpus_per_task else None,
        "time": slurm.time_limit_minutes or time_limit_minutes(tasks),
    }
    return [f"--{key}={value}" for key, value in options.items() if value is not None] + list(slurm.directives)


def time_limit_minutes(tasks: Sequence[Task]) -> int | None:
    """Half as much again as the longest task should take; None, the partition's default, if that is not known."""
    lengths = [task.seconds for task in tasks]
    if any(length is None for length in lengths):
        return None
    return max(MIN_MINUTES, round((max(length or 0.0 for length in lengths) * MARGIN + OVERHEAD_S) / 60))


def memory_mb(tasks: Sequence[Task], processes: int) -> int:
    """An upper estimate of what the processes of a task hold."""
    largest = max(memory_bytes(run) for task in tasks for run in task.runs)
    return round(processes * (PROCESS_MB + largest / 1e6))


def workers(cluster: ClusterConfig) -> int:
    """Processes that a task trains with."""
    assert cluster.slurm is not None
    if cluster.workers != "auto":
        return int(cluster.workers)
    cores = max(1, cluster.slurm.cpus_per_task // cluster.threads)
    return min(MAX_STREAMS * cluster.slurm.gpus_per_task, cores) or cores


def run_task(submission: Path, index: int) -> int:
    """What an array task does: train its runs that are not done and that nobody else trains; the exit code.

    USR1 and USR2, which come before a time limit or a preemption, and SIGTERM make every run write a checkpoint. After the
    former the task asks Slurm to queue it again. SIGTERM alone is how Slurm cancels, and how it preempts where no user signal
    goes before: it is then Slurm that ends the task, and knows whether to queue it again; a task that ended itself would count
    as complete.
    """
    try:
        manifest = json.loads((submission / "tasks.json").read_text())
        run_ids = manifest["tasks"][index]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"submission={submission} task={index}: no such task ({error})") from error
    store = Store(Path(manifest["store"]))
    cluster = ClusterConfig(**{**manifest["cluster"], "slurm": SlurmConfig(**manifest["cluster"]["slurm"])})
    pool = Pool(
        store=store.root,
        corpus=Path(manifest["corpus"]),
        device=manifest["device"],
        workers=workers(cluster),
        threads=cluster.threads,
        cluster=cluster,
        compile=manifest["compile"],
        worth_compiling=frozenset(manifest["worth_compiling"]),
    )
    from sweep.launch.local import missing

    todo = missing([store.run(run_id).config() for run_id in run_ids], store)
    print(f"{manifest['name']}, task {index}: {len(run_ids)} runs, {len(todo)} to train", flush=True)

    def report(event: Any) -> None:
        if isinstance(event, Outcome):
            print(f"{event.run_id} {event.state} {event.error}".rstrip(), flush=True)

    tracker = Tracker(**manifest["tracker"]) if manifest["tracker"] else None
    with StopFlag() as stopping, Mirror(tracker, store, lambda text: print(f"wandb: {text}", flush=True)) as mirror:
        outcomes = pool.run(todo, mirror.beside(report), stopping)
        if stopping():
            mirror.timeout_s = MIRROR_S
    left = [outcome for outcome in outcomes if outcome.state in (INTERRUPTED, WAITING)]
    if left and stopping.asked_to_requeue():
        return _requeue(len(left))
    if left:
        print(f"{len(left)} runs are not done: waiting for Slurm to end this task", flush=True)
        time.sleep(GRACE_S)
    return int(any(outcome.state == "failed" for outcome in outcomes))


def _requeue(left: int) -> int:
    """Ask Slurm to start this task again."""
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{job}_{task}" if job else os.environ.get("SLURM_JOB_ID", "")
    print(f"{left} runs are not done: queueing {name} again", flush=True)
    try:
        asked = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True)
        if asked.returncode == 0:
            return 0
        print(f"scontrol: {_last_line(asked.stderr)}; launch again to go on", flush=True)
    except OSError as error:
        print(f"scontrol cannot be run ({error.strerror}); launch again to go on", flush=True)
    return REQUEUE_EXIT


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """An array task that Slurm has, waiting or running."""

    job: str
    state: str
    submission: Path
    index: int


def queued(store: Store) -> dict[str, QueuedTask]:
    """Every run of `store` that a task in the queue has, by run_id.

    Raises:
        InputError: if there were submissions and Slurm cannot be asked about them.
    """
    submissions = {}
    for path in sorted((store.root / "submissions").glob("*/job.json")):
        try:
            submissions[json.loads(path.read_text())["job"]] = path.parent
        except (OSError, ValueError, KeyError):
            continue  # it is being written: its own launch knows
    if not submissions:
        return {}
    found = {}
    for line in _squeue():
        job, _, rest = line.partition("_")
        index, _, state = rest.partition(" ")
        if job in submissions and index.isdigit():
            directory = submissions[job]
            for run_id in json.loads((directory / "tasks.json").read_text())["tasks"][int(index)]:
                found[run_id] = QueuedTask(job=f"{job}_{index}", state=state.lower(), submission=directory, index=int(index))
    return found


def logs_of(store: Store, run_id: str) -> list[Path]:
    """The logs of all array tasks that had the run, oldest first."""
    found = []
    for path in sorted((store.root / "submissions").glob("*/tasks.json")):
        for index, run_ids in enumerate(json.loads(path.read_text())["tasks"]):
            if run_id in run_ids:
                found.append(path.parent / f"task-{index}.log")
    return found


def cancel(tasks: Sequence[QueuedTask]) -> None:
    """Take array tasks out of the queue; those that run write a checkpoint first."""
    jobs = sorted({task.job for task in tasks})
    if jobs:
        subprocess.run(["scancel", *jobs], check=False)


def script() -> Path:
    """slurm/array.sbatch of the checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent / "slurm", package / "slurm"):
        if (candidate / "array.sbatch").exists():
            return candidate / "array.sbatch"
    raise FileNotFoundError(f"slurm/array.sbatch is neither in {package.parent} nor in {package}; reinstall isosweep")


def _squeue() -> list[str]:
    """ "<job>_<index> <state>" of every array task that this user has in the queue."""
    try:
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i %T"]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"this store has Slurm submissions, but squeue cannot be run ({error}); use a login node") from error
    if asked.returncode:
        raise InputError(f"this store has Slurm submissions, but squeue failed: {_last_line(asked.stderr)}; try again")
    return asked.stdout.splitlines()


def _longest_array() -> int:
    """The most tasks that one array may have."""
    try:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"cluster=slurm: scontrol cannot be run ({error}); launch from a login node of the cluster") from error
    for line in shown.stdout.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize" and value.strip().isdigit():
            return max(1, int(value) - 1)  # it is one above the largest index
    raise InputError(f"cluster=slurm: scontrol names no MaxArraySize: {_last_line(shown.stderr)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
