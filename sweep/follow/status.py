"""The state of every run of a sweep: from the store and the queues of the launchers."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.launch import launchers
from sweep.plan.estimate import Speed, duration
from sweep.plan.grid import PlannedRun
from sweep.store import RunDirectory, Store, states

if TYPE_CHECKING:
    from rich.text import Text

QUEUED, PREEMPTED = "queued", "preempted"


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run.

    Attributes:
        planned: the run.
        state: one of `sweep.store.states`, or "queued" (in a queue and not begun), or "preempted" (begun and in a queue again).
        step: optimizer steps written down so far.
        loss: the last training loss written down; None before the first.
        seconds_left: of training; None if unknown.
        spent_s: seconds trained so far.
        note: the job that has it, or why it failed.
    """

    planned: PlannedRun
    state: str
    step: int
    loss: float | None
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

    def table(self, title: str) -> "Text":
        """A table for a terminal."""
        headings = ("run", "N", "D", "state", "step", "loss", "left", "note")
        rows = (
            (
                view.planned.run.run_id,
                f"{view.planned.run.N:,}",
                f"{view.planned.run.D:,}",
                view.state,
                f"{view.step:,}/{view.planned.run.steps:,}",
                f"{view.loss:.3f}" if view.loss is not None else "-",
                duration(view.seconds_left),
                view.note,
            )
            for view in self.runs
        )
        return text_table(headings, rows, left=("run", "state", "note"), title=title)

    def totals(self) -> str:
        """Counts by state, the share of the FLOPs that is done, and the device's hours used and left."""
        counts = Counter(view.state for view in self.runs)
        done, total = self.flops
        left = [view.seconds_left for view in self.runs]
        known = duration(sum(seconds or 0 for seconds in left)) if None not in left else "unknown"
        return (
            f"{', '.join(f'{count} {state}' for state, count in counts.most_common())}; "
            f"{done / total:.0%} of {total:.3g} FLOPs (6ND) done; "
            f"{duration(sum(view.spent_s for view in self.runs))} of a device used, {known} left"
        )


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[str], title: str = "") -> "Text":
    """A table without lines; the columns named in `left` are aligned left, the others right. rich's own takes seconds for
    thousands of rows."""
    from rich.text import Text

    rows = [headings, *rows]
    pads = [str.ljust if heading in left else str.rjust for heading in headings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = ("  ".join(map(lambda pad, cell, width: pad(cell, width), pads, row, widths)).rstrip() for row in rows)
    return Text("\n", no_wrap=True).join(
        [Text(title, style="italic")] * bool(title) + [Text(head, style="bold"), *map(Text, body)]
    )


def overview(planned: Sequence[PlannedRun], store: Store, speed: Speed) -> Overview:
    """What the store and the queue say of each run. A run that is being written, or is damaged, is shown as far as it can be
    read. `speed` says how long runs take."""
    queue = launchers.queued(store)
    return Overview(runs=tuple(_view(p, store.run(p.run.run_id), queue.get(p.run.run_id), speed) for p in planned))


def _view(planned: PlannedRun, directory: RunDirectory, queued: launchers.Queued | None, speed: Speed) -> RunView:
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
    final = state in states.FINAL_STATES
    return RunView(
        planned=planned,
        state=state,
        step=planned.run.steps if state == states.DONE else step,
        loss=written.get("loss"),
        seconds_left=0.0 if final else speed.seconds(planned.run, step),
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
