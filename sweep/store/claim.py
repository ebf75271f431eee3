"""Who trains a run: one owner at a time, on one machine or on many that share a file system.

A claim is a file in the run's claim/, numbered one above the last. It is written under another name and linked to its own,
which is atomic, on NFS too, and fails if the name is there: of any number of processes that find a run free one gets the next
number, and the highest number owns the run. Nothing is ever deleted that somebody may be judging, and an owner that was given
up for dead, and wakes, finds a higher number and stops.

An owner is dead if its process is gone (same machine), if Slurm no longer runs its job, or if its file has not been touched for
`STALE_S`; the age of a file is taken from the file system's own clock.
"""

import json
import os
import platform
import socket
import subprocess
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.files import temporary_beside, write_atomically

HEARTBEAT_S, STALE_S = 15.0, 180.0
ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY")


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, so that others can find out whether it lives.

    Attributes:
        host: its machine, and which boot of it.
        pid: on that machine.
        started: clock ticks since boot at which it began, as process numbers come again; 0 where the system does not say.
        job: Slurm's job, "" outside.
        restarts: how often Slurm has restarted that job.
    """

    host: str
    pid: int
    started: int
    job: str = ""
    restarts: int = 0

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        environment = os.environ
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        return cls(
            host=_host(),
            pid=os.getpid(),
            started=_started(os.getpid()),
            job=f"{array}_{task}" if array else environment.get("SLURM_JOB_ID", ""),
            restarts=int(environment.get("SLURM_RESTART_COUNT", 0)),
        )

    def alive(self) -> bool | None:
        """Whether it lives; None if that cannot be told from here."""
        here = Owner.here()
        if self.job and self.job == here.job and self.restarts < here.restarts:
            # This very job, before Slurm gave it up and started it again. It may not have noticed; it will see the new claim.
            return False
        if self.host == _host():
            return _started(self.pid) == self.started and _exists(self.pid)
        return self._job_runs() if self.job else None

    def _job_runs(self) -> bool | None:
        """Whether Slurm still runs this start of the job. What Slurm does not know any more has ended."""
        try:
            asked = subprocess.run(
                ["squeue", "--noheader", "--jobs", self.job, "--states=all", "--format=%T"],
                capture_output=True,
                text=True,
                timeout=30,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        if asked.returncode:
            return False if "Invalid job id" in asked.stderr else None
        states = asked.stdout.split()
        return any(state not in (*ENDED, "PENDING") for state in states)  # pending: it is to start again


class Claim:
    """A run's claim, held by this process from `take` to `release`.

    Args:
        directory: the run's claim/, made if need be.
        heartbeat_s, stale_s: how often the file is touched, and without being touched for how long its owner is dead.
    """

    def __init__(self, directory: Path, *, heartbeat_s: float = HEARTBEAT_S, stale_s: float = STALE_S) -> None:
        self.directory, self.heartbeat_s, self.stale_s = directory, heartbeat_s, stale_s
        self.number = 0
        self._ended = threading.Event()

    def take(self) -> bool:
        """Own the run; False if a living process does, or one was quicker."""
        self.directory.mkdir(parents=True, exist_ok=True)
        last = self._last()
        if last and not self._free(last):
            return False
        if not self._create(last + 1):
            return False
        self.number = last + 1
        if self.lost():  # this process was so slow that the number had come and gone
            self._path(self.number).unlink()
            return False
        for old in range(max(1, last - 2), last):  # two stay, for those who are still judging them
            self._path(old).unlink(missing_ok=True)
        self._ended.clear()
        threading.Thread(target=self._beat, name="isosweep-heartbeat", daemon=True).start()
        return True

    def _create(self, number: int) -> bool:
        """Whether the claim of that number is now this process's."""
        draft = temporary_beside(self._path(number))
        draft.write_text(json.dumps(asdict(Owner.here())))
        try:
            os.link(draft, self._path(number))
        except FileExistsError:
            return draft.stat().st_nlink == 2  # NFS may answer twice: it was this link that the name comes from
        finally:
            draft.unlink()
        return True

    def lost(self) -> bool:
        """Whether another process has taken the run over, so that this one must write no more."""
        return self._last() != self.number

    def release(self) -> None:
        """Leave the run to whoever comes next."""
        self._ended.set()
        if self.lost():
            return
        try:
            write_atomically(self._path(self.number), json.dumps({"released": True}))
        except OSError:  # no space, perhaps: to remove it takes none
            self._path(self.number).unlink(missing_ok=True)

    def owner(self) -> Owner | None:
        """Who owns the run, alive or not; None if nobody."""
        last = self._last()
        return self._owner(last) if last else None

    def living_here(self) -> Owner | None:
        """The owner, if it is a living process of this machine."""
        owner = self.owner()
        return owner if owner is not None and owner.host == _host() and owner.alive() else None

    def held(self) -> bool:
        """Whether a living process owns the run."""
        last = self._last()
        return bool(last) and not self._free(last)

    def _free(self, number: int) -> bool:
        owner = self._owner(number)
        if owner is None:
            return self._released(number) or self._age(number) > self.stale_s
        alive = owner.alive()
        return self._age(number) > self.stale_s if alive is None else not alive

    def _beat(self) -> None:
        while not self._ended.wait(self.heartbeat_s):
            try:
                os.utime(self._path(self.number))
            except OSError:
                return  # taken over and swept away: `lost` says so

    def _age(self, number: int) -> float:
        """Seconds since the file was touched, by the file system's clock; endless if it is gone."""
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

    def _released(self, number: int) -> bool:
        return self._read(number).get("released") is True

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:08d}.json"


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
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return 0 if fields[0] in "ZX" else int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
