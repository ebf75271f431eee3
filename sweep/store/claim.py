"""Who trains a run: one owner at a time, on one machine or on many that share a file system.

A claim is a file in the run's claim/, numbered one above the last. It is written under another name and linked to its own
name. That is atomic, on NFS too, and fails if the name exists: of any number of processes that find a run free, one gets the
next number, and the highest number owns the run. A file is deleted only when nobody can be judging it any more. An owner that
was given up for dead, and wakes up, finds a higher number and stops.

An owner is dead if its process is gone (on the same machine), if its batch job is not running any more, or if its file has not
been touched for `STALE_S`. The age of a file is measured by the file system's own clock.
"""

import json
import os
import platform
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from sweep.files import temporary_beside, write_atomically

HEARTBEAT_S, STALE_S = 15.0, 180.0


class BatchSystem(Protocol):
    """What a batch system knows about its jobs."""

    def current_job(self) -> tuple[str, int] | None:
        """The job that this process belongs to, and how often it was restarted; None if it is none of this system's."""

    def alive(self, job: str) -> bool | None:
        """Whether a job is running; None if that is unknown, or it is another system's."""


batch_systems: Callable[[], Iterable[BatchSystem]] = tuple  # none; sweep.launch sets it to the launchers


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, described so that others can find out whether it is alive."""

    host: str  # its machine, and which boot of it
    pid: int  # on that machine
    started: int  # clock ticks from boot to its start, because process numbers come again; 0 where the system does not say
    job: str = ""  # the batch job it belongs to; "" outside of any
    restarts: int = 0  # of that job

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        job, restarts = _current_job()
        return cls(host=_host(), pid=os.getpid(), started=_started(os.getpid()), job=job, restarts=restarts)

    @property
    def machine(self) -> str:
        return self.host.partition(" ")[0]

    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine since its last boot."""
        return self.host == _host()

    def alive(self) -> bool | None:
        """Whether the process is alive; None if that cannot be told from here."""
        job, restarts = _current_job()
        if self.job and self.job == job and self.restarts < restarts:
            # An earlier start of the job that asks: the batch system gave it up. If it still runs, it sees the new claim.
            return False
        if self.is_here():
            return _started(self.pid) == self.started and _exists(self.pid)
        answers = (system.alive(self.job) for system in batch_systems()) if self.job else ()
        return next((answer for answer in answers if answer is not None), None)


class Claim:
    """A run's claim, held by this process from `take` to `release`; `directory` is the run's claim/.

    The file is touched every `heartbeat_s`. An owner that has not touched its file for `stale_s` is dead.
    """

    def __init__(self, directory: Path, *, heartbeat_s: float = HEARTBEAT_S, stale_s: float = STALE_S) -> None:
        self.directory, self.heartbeat_s, self.stale_s = directory, heartbeat_s, stale_s
        self.number = 0
        self._ended = threading.Event()

    def take(self) -> bool:
        """Own the run; False if a living process owns it, or another was quicker."""
        self.directory.mkdir(parents=True, exist_ok=True)
        last = self._last()
        if not self._free(last) or not self._create(last + 1):
            return False
        self.number = last + 1
        if self.lost():  # this process was so slow that the number had come and gone
            self._path(self.number).unlink()
            return False
        for old in range(max(1, last - 2), last):  # two stay, for processes that are still judging them
            self._path(old).unlink(missing_ok=True)
        self._ended.clear()
        threading.Thread(target=self._beat, name="isosweep-heartbeat", daemon=True).start()
        return True

    def _create(self, number: int) -> bool:
        """Try to link the claim of that number to this process; whether that succeeded."""
        draft = temporary_beside(self._path(number))
        draft.write_text(json.dumps(asdict(Owner.here())))
        try:
            os.link(draft, self._path(number))
        except FileExistsError:
            return draft.stat().st_nlink == 2  # NFS may try twice: then it was our own link that made the name
        finally:
            draft.unlink()
        return True

    def lost(self) -> bool:
        """Whether another process has taken the run over, so that this one must write no more."""
        return self._last() != self.number

    def release(self) -> None:
        """Leave the run to the next process that wants it."""
        self._ended.set()
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
        with suppress(OSError):  # taken over and deleted: `lost` says so
            while not self._ended.wait(self.heartbeat_s):
                os.utime(self._path(self.number))

    def _age(self, number: int) -> float:
        """Seconds since the file was touched, by the file system's clock; infinite if it is gone."""
        probe = self.directory / f".now-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
        try:
            probe.touch()
            return probe.stat().st_mtime - self._path(number).stat().st_mtime
        except FileNotFoundError:
            return float("inf")
        finally:
            probe.unlink(missing_ok=True)

    def _last(self) -> int:
        try:
            return max((int(name[:-5]) for name in os.listdir(self.directory) if name[:-5].isdigit()), default=0)
        except FileNotFoundError:
            return 0

    def _read(self, number: int) -> dict[str, Any]:
        try:
            found = json.loads(self._path(number).read_text())
        except (OSError, ValueError):  # gone, or damaged
            return {}
        return found if isinstance(found, dict) else {}

    def _owner(self, number: int) -> Owner | None:
        try:
            return Owner(**self._read(number))
        except TypeError:
            return None

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:08d}.json"


def _current_job() -> tuple[str, int]:
    return next(filter(None, (system.current_job() for system in batch_systems())), ("", 0))


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}".strip()


def _started(pid: int) -> int:
    """When a process of this machine began, in clock ticks since boot; 0 if it is gone or the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()  # the name before them may hold anything
    return 0 if fields[0] in "ZX" else int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
