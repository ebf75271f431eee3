"""Packing runs into the tasks of a batch job, and what each task needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.plan.cost import memory_bytes
from sweep.plan.run import RunConfig

OVERHEAD_S, MARGIN, MIN_MINUTES = 300, 1.5, 15  # of a task, beyond what its runs are expected to take
PROCESS_MB = 1200  # of a worker, beside its run


@dataclass(frozen=True, kw_only=True)
class Task:
    """Runs that one task trains, and the seconds that this is expected to take; None if unknown."""

    runs: tuple[RunConfig, ...]
    seconds: float | None


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
    largest = max(memory_bytes(run) for task in tasks for run in task.runs)
    return round(processes * (PROCESS_MB + largest / 1e6))
