"""Mirroring the runs of a launch to a tracker: the launch's side of `sweep.tracking.process`."""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from shlex import quote
from typing import Any

from sweep.errors import InputError
from sweep.store import Store, states
from sweep.tracking import Tracker
from sweep.tracking.process import CLOSE, DELIVERED, END, FOLLOW, UNREACHABLE, WARNING, Labels, is_mirrored, serve
from sweep.train.events import Event, Outcome
from sweep.words import counted


class Mirror:
    """Mirrors runs from a process of its own; use as a context manager, which waits for the process at the end.

    Call it with every event of a launch. Nothing here raises, or waits for the tracker before the end.

    Args:
        tracker: where to; None mirrors nothing.
        store: where the runs are.
        warn: called with the first thing that goes wrong, on one line; what follows is mostly the same again.
        labels: by run_id, what the sweep says of a run beside its configuration, such as its budget; they become configuration
            and tags at the tracker.
        patient: whether the end waits as long as runs are delivered, and not `timeout_s` at most.

    Attributes:
        timeout_s: how long the end waits at most; the tracker's, unless there is a hurry.
        delivered: how many runs the tracker has in full now and did not before, by mode.
        warnings: all that went wrong.
        unreachable: whether there was no key, no server or no tracker installed to begin with.
    """

    def __init__(
        self,
        tracker: Tracker | None,
        store: Store,
        warn: Callable[[str], None] = lambda text: None,
        *,
        labels: Labels | None = None,
        patient: bool = False,
    ) -> None:
        self.tracker = None if tracker is None or tracker.kind == "none" or tracker.mode == "disabled" else tracker
        self.store, self.warn, self.labels, self.patient = store, warn, labels or {}, patient
        self.timeout_s = tracker.timeout_s if tracker else 0.0
        self.delivered: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.unreachable = False
        self._process: Any = None
        self._followed: set[str] = set()

    def __enter__(self) -> "Mirror":
        return self

    def __call__(self, event: Event) -> None:
        if isinstance(event, Outcome):
            if event.run_id in self._followed:
                self._tell(END, event.run_id)
            elif event.state in states.FINAL_STATES:  # it had been trained before
                self.send([event.run_id])
        elif event.run_id not in self._followed:  # it owns its run now, and has cut the curve back
            self._followed.add(event.run_id)
            self._tell(FOLLOW, event.run_id)
        if self._process is not None:
            self._listen(0)

    def send(self, run_ids: Iterable[str]) -> None:
        """Mirror those of `run_ids`, none of them in training, that the tracker lacks."""
        if self.tracker is None:
            return
        for run_id in run_ids:
            with suppress(InputError, OSError):  # a damaged status is reported where the run's results are read
                if not is_mirrored(self.store.run(run_id), self.tracker):
                    self._tell(END, run_id)

    def summary(self) -> str:
        """What was mirrored, on one line, and of offline runs where they lie and how to send them; empty if nothing was."""
        if self.tracker is None:
            return ""
        runs = f"{quote(str(self.store.root.resolve()))}/runs"
        later = f"isosweep wandb-sync {quote(self.tracker.group)} store={quote(str(self.store.root))}"
        offline = f"mirrored offline in {runs}/*/wandb; to send: {later}, or: wandb sync {runs}/*/wandb/offline-run-*"
        words = {"online": "mirrored to wandb", "offline": offline}
        return ", ".join(f"{counted(count, 'run')} {words[mode]}" for mode, count in self.delivered.items())

    def __exit__(self, *exception: object) -> None:
        if self._process is None:
            return
        self._tell(CLOSE, "")
        wait_s = self.timeout_s * (2 if self.patient else 1)  # a run has half of it to begin, half to end, and is confirmed
        give_up = time.monotonic() + wait_s
        try:
            while self._process.is_alive() and time.monotonic() < give_up:
                if self._listen(0.1) and self.patient:
                    give_up = time.monotonic() + wait_s
            self._listen(0)
            if self._process.is_alive():
                self._warn(f"it had not taken everything after {wait_s:g} s")
            elif self._process.exitcode:
                self._warn(f"the mirror's process died (exit code {self._process.exitcode})")
        finally:
            self._process.kill()
            self._process.join()

    def _tell(self, what: str, run_id: str) -> None:
        if self.tracker is None:
            return
        try:
            if self._process is None:
                self._start(self.tracker)
            self._commands.put((what, run_id))  # a thread writes it, so a mirror that hangs does not block training
        except OSError as error:
            self._warn(f"the mirror's process cannot start ({error})")
            self.tracker = None

    def _start(self, tracker: Tracker) -> None:
        context = multiprocessing.get_context("spawn")
        self._commands = context.Queue()
        self._commands.cancel_join_thread()
        self._reports, theirs = context.Pipe(duplex=False)
        arguments = (self._commands, theirs, tracker, self.store.root, self.labels, os.getpid())
        process = context.Process(target=serve, args=arguments, name="isosweep-mirror", daemon=True)
        process.start()
        self._process = process
        theirs.close()

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
