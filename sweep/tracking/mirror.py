"""Mirroring curves to wandb: the launch's side of `sweep.tracking.wandb_process`.

The mirror is a process of its own beside the pool, so that training neither waits for wandb nor fails with it.
"""

import json
import multiprocessing
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sweep.config import SweepConfig
from sweep.errors import InputError
from sweep.store import RunDirectory, Store, states
from sweep.train.events import Outcome, Progress

DELIVERED, WARNING, UNREACHABLE, ALIVE = "delivered", "warning", "unreachable", "alive"  # what the process reports


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """What the mirror needs to know of a sweep; see `sweep.config.schema.TrackerConfig`."""

    project: str
    entity: str | None
    group: str
    mode: str  # auto | online | offline | disabled
    timeout_s: float

    @classmethod
    def of(cls, config: SweepConfig) -> "Tracker":
        """The sweep's tracker. Where its mode is "auto", wandb's own WANDB_MODE goes first."""
        options, asked = config.tracker, os.environ.get("WANDB_MODE")
        return cls(
            project=options.project,
            entity=options.entity,
            group=config.name,
            mode=asked if options.mode == "auto" and asked in ("online", "offline", "disabled") else options.mode,
            timeout_s=options.timeout_s,
        )


class Mirror:
    """Mirrors runs to wandb from a process of its own; use as a context manager, which waits for it at the end.

    Call it with every event of `sweep.launch.pool.Pool.run`. Nothing here raises, or waits for wandb before the end.

    Args:
        tracker: None mirrors nothing.
        store: where the runs are.
        warn: told the first thing that goes wrong; others of a launch hardly differ.

    Attributes:
        timeout_s: how long the end waits for a sign of life; the tracker's, unless there is a hurry.
        delivered: how many runs wandb has in full now, and did not before, by mode.
        warnings: all that went wrong.
        unreachable: whether there was no key, no server or no wandb to begin with.
    """

    def __init__(self, tracker: Tracker | None, store: Store, warn: Callable[[str], None] = lambda text: None) -> None:
        self.tracker = None if tracker is None or tracker.mode == "disabled" else tracker
        self.store, self.warn = store, warn
        self.timeout_s = tracker.timeout_s if tracker else 0.0
        self.delivered: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.unreachable = False
        self._process: Any = None
        self._unsent: deque[tuple[str, str]] = deque()
        self._followed: set[str] = set()

    def __enter__(self) -> "Mirror":
        return self

    def __call__(self, event: "Progress | Outcome") -> None:
        if isinstance(event, Outcome):
            if event.run_id in self._followed:
                self._tell("end", event.run_id)
            elif event.state in states.FINAL_STATES:  # nothing was left to do but to say so
                self.send([event.run_id])
        elif event.run_id not in self._followed:  # it owns its run now, and has cut the curve back
            self._followed.add(event.run_id)
            self._tell("follow", event.run_id)
        if self._process is not None:
            self._push()
            self._listen(0)

    def beside(self, report: "Callable[[Progress | Outcome], None]") -> "Callable[[Progress | Outcome], None]":
        """What passes every event to `report`, and then to this mirror."""

        def both(event: "Progress | Outcome") -> None:
            report(event)
            self(event)

        return both

    def send(self, run_ids: Iterable[str]) -> None:
        """Mirror those of `run_ids`, none of them in training, that are not mirrored yet."""
        if self.tracker is None:
            return
        for run_id in run_ids:
            with suppress(InputError, OSError):  # who needs the run's status says what is wrong with it
                if not is_mirrored(self.store.run(run_id), self.tracker):
                    self._tell("end", run_id)

    def summary(self) -> str:
        """What was mirrored, on one line; empty if nothing was."""
        words = {"online": "mirrored to wandb", "offline": "mirrored offline (isosweep wandb-sync sends them to wandb)"}
        return ", ".join(f"{count} runs {words[mode]}" for mode, count in self.delivered.items())

    def __exit__(self, *exception: object) -> None:
        """Wait for the rest, as long as wandb gives signs of life."""
        if self._process is None:
            return
        self._tell("close", "")
        heard = time.monotonic()
        try:
            while self._process.is_alive() and time.monotonic() - heard < self.timeout_s:
                self._push()
                if self._listen(0.1):
                    heard = time.monotonic()
            self._listen(0)
            if self._process.is_alive():
                self._warn(f"nothing came from it for {self.timeout_s:g} s")
            elif self._process.exitcode:
                self._warn(f"its process died (exit code {self._process.exitcode})")
        finally:
            self._process.kill()
            self._process.join()

    def _tell(self, what: str, run_id: str) -> None:
        if self.tracker is None:
            return
        self._unsent.append((what, run_id))
        try:
            if self._process is None:
                self._start()
            self._push()
        except OSError as error:
            self._warn(f"its process cannot start ({error})")
            self.tracker = None

    def _push(self) -> None:
        """Send what the pipe takes. A mirror that hangs or has died is noticed at the end: training does not wait for it."""
        with suppress(OSError):
            while self._unsent:
                self._commands.send(self._unsent[0])
                self._unsent.popleft()

    def _start(self) -> None:
        from sweep.tracking.wandb_process import serve

        context = multiprocessing.get_context("spawn")
        theirs, self._commands = context.Pipe(duplex=False)
        self._reports, their_reports = context.Pipe(duplex=False)
        os.set_blocking(self._commands.fileno(), False)
        arguments = (theirs, their_reports, self.tracker, self.store.root)
        process = context.Process(target=serve, args=arguments, name="isosweep-wandb", daemon=True)
        process.start()
        self._process = process
        theirs.close()
        their_reports.close()

    def _listen(self, timeout: float) -> bool:
        """Take in what the process has reported; whether that was anything."""
        heard = False
        with suppress(EOFError, OSError):
            while self._reports.poll(0 if heard else timeout):
                kind, text = self._reports.recv()
                heard = True
                if kind == DELIVERED:
                    self.delivered[text] += 1
                elif kind in (WARNING, UNREACHABLE):
                    self.unreachable |= kind == UNREACHABLE
                    self._warn(text)
        return heard

    def _warn(self, text: str) -> None:
        if not self.warnings:
            self.warn(text)
        self.warnings.append(text)


def is_mirrored(directory: RunDirectory, tracker: Tracker) -> bool:
    """Whether wandb has all that there is of a run: on the server, or unless that is asked for, in an offline run."""
    status = directory.status()
    try:
        found = json.loads((directory.path / "wandb.json").read_text())
    except (FileNotFoundError, ValueError):
        found = {}
    modes = ("online",) if tracker.mode == "online" else ("online", "offline")
    return not status["step"] or any(found == delivery(status, tracker, mode) for mode in modes)


def delivery(status: dict[str, Any], tracker: Tracker, mode: str) -> dict[str, Any]:
    """What wandb.json says once wandb has all of a run with `status`."""
    return {
        "step": status["step"],
        "state": status["state"],
        "mode": mode,
        "project": tracker.project,
        "entity": tracker.entity,
    }
