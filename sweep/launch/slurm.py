"""The Slurm launcher: submit an array and return. Each task trains its runs and queues itself again until they are done.

<store>/submissions/<time>-<random>/tasks.json   which runs each task has, and how to train them: see sweep.launch.task
                                   setup.sh      lines to run first, for nobody else to read: they may hold a token
                                   job.json      Slurm's job
                                   task-<k>.log  what task k printed
"""

import getpass
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sweep.config import SlurmConfig
from sweep.config.secrets import require_secrets, shown_words
from sweep.errors import InputError
from sweep.files import write_atomically, write_json
from sweep.launch.launchers import Launch, Launcher, Queued, Watch, fresh_name
from sweep.launch.task import Task, last_line, read_tasks, task_name, task_workers, write_tasks
from sweep.plan.cost import memory_bytes
from sweep.plan.device import warn_of_narrow_heads
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.words import counted

ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY")
OVERHEAD_S, MARGIN, MIN_MINUTES = 300, 1.5, 15  # of a task, beyond what its runs are expected to take
RECORD_END = "\x1e"  # a command may have lines of its own
PROCESS_MB = 1200  # of a worker, beside its run


class SlurmLauncher(Launcher):
    """Trains runs as the tasks of a Slurm array."""

    name = "slurm"

    def submit(self, runs: Sequence[RunConfig], launch: Launch, watch: Watch) -> str:
        """Submit `runs` as one array, or several where the cluster allows no array that long."""
        slurm = launch.cluster.slurm
        assert slurm is not None  # see sweep.config.compose
        if not runs:
            return ""
        require_secrets(slurm, "cluster.slurm", "give it again on the command line, or launch the sweep from conf/ as at first")
        _check_setup(slurm.setup)
        warn_of_narrow_heads(runs, launch.device)
        seconds = [launch.speed.seconds(run, launch.store.run(run.run_id).status_or_failed()["step"]) for run in runs]
        tasks = pack(runs, seconds, workers=task_workers(launch.cluster), task_s=60 * slurm.task_minutes)
        longest = _max_array_tasks()
        jobs = [_submit(tasks[start : start + longest], launch, slurm) for start in range(0, len(tasks), longest)]
        return f"submitted {counted(len(runs), 'run')} in {counted(len(tasks), 'task')}: job {', '.join(jobs)}"

    def queued(self, store: Store) -> dict[str, Queued]:
        return {run_id: Queued(where=f"job {task}", state=state) for task, state, runs in _tasks(store) for run_id in runs}

    def cancel(self, store: Store, run_ids: Collection[str]) -> str:
        tasks = sorted(task for task, _, of_task in _tasks(store) if set(run_ids) & set(of_task))
        if not tasks:
            return ""
        asked = subprocess.run(["scancel", *tasks], capture_output=True, text=True)
        if asked.returncode and not re.search("already complet|Invalid job id", asked.stderr):  # a task that has just ended
            raise InputError(f"scancel failed: {last_line(asked.stderr)}; try again, or scancel {' '.join(tasks)}")
        return f"cancelled {counted(len(tasks), 'task')} of Slurm"

    def logs(self, store: Store, run_id: str) -> list[Path]:
        return [
            path.parent / f"task-{index}.log"
            for path in sorted((store.root / "submissions").glob("*/tasks.json"))
            for index, run_ids in enumerate(read_tasks(path.parent)["tasks"])
            if run_id in run_ids
        ]

    def current_job(self) -> tuple[str, int] | None:
        job = task_name()
        return (job, int(os.environ.get("SLURM_RESTART_COUNT", 0))) if job else None

    def alive(self, job: str) -> bool | None:
        """Whether Slurm still runs this start of the job. A job that Slurm no longer knows has ended."""
        if not re.fullmatch(r"\d+(_\d+)?", job):
            return None
        command = ["squeue", "--noheader", "--jobs", job, "--states=all", "--format=%T"]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            return None
        if asked.returncode:
            return False if "Invalid job id" in asked.stderr else None
        return any(state not in (*ENDED, "PENDING") for state in asked.stdout.split())  # pending: it is to start again


def pack(runs: Sequence[RunConfig], seconds: Sequence[float | None], *, workers: int, task_s: float) -> list[Task]:
    """Tasks of about `task_s` each, the longest first: a long run alone, short ones together (first fit, longest first).

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


def time_limit_minutes(tasks: Sequence[Task]) -> int | None:
    """1.5 times the expected length of the longest task, plus five minutes; None if a length is unknown."""
    lengths = [task.seconds for task in tasks]
    if any(length is None for length in lengths):
        return None
    return max(MIN_MINUTES, round((max(length or 0.0 for length in lengths) * MARGIN + OVERHEAD_S) / 60))


def memory_mb(tasks: Sequence[Task], processes: int) -> int:
    """An upper estimate of the memory that the processes of a task hold."""
    largest = max(memory_bytes(run, run.batch_size) for task in tasks for run in task.runs)
    return round(processes * (PROCESS_MB + largest / 1e6))


def _submit(tasks: Sequence[Task], launch: Launch, slurm: SlurmConfig) -> str:
    """Submit one array; its job number. Raises InputError if there is no sbatch, or it refuses."""
    directory = launch.store.root.resolve() / "submissions" / fresh_name()
    if "\\" in str(directory):  # Slurm then replaces nothing in --output, and drops the backslash: all tasks would end at once
        raise InputError(
            f"store={launch.store.root}: Slurm writes no log below a path with a backslash; choose another store=…"
        )
    directory.mkdir(parents=True)
    write_tasks(directory, tasks, launch)
    write_atomically(directory / "setup.sh", "\n".join(slurm.setup) + "\n", private=True)
    # Paths are arguments of their own, in which no character means anything.
    task = [str(script()), str(directory), slurm.python or sys.executable]
    options = _options(tasks, directory, launch, slurm)
    command = ["sbatch", "--parsable", *options, *slurm.directives, *task]
    # The tasks import this very code, and see nothing of the job, if any, that this shell itself runs in.
    own = [key for key in os.environ if key.startswith(("SLURM_", "SBATCH_")) and key != "SLURM_CONF"]
    environment = {key: value for key, value in os.environ.items() if key not in own}
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    except FileNotFoundError as error:
        remedy = "launch from a login node of the cluster"
        raise InputError(f"cluster=slurm: there is no sbatch on this machine; {remedy}") from error
    if done.returncode:
        safe = shlex.join(["sbatch", *options, *shown_words(slurm.directives), *task])
        reason = last_line(done.stderr)
        for directive, words in zip(slurm.directives, shown_words(slurm.directives), strict=True):
            reason = reason.replace(directive, words)
        raise InputError(f"cluster=slurm: sbatch refused: {reason} (the command was: {safe})")
    job = done.stdout.strip().split(";")[0]
    write_json(directory / "job.json", {"job": job})
    return job


def _options(tasks: Sequence[Task], directory: Path, launch: Launch, slurm: SlurmConfig) -> list[str]:
    """sbatch's options, from the configuration and the estimates."""
    throttle = f"%{slurm.max_at_once}" if slurm.max_at_once else ""
    options = {
        "job-name": launch.name,
        "array": f"0-{len(tasks) - 1}{throttle}",
        "output": str(directory).replace("%", "%%") + "/task-%a.log",
        "cpus-per-task": slurm.cpus_per_task,
        "mem": f"{slurm.memory_mb or memory_mb(tasks, task_workers(launch.cluster))}M",
        "signal": f"B:USR1@{slurm.signal_s}",
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "gres": f"gpu:{slurm.gpus_per_task}" if slurm.gpus_per_task else None,
        "time": slurm.limit() or time_limit_minutes(tasks),
    }
    return [f"--{key}={value}" for key, value in options.items() if value is not None]


def _tasks(store: Store) -> Iterator[tuple[str, str, list[str]]]:
    """<job>_<index>, state and run_ids of every task of this store that Slurm has in its queue. Raises InputError if there
    were submissions and Slurm cannot be asked about them.

    A job.json is believed only where Slurm says that the job was submitted with that very directory: whoever can write to the
    store must not have another job of its reader cancelled."""
    submissions = {}
    for path in sorted((store.root / "submissions").glob("*/job.json")):
        try:
            submissions[str(json.loads(path.read_text())["job"])] = path.parent
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is being written; the launch that writes it knows its own runs
    for task, state, command in _squeue() if submissions else ():
        job, _, index = task.partition("_")
        directory = submissions.get(job)
        if directory and index.isdigit() and f"/{script().name} {directory.resolve()} " in command:
            yield task, state.lower(), read_tasks(directory)["tasks"][int(index)]


def _check_setup(lines: Sequence[str]) -> None:
    """Raises InputError if `lines` are no bash: a task would find that out, after hours in the queue."""
    checked = subprocess.run(["bash", "-n"], input="\n".join(lines) + "\n", capture_output=True, text=True)
    if checked.returncode:
        found = re.search(r"line (\d+): ", checked.stderr)
        line = min(int(found[1]), len(lines)) if found else len(lines)
        text = shown_words("\n".join(lines).splitlines()[line - 1 : line] or [""])[0]
        raise InputError(f"cluster.slurm.setup: bash finds a syntax error at line {line}, “{text}”; correct it")


def _squeue() -> Iterator[list[str]]:
    """ "<job>_<index>", state and command of every array task that this user has in the queue."""
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", f"--format=%i %T %o{RECORD_END}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"this store has Slurm submissions, but squeue cannot be run ({error}); use a login node") from error
    if asked.returncode:
        raise InputError(f"this store has Slurm submissions, but squeue failed: {last_line(asked.stderr)}; try again")
    yield from (parts for line in asked.stdout.split(f"{RECORD_END}\n") if len(parts := line.split(" ", 2)) == 3)


def _max_array_tasks() -> int:
    """The most tasks that one array may have."""
    try:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"cluster=slurm: scontrol cannot be run ({error}); launch from a login node of the cluster") from error
    if found := re.search(r"^\s*MaxArraySize\s*=\s*(\d+)\s*$", shown.stdout, re.MULTILINE):
        return max(1, int(found[1]) - 1)  # it is one above the largest index
    raise InputError(f"cluster=slurm: scontrol names no MaxArraySize: {last_line(shown.stderr)}")


def script() -> Path:
    """slurm/array.sbatch of the checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent / "slurm", package / "slurm"):
        if (candidate / "array.sbatch").exists():
            return candidate / "array.sbatch"
    raise FileNotFoundError(f"slurm/array.sbatch is neither in {package.parent} nor in {package}; reinstall isosweep")
