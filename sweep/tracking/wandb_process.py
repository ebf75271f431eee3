"""The process that mirrors the curves of a store to wandb while they grow.

The local files are the truth; this process reads them and sends wandb what it lacks. A run's wandb id is its run_id, and
wandb's step is the training step: a row of wandb's history holds what curve.jsonl and throughput.jsonl say of that step. Every
step gets there once, whatever is killed when:

- only steps that status.json vouches for are sent, which no resume takes back;
- online, the server says at which step to go on;
- offline, where nobody can say, a new start writes the whole run anew in place of the offline run before it;
- <run>/wandb.json says what was delivered, and is written only after wandb (offline: its file, read back) has all of it.
"""

import json
import os
import queue
import shutil
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

from models import flops_per_token
from sweep.files import write_json
from sweep.launch.signals import STOP_SIGNALS
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.store.claim import Claim
from sweep.tracking.mirror import ALIVE, DELIVERED, UNREACHABLE, WARNING, Tracker, delivery

POLL_S = 1.0
FILE_S = 10.0  # within which a closed offline run is on disk
ROWS_PER_SIGN_OF_LIFE = 1000


def serve(commands: Connection, reports: Connection, tracker: Tracker, root: Path) -> None:
    """Mirror the runs that `commands` name until told to close."""
    os.nice(10)  # training goes first
    for number in STOP_SIGNALS:  # the pool decides when this ends
        signal.signal(number, signal.SIG_IGN)
    for name in ("WANDB_SERVICE", "WANDB_SWEEP_ID"):  # of a process around this one that uses wandb itself
        os.environ.pop(name, None)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # not even silent is wandb silent
        os.dup2(null, descriptor)
    inbox: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(commands, inbox), daemon=True).start()

    def report(kind: str, text: str = "") -> None:
        reports.send((kind, text))

    try:
        mode = _reachable_mode(tracker, report)
    except Exception as error:
        report(UNREACHABLE, _one_line(error))
    else:
        _mirror(inbox, Store(root), tracker, mode, report)
    os._exit(0)  # wandb's own end would wait for the network once more


def _receive(commands: Connection, inbox: "queue.SimpleQueue[tuple[str, str]]") -> None:
    """Pass commands on. The pool's death ends this process at once: the next launch has a mirror of its own."""
    try:
        while True:
            inbox.put(commands.recv())
    except (EOFError, OSError):
        os._exit(1)


def _reachable_mode(tracker: Tracker, report: Callable[..., None]) -> str:
    """ "online" or "offline". Raises what wandb raises if online is asked for and cannot be had."""
    import wandb

    if tracker.mode == "offline":
        return "offline"
    try:
        wandb.login(verify=True)  # gives up after ten seconds without the server
    except Exception as error:
        if tracker.mode == "online":
            raise
        report(WARNING, f"{_one_line(error)}; mirroring offline")
        return "offline"
    return "online"


def _mirror(
    inbox: "queue.SimpleQueue[tuple[str, str]]", store: Store, tracker: Tracker, mode: str, report: Callable[..., None]
) -> None:
    """Send what is new of every run followed, until all have ended and nobody will name another."""
    sessions: dict[str, _Session] = {}
    ended: set[str] = set()
    closing = False
    while not closing or sessions:
        for what, run_id in _commands(inbox):
            if what == "close":
                closing = True
                ended |= set(sessions)
                continue
            if run_id not in sessions:
                sessions[run_id] = _Session(store.run(run_id), tracker, mode, report)
            if what == "end":
                ended.add(run_id)
        for run_id in list(sessions):
            try:
                sent = sessions[run_id].send()
                if run_id not in ended:
                    continue
                if sent:
                    sessions[run_id].finish()
                    report(DELIVERED, mode)
                else:
                    report(WARNING, f"{run_id} is being mirrored by another process")
            except Exception as error:
                report(WARNING, f"{run_id}: {_one_line(error)}")
            sessions.pop(run_id).release()
            ended.discard(run_id)


def _commands(inbox: "queue.SimpleQueue[tuple[str, str]]") -> Iterator[tuple[str, str]]:
    """What has come; if nothing has, wait a while for it."""
    with suppress(queue.Empty):
        yield inbox.get(timeout=POLL_S)
        while True:
            yield inbox.get_nowait()


class _Session:
    """One run's wandb run, from the first step that wandb lacks to the last there is."""

    def __init__(self, directory: RunDirectory, tracker: Tracker, mode: str, report: Callable[..., None]) -> None:
        self.directory, self.tracker, self.mode, self.report = directory, tracker, mode, report
        # Where machines share a store, one of them may still be sending what another has just taken over.
        self.claim = Claim(directory.path / "wandb-claim")
        self.wandb_run: Any = None
        self.speed: dict[int, dict[str, Any]] = {}  # throughput by step; of steps taken twice, the last
        self.status: dict[str, Any] = {}
        self.files = ExitStack()

    def send(self) -> bool:
        """Send the steps that are certain by now; False if another process is mirroring the run."""
        if self.wandb_run is None and not self._begin():
            return False
        self.status = self.directory.status()
        for line in _complete_lines(self.throughput):
            with suppress(ValueError):  # half a line that a full disk left
                row = json.loads(line)
                self.speed[row.pop("step")] = row
        for step, rows in groupby(self._certain_rows(), key=lambda row: row.pop("step")):
            values = self.speed.pop(step, {})
            for row in rows:  # the step's training loss and, now and then, the held-out loss after it
                values |= row
            if step >= self.wandb_run.starting_step:
                self.wandb_run.log(values, step=step, commit=True)
            if step % ROWS_PER_SIGN_OF_LIFE == 0:
                self.report(ALIVE)
        return True

    def _certain_rows(self) -> Iterator[dict[str, Any]]:
        """New rows up to the step that status.json vouches for; the file stays before the others."""
        for line in _complete_lines(self.curve):
            row = json.loads(line)
            if row["step"] > self.status["step"]:
                self.curve.seek(-len(line), os.SEEK_CUR)
                return
            yield row

    def _begin(self) -> bool:
        if not self.claim.take():
            return False
        curve, throughput = self.directory.curve, self.directory.throughput
        self.curve = self.files.enter_context(open(curve, "rb"))  # noqa: SIM115  # closed by release
        self.throughput = self.files.enter_context(open(throughput if throughput.exists() else os.devnull, "rb"))  # noqa: SIM115
        self.wandb_run = _wandb_run(self.directory, self.tracker, self.mode)
        # Runs of this one that an earlier mirror left here: they are on the server, or will be in this offline run.
        for earlier in (self.directory.path / "wandb").glob("*run-*"):
            if earlier != Path(self.wandb_run.settings.sync_dir):
                shutil.rmtree(earlier, ignore_errors=True)
        return True

    def finish(self) -> None:
        """Close the wandb run and note what it has. Raises RuntimeError if that is not all."""
        self.wandb_run.finish(exit_code=0 if self.status["state"] == states.DONE else 1)
        if self.mode == "offline":  # wandb says nothing of a full disk, and returns before its file is whole
            file, patience = Path(self.wandb_run.settings.sync_file), time.monotonic() + FILE_S
            while offline_steps(file) != list(range(1, self.status["step"] + 1)):
                if time.monotonic() > patience:
                    raise RuntimeError(f"{file} lacks steps; is the disk full?")
                time.sleep(0.1)
        elif "fatal error" in (log := Path(self.wandb_run.settings.log_internal)).read_text():  # nor of a refused upload
            raise RuntimeError(f"the server refused rows of it; see {log}")
        write_json(self.directory.path / "wandb.json", delivery(self.status, self.tracker, self.mode))

    def release(self) -> None:
        """Leave the run to another mirror."""
        self.files.close()
        with suppress(OSError):
            if self.claim.number:
                self.claim.release()


def _wandb_run(directory: RunDirectory, tracker: Tracker, mode: str) -> Any:
    """A wandb run for `directory`, resumed if the server has it; wandb's own files go to <run>/wandb."""
    import wandb

    run = directory.config()
    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=tracker.timeout_s / 2,
        finish_timeout=tracker.timeout_s / 2,
        finish_timeout_raises=True,
        # This process is not the one that trains: what its machine and its code do says nothing of the run.
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
    )
    wandb_run = wandb.init(
        project=tracker.project,
        entity=tracker.entity,
        id=run.run_id,
        group=tracker.group,
        name=run_name(run),
        config=run_values(run),
        dir=directory.path,
        mode=mode,  # type: ignore[arg-type]  # one of its two words
        resume="allow",
        reinit="create_new",
        settings=settings,
    )
    wandb_run.define_metric("tokens")
    wandb_run.define_metric("*", step_metric="tokens")
    return wandb_run


def run_name(run: RunConfig) -> str:
    """What a person reads in wandb's list: "26.4k parameters, 1.25M tokens, seed 0"."""
    return f"{_short(run.N)} parameters, {_short(run.D)} tokens, seed {run.seed}"


def run_values(run: RunConfig) -> dict[str, Any]:
    """wandb's config: the whole run configuration, N, D, and the FLOPs by both counts."""
    exact = flops_per_token(run.model, "exact") * run.D
    return run.to_dict() | {"N": run.N, "D": run.D, "C": 6 * run.N * run.D, "flops": exact}


def offline_steps(path: Path) -> list[int]:
    """The steps in an offline run's .wandb file, none while its end is not written.

    The file is LevelDB's log format after seven bytes, a protocol buffer per record.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made as it is imported

    data, at, parts, steps = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (rest := 32768 - at % 32768) < 7:  # a block's end that no header fits into
            at += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):
            break
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record.FromString(parts)
            parts = b""
            match record.WhichOneof("record_type"):
                case "history":
                    steps.append(record.history.step.num)
                case "exit":
                    return steps
    return []


def _complete_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines that a growing file has in full, from where it stands."""
    while (line := file.readline()).endswith(b"\n"):
        yield line
    file.seek(-len(line), os.SEEK_CUR)


def _short(number: float) -> str:
    for factor, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:g}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")[:300]
