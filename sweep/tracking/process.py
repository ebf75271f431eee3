"""The mirror's process, beside a launch: it copies curves to a tracker while they grow.

The files of a run are the truth and this process only reads them, so training neither waits for a tracker nor fails with it.
Every step reaches the tracker once, whatever is killed when:

- Only steps up to the last checkpoint are sent: a resumed run trains later ones again.
- The tracker's step is the optimizer step. Online, the server says which step it lacks first, and sending goes on from there.
- Offline, where there is no server to ask, a run is written whole when it ends, in place of what an earlier mirror wrote.
- <run>/wandb.json says what was delivered. It is written after the tracker has confirmed all of it.
"""

import json
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from models import flops_per_token
from sweep.claim import Claim
from sweep.errors import one_line
from sweep.files import write_json
from sweep.launch.signals import STOP_SIGNALS
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.tracking import TrackedRun, Tracker

FOLLOW, END, CLOSE = "follow", "end", "close"  # what this process is told, with a run_id
DELIVERED, WARNING, UNREACHABLE = "delivered", "warning", "unreachable"  # what it reports, with a text
POLL_S = 1.0
NAMES = {"loss": "train/loss", "val_loss": "eval/loss", "val_loss_se": "eval/loss_se"}  # other values keep the curve's name

Labels = Mapping[str, Mapping[str, Any]]  # by run_id and name


def serve(commands: Any, reports: Connection, tracker: Tracker, root: Path, labels: Labels, parent: int) -> None:
    """Mirror the runs of the store at `root` that `commands` name, until told to close or the process `parent` is gone."""
    os.nice(10)  # training goes first
    for number in STOP_SIGNALS:  # the launch decides when this ends
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # trackers print, even if told not to
        os.dup2(null, descriptor)
    try:
        module = import_module(f"sweep.tracking.{tracker.kind}")
        mode, why_offline = module.connect(tracker)
        if why_offline:
            reports.send((WARNING, f"{why_offline.splitlines()[0]}; mirroring offline"))
    except Exception as error:
        reports.send((UNREACHABLE, one_line(error)))
    else:
        _mirror(commands, reports, mode, partial(_send, Store(root), tracker, mode, module.Run, labels))
    os._exit(0)  # a tracker's own exit handlers would wait for the network once more


def _end_with(parent: int) -> None:
    """End this process as soon as the launch is gone: the next launch has a mirror of its own."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _mirror(commands: Any, reports: Connection, mode: str, send: "Callable[[str, set[str]], Iterator[None]]") -> None:
    """Send what is new of every run named, until all have ended and no more will be named."""
    senders: dict[str, Iterator[None]] = {}
    ended: set[str] = set()
    closing = False
    while senders or not closing:
        for what, run_id in _received(commands):
            if what == CLOSE:
                closing = True
                ended |= set(senders)
                continue
            if run_id not in senders:
                senders[run_id] = send(run_id, ended)
            if what == END:
                ended.add(run_id)
        for run_id in list(senders if mode == "online" else ended):
            try:
                next(senders[run_id])
                continue
            except StopIteration:
                reports.send((DELIVERED, mode))
            except (Exception, SystemExit) as error:  # wandb.teardown raises SystemExit if wandb's service failed
                reports.send((WARNING, f"{run_id}: {one_line(error)}"))
            del senders[run_id]
            ended.discard(run_id)


def _received(commands: Any) -> Iterator[tuple[str, str]]:
    """The commands that have come. If there are none, wait a while for one."""
    with suppress(queue.Empty):
        yield commands.get(timeout=POLL_S)
        while True:
            yield commands.get_nowait()


def _send(
    store: Store, tracker: Tracker, mode: str, start: Callable[..., TrackedRun], labels: Labels, run_id: str, ended: set[str]
) -> Iterator[None]:
    """Each `next` sends a run's new steps up to the last checkpoint. The one after `ended` has the run finishes it."""
    directory = store.run(run_id)
    # Machines that share the store, or a launch and a wandb-sync, may want to send the same run.
    claim = Claim(directory.path / f"{tracker.kind}-claim")
    try:
        while not claim.take():
            if run_id in ended:
                raise BlockingIOError("another process is mirroring it")
            yield
        tracked = start(tracker, mode, directory.path, **_description(directory.config(), tracker, labels.get(run_id, {})))
        curve, throughput = _Tail(directory.curve), _Tail(directory.throughput)
        speed: dict[int, dict[str, Any]] = {}  # by step; of a step that was trained twice, the last
        while True:
            last_time, status = run_id in ended, directory.status()
            speed |= {row["step"]: row for row in throughput.rows()}
            for step, rows in groupby(curve.rows(status["step"]), key=lambda row: row["step"]):
                values = speed.pop(step, {})
                for row in rows:  # the step's training loss and, at some steps, the held-out loss after it
                    values |= row
                if step >= tracked.next_step:
                    del values["step"]
                    tracked.log(step, {NAMES.get(name, name): value for name, value in values.items() if value is not None})
            if last_time:
                break
            yield
        tracked.finish(status["step"], done=status["state"] == states.DONE)
        write_json(directory.path / f"{tracker.kind}.json", _delivery(status, tracker, mode))
    finally:
        with suppress(OSError):
            if claim.number:
                claim.release()


def _description(run: RunConfig, tracker: Tracker, labels: Mapping[str, Any]) -> dict[str, Any]:
    """What a tracker shows beside the curve: name, configuration and tags."""
    known = {"N": run.N, "D": run.D, "C": 6 * run.N * run.D, "flops": flops_per_token(run.model, "exact") * run.D}
    return {
        "name": f"N={run.N:,} D={run.D:,} seed={run.seed}",
        "config": {**run.to_dict(), **known, **labels},
        "tags": [
            tracker.group,
            *(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in labels.items()),
        ],
    }


class _Tail:
    """The rows of a growing file of JSON lines, each read once."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, 0  # bytes

    def rows(self, last_step: float = math.inf) -> Iterator[dict[str, Any]]:
        """The complete rows that are new, before the first of a step after `last_step`."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                with suppress(ValueError):  # a line that a full disk cut off
                    row = json.loads(line)
                    if row["step"] > last_step:
                        return
                    yield row
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
