"""The state of every run of a sweep: from the store and the queues of the launchers."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sweep.launch import launchers
from sweep.plan.estimate import Speed, duration, makespan
from sweep.plan.grid import PlannedRun, shown_labels
from sweep.store import RunDirectory, Store, states

if TYPE_CHECKING:
    from rich.text import Text

QUEUED, PREEMPTED = "queued", "preempted"
GAP = "  "  # between columns


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run.

    Attributes:
        planned: the run.
        state: one of `sweep.store.states`, or "queued" (in a queue and not begun), or "preempted" (begun and in a queue again).
        step: optimizer steps written down so far.
        loss: the last training loss written down; None before the first.
        val_loss: the held-out loss; None unless the run is done.
        tokens_per_s: at present; None unless the run is in training.
        seconds_left: of training, at its present speed if it has one; None if unknown.
        spent_s: seconds trained so far.
        note: the job that has it, or why it failed.
    """

    planned: PlannedRun
    state: str
    step: int
    loss: float | None
    val_loss: float | None
    tokens_per_s: float | None
    seconds_left: float | None
    spent_s: float
    note: str


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All runs of a sweep."""

    runs: tuple[RunView, ...]

    @property
    def going(self) -> bool:
        """Whether anything is running or in the queue."""
        return any(view.state in (states.RUNNING, QUEUED, PREEMPTED) for view in self.runs)

    @property
    def flops(self) -> tuple[float, float]:
        """FLOPs (6ND) that are done, and those of all runs."""
        of_runs = [(view, 6 * view.planned.run.N * view.planned.run.D) for view in self.runs]
        return sum(C * view.step / view.planned.run.steps for view, C in of_runs), sum(C for _, C in of_runs)

    @property
    def seconds_left(self) -> float | None:
        """Until all runs are done, those in training first and with as many in parallel as now; None if unknown."""
        left = [view for view in self.runs if view.state not in (*states.FINAL_STATES, states.FAILED)]
        left.sort(key=lambda view: view.state != states.RUNNING)
        seconds = [view.seconds_left for view in left if view.seconds_left is not None]
        running = sum(view.state == states.RUNNING for view in left)
        return makespan(seconds, max(1, running)) if len(seconds) == len(left) else None

    def table(self, title: str, width: int | None = None) -> "Text":
        """A table for a terminal of so many columns, and below it why runs failed if there is no room for that beside them."""
        batch = {  # the training losses of runs that have no held-out one yet
            view.planned.run.run_id: f"{view.loss:.3f}"
            for view in self.runs
            if view.loss is not None and view.state not in states.FINAL_STATES
        }
        labels = shown_labels([view.planned for view in self.runs])
        headings = (
            "run",
            *["label"] * any(labels),
            "N",
            "D",
            "state",
            "step",
            "held out",
            *["batch"] * bool(batch),
            "left",
            "note",
        )
        rows = [
            (
                view.planned.run.run_id,
                *[label] * any(labels),
                f"{view.planned.run.N:,}",
                f"{view.planned.run.D:,}",
                view.state,
                f"{view.step:,}/{view.planned.run.steps:,}",
                f"{view.val_loss:.3f}" if view.val_loss is not None else "-",
                *[batch.get(view.planned.run.run_id, "-")] * bool(batch),
                duration(view.seconds_left),
                view.note,
            )
            for view, label in zip(self.runs, labels, strict=True)
        ]
        least = ("note", "D", "step", "N", "left", "batch")
        table = text_table(headings, rows, left=("run", "label", "state", "note"), title=title, width=width, least=least)
        if "note" not in table.plain.split("\n")[bool(title)]:
            table.append("".join(f"\n{v.planned.run.run_id} failed: {v.note}" for v in self.runs if v.state == states.FAILED))
        return table

    def totals(self) -> str:
        """Counts by state, the share of the FLOPs that is done, the device's hours used and left, and when all will be done.

        A launch leaves runs that failed out, so they take no more time.
        """
        counts = Counter(view.state for view in self.runs)
        done, total = self.flops
        left = [0.0 if view.state == states.FAILED else view.seconds_left for view in self.runs]
        known = duration(sum(seconds or 0 for seconds in left)) if None not in left else "unknown"
        ready = f"; the sweep is done in {duration(self.seconds_left)}" if counts[states.RUNNING] else ""
        return (
            f"{', '.join(f'{count} {state}' for state, count in counts.most_common())}; "
            f"{done / total:.0%} of {total:.3g} FLOPs (6ND) done; "
            f"{duration(sum(view.spent_s for view in self.runs))} of a device used, {known} left{ready}"
        )


def text_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[str],
    title: str = "",
    width: int | None = None,
    least: Sequence[str] = (),
) -> "Text":
    """A table without lines; the columns named in `left` are aligned left, the others right. Where it is wider than `width`,
    columns are left out, in the order of `least`, until it fits; no cell is ever cut. rich's own takes seconds for thousands
    of rows."""
    from rich.text import Text

    columns = [
        [str.ljust(cell, size) if cells[0] in left else str.rjust(cell, size) for cell in cells]
        for cells in zip(headings, *rows, strict=True)
        for size in [max(map(len, cells))]
    ]
    for heading in least:
        if width is None or len(GAP.join(cells[0] for cells in columns)) <= width:
            break
        columns = [cells for cells in columns if cells[0].strip() != heading]
    head, *body = (GAP.join(row).rstrip() for row in zip(*columns, strict=True))
    return Text("\n", no_wrap=True).join(
        [Text(title, style="italic")] * bool(title) + [Text(head, style="bold"), *map(Text, body)]
    )


def overview(planned: Sequence[PlannedRun], store: Store, speed: Speed) -> Overview:
    """What the store and the queue say of each run. A run that is being written, or is damaged, is shown as far as it can be
    read. `speed` says how long runs take."""
    queue = launchers.queued(store)
    views = [_view(p, store.run(p.run.run_id), queue.get(p.run.run_id)) for p in planned]
    speed = speed.corrected((view.planned.run, view.tokens_per_s) for view in views if view.tokens_per_s)
    return Overview(runs=tuple(replace(view, seconds_left=_seconds_left(view, speed)) for view in views))


def _seconds_left(view: RunView, speed: Speed) -> float | None:
    run = view.planned.run
    if view.state in states.FINAL_STATES:
        return 0.0
    if view.tokens_per_s:
        return (run.steps - view.step) * run.batch_tokens / view.tokens_per_s
    return speed.seconds(run, view.step)


def _view(planned: PlannedRun, directory: RunDirectory, queued: launchers.Queued | None) -> RunView:
    status = directory.status_or_failed()
    written = _last_row(directory)
    state, step = status["state"], max(status["step"], int(written.get("step", 0)))
    note = status.get("error", "")
    if state not in states.FINAL_STATES:
        if directory.claim.held():
            state = states.RUNNING
        elif queued is not None and state != states.FAILED:
            state = PREEMPTED if step else QUEUED
        elif state == states.RUNNING:
            state = states.INTERRUPTED  # its process has ended
        if queued is not None:
            note = f"{queued.where}, {queued.state}" + (f"; {note}" if note and state == states.FAILED else "")
    return RunView(
        planned=planned,
        state=state,
        step=planned.run.steps if state == states.DONE else step,
        loss=written.get("loss"),
        val_loss=status["val_loss"] if state == states.DONE else None,
        tokens_per_s=float(written.get("tokens_per_s") or 0) or None if state == states.RUNNING else None,
        seconds_left=None,
        spent_s=float(status.get("elapsed_s", 0)),
        note=note,
    )


def _last_row(directory: RunDirectory) -> dict[str, Any]:
    """The last whole row of throughput.jsonl, with step and loss; empty if there is none."""
    try:
        with open(directory.throughput, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().split(b"\n")
        return json.loads(lines[-2]) if len(lines) > 1 else {}
    except (OSError, ValueError):
        return {}
