"""Who trains a run: one owner at a time, on one machine or on many that share a file system.

A claim is a file in the run's claim/, numbered one above the last. It is created exclusively, which every file system can do,
those on a network too: of any number of processes that find a run free, one gets the next number, and the highest number owns
the run. A file is deleted only when nobody can be judging it any more. An owner that was given up for dead, and wakes up, finds
a higher number and stops.

An owner is dead if its process is gone (on the same machine), if its batch job is not running any more, or if its file has not
been touched for `STALE_S`. The age of a file is measured by the file system's own clock.
"""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol

from sweep.files import patiently, write_atomically

HEARTBEAT_S, STALE_S = 15.0, 180.0
POLL_S = 0.2  # of who waits for another process


class BatchSystem(Protocol):
    """What a batch system knows about its jobs."""

    def current_job(self) -> tuple[str, int] | None:
        """The job that this process belongs to, and how often it was restarted; None if it is none of this system's."""

    def alive(self, job: str) -> bool | None:
        """Whether a job is running; None if that is unknown, or it is another system's."""


class LostError(Exception):
    """Another process has taken over, so that this one must write no more."""


batch_systems: Callable[[], Iterable[BatchSystem]] = tuple  # none; sweep.launch sets it to the launchers


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, described so that others can find out whether it is alive."""

    host: str  # its machine, and which boot of it
    pid: int  # on that machine
    started: int  # clock ticks from boot to its start, because process numbers come again; 0 where the system does not say
    job: str = ""  # the batch job it belongs to; "" outside of any
    restarts: int = 0  # of that job
    namespace: str = ""  # in which its number means something: a container may have its own

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        job, restarts = _current_job()
        pid = os.getpid()
        return cls(host=_host(), pid=pid, started=_started(pid), job=job, restarts=restarts, namespace=_namespace())

    @property
    def machine(self) -> str:
        return self.host.partition(" ")[0]

    def is_here(self) -> bool:
        """Whether it is, or was, a process that this one can see: of this machine since its boot, and of this container."""
        return self.host == _host() and self.namespace == _namespace()

    def alive(self) -> bool | None:
        """Whether the process is alive; None if that cannot be told from here."""
        job, restarts = _current_job()
        if self.job and self.job == job and self.restarts < restarts:
            # An earlier start of the job that asks: the batch system gave it up. If it still runs, it sees the new claim.
            return False
        if self.is_here():
            if not _exists(self.pid) or (started := _started(self.pid)) not in (0, self.started):
                return False
            return True if started == self.started else None  # some systems hide the processes of other users
        answers = (system.alive(self.job) for system in batch_systems()) if self.job else ()
        return next((answer for answer in answers if answer is not None), None)


class Claim:
    """A run's claim, held by this process from `take` to `release`; `directory` is the run's claim/.

    The file is touched every `heartbeat_s`. An owner that has not touched its file for `stale_s` is dead.
    """

    def __init__(self, directory: Path, *, after: int = 0, heartbeat_s: float = HEARTBEAT_S, stale_s: float = STALE_S) -> None:
        """`after` is a number that claims have had before, if the directory may have been removed since."""
        self.directory, self.after, self.heartbeat_s, self.stale_s = directory, after, heartbeat_s, stale_s
        self.number = 0
        self._ended = threading.Event()

    def take(self) -> bool:
        """Own the run; False if a living process owns it, or another was quicker."""
        self.directory.mkdir(parents=True, exist_ok=True)
        last = self._last()
        number = max(last, self.after) + 1
        if not self._free(last) or not patiently(lambda: self._create(number)):
            return False
        self.number = number
        if self.lost():  # this process was so slow that the number had come and gone
            self._path(number).unlink()
            return False
        for old in range(max(1, last - 2), last):  # two stay, for processes that are still judging them
            self._path(old).unlink(missing_ok=True)
        self._ended.clear()
        threading.Thread(target=self._beat, name="isosweep-heartbeat", daemon=True).start()
        return True

    def _create(self, number: int) -> bool:
        """Create the claim of that number for this process; False if there is one."""
        path, owner = self._path(number), json.dumps(asdict(Owner.here()))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "w") as file:
                file.write(owner)
                file.flush()
                os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return True

    def lost(self) -> bool:
        """Whether another process has taken the run over, so that this one must write no more."""
        return self._last() != self.number

    def check(self) -> None:
        """Raises LostError if another process has taken the run over."""
        if self.lost():
            raise LostError(f"{self.directory} has a later claim than {self.number}")

    def release(self) -> None:
        """Leave the run to the next process that wants it. If that cannot be written, it is free when this process ends."""
        self._ended.set()
        with suppress(OSError):
            if self.lost():
                return
            try:
                write_atomically(self._path(self.number), json.dumps({"released": True}))
            except OSError:  # perhaps the disk is full; removing the file takes no space
                self._path(self.number).unlink(missing_ok=True)

    def owner(self) -> Owner | None:
        """The owner of the run, alive or not; None if there is none."""
        return self._owner(self._last())

    def held(self) -> bool:
        """Whether a living process owns the run."""
        return not self._free(self._last())

    def _free(self, number: int) -> bool:
        """Whether the run can be taken when its last claim has this number; 0 if there has been no claim."""
        if number == 0 or self._read(number).get("released") is True:
            return True
        owner = self._owner(number)
        alive = owner.alive() if owner is not None else None
        return self._age(number) > self.stale_s if alive is None else not alive

    def _beat(self) -> None:
        while not self._ended.wait(self.heartbeat_s):
            try:
                os.utime(self._path(self.number))
            except FileNotFoundError:  # taken over and deleted: `lost` says so
                return
            except OSError:  # a file system that is not at its best: the next beat may be heard
                continue

    def _age(self, number: int) -> float:
        """Seconds since the file was touched, by the file system's clock; infinite if it is gone."""
        try:
            with TemporaryFile(dir=self.directory) as probe:
                now = os.fstat(probe.fileno()).st_mtime
        except OSError:  # a reader that may not write here
            now = time.time()
        try:
            return now - self._path(number).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _last(self) -> int:
        try:
            names = patiently(lambda: os.listdir(self.directory))
        except FileNotFoundError:
            return 0
        return max((int(name[:-5]) for name in names if re.fullmatch(r"[0-9]+\.json", name)), default=0)

    def _read(self, number: int) -> dict[str, Any]:
        try:
            found = json.loads(self._path(number).read_bytes())
        except (OSError, ValueError, RecursionError):  # gone, or damaged
            return {}
        return found if isinstance(found, dict) else {}

    def _owner(self, number: int) -> Owner | None:
        try:
            owner = Owner(**self._read(number))
        except TypeError:
            return None
        whole = all(isinstance(getattr(owner, each.name), each.type) for each in fields(Owner))  # type: ignore[arg-type]
        return owner if whole and owner.pid > 0 else None

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:08d}.json"


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait until no other process is in such a context with the same `directory`, and keep others waiting."""
    claim = Claim(directory)
    while True:
        with suppress(FileNotFoundError):  # who was in it may have removed it just now
            if claim.take():
                break
        time.sleep(POLL_S)
    try:
        yield
    finally:
        claim.release()


def _current_job() -> tuple[str, int]:
    return next(filter(None, (system.current_job() for system in batch_systems())), ("", 0))


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}".strip()


def _namespace() -> str:
    """The name of this process's namespace of process numbers; "" where the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> int:
    """When a process of this machine began, in clock ticks since boot; 0 if the system does not say, -1 if it has ended and is
    not reaped yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    values = stat.rpartition(")")[2].split()  # the name before them may hold anything
    return -1 if values[0] in "ZX" else int(values[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
