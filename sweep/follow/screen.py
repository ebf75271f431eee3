"""The view of a sweep on a terminal: printed once, or refreshed until the sweep ends."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.config import FitConfig
from sweep.follow.status import RunView, text_table
from sweep.follow.watch import Snapshot, Valley, Watcher
from sweep.plan.estimate import duration
from sweep.plan.grid import shown_labels
from sweep.plan.written import SweepPlan
from sweep.store import Store, states
from sweep.words import counted

LOOK_S = 2.0  # between looks
PATIENCE_S = 30.0  # that runs may wait while none is running: longer than a launch takes to start
BLOCKS, NO_VALUE = "▁▂▃▄▅▆▇█", "·"
FIXED_LINES = 12  # of the view, besides the rows of its tables
MAX_FAILURES = 3


def watch(plan: SweepPlan, store: Store, fit: FitConfig, console: Console) -> None:
    """Show the sweep until it ends, or until q or Ctrl-C; anything but a terminal gets one snapshot."""
    watcher, title = Watcher(plan, store, fit), f"{plan.config.name} in {store.root}"
    snapshot = watcher.look()
    if console.is_terminal:
        seen = time.monotonic()
        with suppress(KeyboardInterrupt), _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while not snapshot.over and time.monotonic() - seen < PATIENCE_S:
                footer = Text("q leaves; the runs go on", style="dim")
                live.update(Group(render(snapshot, title, console.width, console.height), Text(), footer), refresh=True)
                if pressed(LOOK_S) == "q":
                    break
                snapshot = watcher.look()
                seen = time.monotonic() if snapshot.going else seen
    console.print(render(snapshot, title, console.width))  # the live view was on the alternate screen, which is gone
    waiting = sum(view.state not in (*states.FINAL_STATES, states.FAILED) for view in snapshot.runs)
    if waiting and not snapshot.going:
        console.print(f"isosweep launch trains what is not done: {counted(waiting, 'run')}")


def sparkline(values: Sequence[float | None]) -> str:
    """A character for each value, its height by the logarithm between the lowest and the highest; a dot where there is none."""
    known = np.log([value for value in values if value is not None and value > 0])
    if not len(known):
        return NO_VALUE * len(values)
    low, width = known.min(), max(np.ptp(known), 1e-9)
    return "".join(
        NO_VALUE if value is None or not value > 0 else BLOCKS[int((np.log(value) - low) / width * (len(BLOCKS) - 1) + 0.5)]
        for value in values
    )


def render(snapshot: Snapshot, title: str, width: int, lines: int | None = None) -> Group:
    """The view, in `width` columns and at most about `lines` lines if given."""
    going = [run for run in snapshot.runs if run.state == states.RUNNING]
    done, total = snapshot.flops
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=total, completed=done, width=60), f"{done / total:.0%}")
    speed = sum(run.tokens_per_s or 0 for run in going)
    pace = f" at {speed:,.0f} tokens/s in all" if speed else ""
    parts: list[Any] = [
        Text(title, style="bold"),
        bar,
        Text(snapshot.totals()),
        Text(f"{len(going)} running{pace}" if going else "nothing is running"),
    ]
    failed = [run for run in snapshot.runs if run.state == states.FAILED]
    parts += [Text(f"{run.planned.run.run_id} failed: {run.note}", style="red") for run in failed[:MAX_FAILURES]]
    if len(failed) > MAX_FAILURES:
        parts.append(Text(f"… and {len(failed) - MAX_FAILURES} more failed; isosweep status lists them", style="red"))
    taken = FIXED_LINES + len(snapshot.valleys) + min(len(failed), MAX_FAILURES)
    room = len(going) if lines is None else max(1, lines - taken)
    if going:
        parts += [Text(), _running(going[:room], snapshot, width)]
        if len(going) > room:
            parts.append(Text(f"… and {len(going) - room} more; isosweep status lists them"))
    if snapshot.valleys:
        parts += [Text(), _minima(snapshot.valleys, width)]
        if snapshot.a is not None:
            parts.append(Text(f"N_opt ∝ C^{snapshot.a.value:.2f} through the minima so far; isosweep fit gives intervals"))
    return Group(*parts)


def _running(runs: Sequence[RunView], snapshot: Snapshot, width: int) -> Text:
    rows = []
    planned = [view.planned for view in snapshot.runs]
    labels = {each.run.run_id: label for each, label in zip(planned, shown_labels(planned), strict=True)}
    labelled = any(labels.values())
    for view in runs:
        run = view.planned.run
        rate = view.tokens_per_s
        loss, speed = f"{view.loss:.3f}" if view.loss is not None else "-", f"{rate:,.0f}" if rate else "-"
        curve = sparkline(snapshot.curves.get(run.run_id, ()))
        done = f"{view.step / run.steps:.0%}"
        sizes = (*[labels[run.run_id]] * labelled, f"{run.N:,}", f"{run.D:,}")
        rows.append((run.run_id, *sizes, done, loss, curve, speed, duration(view.seconds_left)))
    headings = ("running", *["label"] * labelled, "N", "D", "done", "batch", "curve", "tokens/s", "left")
    least = ("D", "curve", "tokens/s", "N", "batch")
    return text_table(headings, rows, left=("running", "label", "curve"), width=width, least=least)


def _minima(valleys: Sequence[Valley], width: int) -> Text:
    rows = []
    for valley in valleys:
        done, minimum = [loss for loss in valley.losses if loss is not None], valley.profile
        optimum = ("-", "-", minimum.reason)
        if minimum.status == "converged":
            optimum = (f"{minimum.N_opt:.4g}", f"{minimum.D_opt / minimum.N_opt:.3g}", "bracketed")
        lowest = f"{min(done):.3f}" if done else "-"
        rows.append((f"{valley.budget:.3g}", f"{len(done)}/{len(valley.losses)}", sparkline(valley.losses), lowest, *optimum))
    headings = ("budget", "runs", "valley", "lowest", "N_opt", "D/N", "minimum")
    return text_table(headings, rows, left=("valley", "minimum"), width=width, least=("minimum", "D/N", "valley"))


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key and returns it, or "" if none is pressed."""
    keyboards = [sys.stdin.fileno()] if sys.stdin.isatty() else []
    before = [termios.tcgetattr(keyboard) for keyboard in keyboards]

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select(keyboards, [], [], seconds)
        return os.read(ready[0], 1).decode(errors="replace") if ready else ""

    try:
        for keyboard in keyboards:
            tty.setcbreak(keyboard)
        yield pressed
    finally:
        for keyboard, attributes in zip(keyboards, before, strict=True):
            termios.tcsetattr(keyboard, termios.TCSADRAIN, attributes)
