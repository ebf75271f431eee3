"""The progress of a launch: a live view on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Sequence
from typing import Any, Self

from rich import progress
from rich.console import Console

from sweep.plan.run import RunConfig
from sweep.train.events import Outcome
from sweep.train.events import Progress as RunProgress

PLAIN_INTERVAL_S = 10.0
ROOMY = 80  # columns: on a narrower screen the times would be cut
SHORT_S = 2.0  # fits that take less show nothing


class _Bars:
    """Progress bars on a terminal; elsewhere one line per `PLAIN_INTERVAL_S` seconds. Used as a context manager."""

    def __init__(self, console: Console, *columns: progress.ProgressColumn, **options: Any) -> None:
        self.console = console
        self.start = self.printed = time.monotonic()
        times = (progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
        self.bars = progress.Progress(*columns, *times, console=console, disable=not console.is_terminal, **options)

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        if self.console.is_terminal or now - self.printed <= PLAIN_INTERVAL_S:
            return False
        self.printed = now
        return True

    def _line(self, text: str) -> None:
        self.console.print(f"{time.monotonic() - self.start:6.0f} s  {text}", highlight=False, markup=False, soft_wrap=True)


class CorpusProgress(_Bars):
    """How much text is tokenised, and how fast, or what is done before. It is called as `Advance` of `sweep.data.text` is."""

    def __init__(self, console: Console, total: float) -> None:
        columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TransferSpeedColumn())
        super().__init__(console, progress.TextColumn("{task.description}"), *columns, transient=True)
        self.done, self.known = 0, total if math.isfinite(total) else None
        self.task = self.bars.add_task("tokenising", total=self.known)

    def __call__(self, size: int, doing: str = "tokenising") -> None:
        self.done += size
        self.bars.update(self.task, advance=size, description=doing)
        if not self._line_is_due():
            return
        if not self.done:
            self._line(doing)
        else:
            of = f" of at most {self.known / 1e6:,.0f}" if self.known else ""
            rate = self.done / (time.monotonic() - self.start) / 1e6
            self._line(f"tokenised {self.done / 1e6:,.0f}{of} MB, {rate:.1f} MB/s")


class FitProgress(_Bars):
    """What is being fitted and how far that is, once fitting has taken a while. It is called as `Tell` of `sweep.fit` is."""

    def __init__(self, console: Console) -> None:
        columns = (progress.TextColumn("fitting {task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
        super().__init__(console, *columns, transient=True)
        self.task = self.bars.add_task("", total=None, visible=False)
        self.printed += SHORT_S - PLAIN_INTERVAL_S  # the first line is due sooner

    def __call__(self, what: str, done: int, of: int) -> None:
        late = time.monotonic() - self.start > SHORT_S
        self.bars.update(self.task, description=what, completed=done, total=of, visible=late)
        if self._line_is_due():
            self._line(f"fitting {what}, {done} of {of} done")


class SweepProgress(_Bars):
    """A bar over all tokens of the sweep and one for each run in progress; elsewhere also one line per finished run.

    Args:
        runs: that will be trained.
        console: to print on.
    """

    def __init__(self, runs: Sequence[RunConfig], console: Console) -> None:
        texts = (progress.TextColumn("{task.percentage:>3.0f}%"), progress.TextColumn("{task.fields[note]}"))
        super().__init__(console, progress.TextColumn("{task.description}"), progress.BarColumn(), *texts)
        self.runs = {run.run_id: run for run in runs}
        self.tokens = {run.run_id: 0 for run in runs}
        self.ended = 0
        self.work = sum(run.N * run.D for run in runs)  # in FLOPs, since a token of a large model takes longer
        self.total = self.bars.add_task("sweep", total=self.work, note="starting workers")
        self.tasks: dict[str, progress.TaskID] = {}
        if not console.is_terminal:
            self._line("starting workers")

    def __call__(self, event: RunProgress | Outcome) -> None:
        if isinstance(event, Outcome):
            self._end(event)
        else:
            self._advance(event)
        self.bars.update(self.total, note=f"{self.ended}/{len(self.runs)} runs")

    def _advance(self, event: RunProgress) -> None:
        run = self.runs[event.run_id]
        if event.run_id not in self.tasks:
            self.tasks[event.run_id] = self.bars.add_task(f"N {run.N:,}", total=event.steps, note="")
        note = f"loss {event.loss:.3f}"
        if not self.console.is_terminal or self.console.width >= ROOMY:
            note += f"  {event.tokens_per_s:,.0f} tokens/s"
        self.bars.update(self.tasks[event.run_id], completed=event.step, note=note)
        self._count(event.run_id, event.step * run.batch_tokens)
        if self._line_is_due():
            share = sum(self.runs[run_id].N * tokens for run_id, tokens in self.tokens.items()) / self.work
            self._line(f"{share:4.0%} of the FLOPs; {event.run_id} (N {run.N:,}) at step {event.step}/{event.steps}: {note}")

    def _end(self, event: Outcome) -> None:
        run = self.runs[event.run_id]
        self.ended += 1
        if event.run_id in self.tasks:
            self.bars.remove_task(self.tasks.pop(event.run_id))
        self._count(event.run_id, run.D if event.state == "done" else self.tokens[event.run_id])
        if event.error or not self.console.is_terminal:
            reason = f": {event.error}" if event.error else ""
            self._line(f"{self.ended}/{len(self.runs)} {event.run_id} (N {run.N:,}, D {run.D:,}) {event.state}{reason}")

    def _count(self, run_id: str, tokens: int) -> None:
        self.bars.advance(self.total, self.runs[run_id].N * (tokens - self.tokens[run_id]))
        self.tokens[run_id] = tokens
