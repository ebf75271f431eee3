"""The progress of a launch: a live view on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sweep.plan.run import RunConfig
from sweep.train.events import Outcome
from sweep.train.events import Progress as RunProgress

PLAIN_INTERVAL_S = 10.0


class CorpusProgress:
    """How much text is tokenised, and how fast. It is called with the number of bytes since the last call."""

    def __init__(self, console: Console, total: float) -> None:
        self.console, self.done, self.start = console, 0, time.monotonic()
        self.printed = self.start
        self.known = total if math.isfinite(total) else None
        self.bar = Progress(
            TextColumn("tokenising"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("", total=self.known)

    def __enter__(self) -> "CorpusProgress":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def __call__(self, size: int) -> None:
        self.done += size
        self.bar.advance(self.task, size)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.printed > PLAIN_INTERVAL_S:
            self.printed = now
            of = f" of at most {self.known / 1e6:,.0f}" if self.known else ""
            rate = self.done / (now - self.start) / 1e6
            self.console.print(
                f"{now - self.start:6.0f} s  tokenised {self.done / 1e6:,.0f}{of} MB, {rate:.1f} MB/s", highlight=False
            )


class SweepProgress:
    """A bar over all tokens of the sweep and one for each run in progress; use as a context manager.

    Args:
        runs: that will be trained.
        console: to print on; if it is not a terminal, one line per finished run and per `PLAIN_INTERVAL_S` seconds is printed.
    """

    def __init__(self, runs: Sequence[RunConfig], console: Console) -> None:
        self.runs = {run.run_id: run for run in runs}
        self.console, self.ended = console, 0
        self.tokens = {run.run_id: 0 for run in runs}
        self.start, self.printed = time.monotonic(), time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.work = sum(run.N * run.D for run in runs)  # in FLOPs, since a token of a large model takes longer
        self.total = self.bars.add_task("sweep", total=self.work, note=f"0/{len(runs)} runs")
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "SweepProgress":
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def __call__(self, event: "RunProgress | Outcome") -> None:
        if isinstance(event, Outcome):
            self._end(event)
        else:
            self._advance(event)

    def _advance(self, event: "RunProgress") -> None:
        run = self.runs[event.run_id]
        if event.run_id not in self.tasks:
            self.tasks[event.run_id] = self.bars.add_task(f"N {run.N:,}", total=event.steps, note="")
        note = f"loss {event.loss:.3f}  {event.tokens_per_s:,.0f} tokens/s"
        self.bars.update(self.tasks[event.run_id], completed=event.step, note=note)
        self._count(event.run_id, event.step * run.batch_tokens)
        if not self.console.is_terminal and time.monotonic() - self.printed > PLAIN_INTERVAL_S:
            self.printed = time.monotonic()
            share = sum(self.runs[run_id].N * tokens for run_id, tokens in self.tokens.items()) / self.work
            self._line(f"{share:4.0%} of the FLOPs; {event.run_id} (N {run.N:,}) at step {event.step}/{event.steps}: {note}")

    def _end(self, event: Outcome) -> None:
        run = self.runs[event.run_id]
        self.ended += 1
        if event.run_id in self.tasks:
            self.bars.remove_task(self.tasks.pop(event.run_id))
        self._count(event.run_id, run.D if event.state == "done" else self.tokens[event.run_id])
        self.bars.update(self.total, note=f"{self.ended}/{len(self.runs)} runs")
        if event.error or not self.console.is_terminal:
            reason = f": {event.error}" if event.error else ""
            self._line(f"{self.ended}/{len(self.runs)} {event.run_id} (N {run.N:,}, D {run.D:,}) {event.state}{reason}")

    def _count(self, run_id: str, tokens: int) -> None:
        self.bars.advance(self.total, self.runs[run_id].N * (tokens - self.tokens[run_id]))
        self.tokens[run_id] = tokens

    def _line(self, text: str) -> None:
        self.console.print(f"{time.monotonic() - self.start:6.0f} s  {text}", highlight=False, markup=False, soft_wrap=True)
