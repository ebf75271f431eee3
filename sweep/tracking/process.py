"""The mirror's process, beside a launch: it copies curves to a tracker while they grow.

The files of a run are the truth and this process only reads them, so training neither waits for a tracker nor fails with it.
Every step reaches the tracker once, whatever is killed when:

- Only steps up to the last checkpoint are sent: a resumed run trains later ones again.
- The tracker's step is the optimizer step. Online, the server says which step it lacks first, and sending goes on from there.
- Offline, where there is no server to ask, a run is written whole when it ends, in place of what an earlier mirror wrote.
- <run>/wandb.json says what was delivered. It is written after the tracker has confirmed all of it.
"""

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from models import flops_per_token
from sweep.files import write_json
from sweep.launch.local import STOP_SIGNALS
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.store.claim import Claim
from sweep.tracking import Run, Tracker, one_line

FOLLOW, END, CLOSE = "follow", "end", "close"  # what this process is told, with a run_id
DELIVERED, WARNING, UNREACHABLE, ALIVE = "delivered", "warning", "unreachable", "alive"  # what it reports, with a text
POLL_S = 1.0
STEPS_PER_SIGN_OF_LIFE = 1000
NAMES = {"loss": "train/loss", "val_loss": "eval/loss", "val_loss_se": "eval/loss_se"}  # other values keep the curve's name
MAX_TAG = 64  # characters that wandb allows

Labels = Mapping[str, Mapping[str, Any]]  # by run_id


def serve(commands: Any, reports: Connection, tracker: Tracker, root: Path, labels: Labels, parent: int) -> None:
    """Mirror the runs of the store at `root` that `commands` name until told to close, or until the process `parent` is gone."""
    os.nice(10)  # training goes first
    for number in STOP_SIGNALS:  # the launch decides when this ends
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # trackers print, even if told not to
        os.dup2(null, descriptor)

    def report(kind: str, text: str = "") -> None:
        reports.send((kind, text))

    try:
        backend = import_module(f"sweep.tracking.{tracker.kind}")
        mode, warning = backend.connect(tracker)
        if warning:
            report(WARNING, warning)
    except Exception as error:
        report(UNREACHABLE, one_line(error))
    else:
        _mirror(commands, lambda run_id: _Sender(Store(root).run(run_id), tracker, mode, backend.Run, labels), mode, report)
    os._exit(0)  # a tracker's own exit handlers would wait for the network once more


def _end_with(parent: int) -> None:
    """End this process as soon as the launch is gone: the next launch has a mirror of its own."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _mirror(commands: Any, open_run: "Callable[[str], _Sender]", mode: str, report: Callable[..., None]) -> None:
    """Send what is new of every run named, until all have ended and no more will be named."""
    senders: dict[str, _Sender] = {}
    ended: set[str] = set()
    closing = False
    while senders or not closing:
        for what, run_id in _received(commands):
            if what == CLOSE:
                closing, ended = True, set(senders)
                continue
            if run_id not in senders:
                senders[run_id] = open_run(run_id)
            if what == END:
                ended.add(run_id)
        for run_id in list(senders if mode == "online" else ended):
            try:
                sent = senders[run_id].send(lambda: report(ALIVE))
                if run_id not in ended:
                    continue
                if sent:
                    senders[run_id].finish()
                    report(DELIVERED, mode)
                else:
                    report(WARNING, f"{run_id} is being mirrored by another process")
            except (Exception, SystemExit) as error:  # wandb.teardown raises SystemExit if wandb's service failed
                report(WARNING, f"{run_id}: {one_line(error)}")
            senders.pop(run_id).release()
            ended.discard(run_id)


def _received(commands: Any) -> Iterator[tuple[str, str]]:
    """The commands that have come. If there are none, wait a while for one."""
    with suppress(queue.Empty):
        yield commands.get(timeout=POLL_S)
        while True:
            yield commands.get_nowait()


class _Sender:
    """Sends one run to the tracker, from the first step that the tracker lacks."""

    def __init__(self, directory: RunDirectory, tracker: Tracker, mode: str, connect: type[Run], labels: Labels) -> None:
        self.directory, self.tracker, self.mode, self.connect = directory, tracker, mode, connect
        self.labels = labels.get(directory.path.name, {})
        # Two machines that share the store, or a launch and a wandb-sync, may want to send the same run.
        self.claim = Claim(directory.path / f"{tracker.kind}-claim")
        self.run: Run | None = None
        self.curve, self.throughput = _Tail(directory.curve), _Tail(directory.throughput)
        self.speed: dict[int, dict[str, Any]] = {}  # throughput by step; of a step that was trained twice, the last

    def send(self, alive: Callable[[], None]) -> bool:
        """Send the new steps up to the last checkpoint. False if another process is mirroring the run."""
        if self.run is None:
            if not self.claim.take():
                return False
            run = self.directory.config()
            self.run = self.connect(
                self.tracker,
                self.mode,
                self.directory.path,
                run_id=run.run_id,
                name=run_name(run),
                config=run_values(run) | self.labels,
                tags=[tag[:MAX_TAG] for tag in (self.tracker.group, *(_tag(*label) for label in self.labels.items()))],
            )
        self.status = self.directory.status()
        for line in self.throughput:
            with suppress(ValueError):  # a line that a full disk cut off
                row = json.loads(line)
                self.speed[row["step"]] = row
        for step, rows in groupby(self._certain_rows(), key=lambda row: row["step"]):
            values = self.speed.pop(step, {})
            for row in rows:  # the step's training loss and, at some steps, the held-out loss after it
                values |= row
            if step >= self.run.next_step:
                del values["step"]
                self.run.log(step, {NAMES.get(name, name): value for name, value in values.items() if value is not None})
            if step % STEPS_PER_SIGN_OF_LIFE == 0:
                alive()
        return True

    def _certain_rows(self) -> Iterator[dict[str, Any]]:
        for line in self.curve:
            row = json.loads(line)
            if row["step"] > self.status["step"]:
                return
            yield row

    def finish(self) -> None:
        """End the tracker's run, and note what it has."""
        assert self.run is not None
        self.run.finish(self.status["step"], done=self.status["state"] == states.DONE)
        write_json(self.directory.path / f"{self.tracker.kind}.json", _delivery(self.status, self.tracker, self.mode))

    def release(self) -> None:
        """Leave the run to another mirror."""
        with suppress(OSError):
            if self.claim.number:
                self.claim.release()


class _Tail:
    """The complete lines of a growing file. Each is read once; one at which the reader stops is read again."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, 0  # bytes

    def __iter__(self) -> Iterator[bytes]:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line
                self.read += len(line)


def is_mirrored(directory: RunDirectory, tracker: Tracker) -> bool:
    """Whether the tracker has all there is of a run: on the server or, unless mode "online" is asked for, in an offline run."""
    status = directory.status()
    try:
        found = json.loads((directory.path / f"{tracker.kind}.json").read_text())
    except (FileNotFoundError, ValueError):
        found = None
    modes = ("online",) if tracker.mode == "online" else ("online", "offline")
    return not status["step"] or found in [_delivery(status, tracker, mode) for mode in modes]


def _delivery(status: dict[str, Any], tracker: Tracker, mode: str) -> dict[str, Any]:
    """What wandb.json says once wandb has all of a run with `status`."""
    place = {"mode": mode, "project": tracker.project, "entity": tracker.entity}
    return {"step": status["step"], "state": status["state"], **place}


def run_name(run: RunConfig) -> str:
    """What people read in a list of runs: "26.4k parameters, 1.25M tokens, seed 0"."""
    return f"{_short(run.N)} parameters, {_short(run.D)} tokens, seed {run.seed}"


def run_values(run: RunConfig) -> dict[str, Any]:
    """The whole configuration, N, D, C = 6 N D and the exact FLOPs."""
    exact = flops_per_token(run.model, "exact") * run.D
    return run.to_dict() | {"N": run.N, "D": run.D, "C": 6 * run.N * run.D, "flops": exact}


def _tag(name: str, value: Any) -> str:
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def _short(number: float) -> str:
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:g}"
