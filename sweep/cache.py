"""This user's cache on this machine: the compiled kernels, and what was measured of them."""

import logging
import os
import stat
from functools import lru_cache
from pathlib import Path

from sweep.files import write_atomically

log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """isosweep's folder in $XDG_CACHE_HOME or ~/.cache, made if need be, into which nobody else can write; None where it
    cannot be had, which is logged. What is in it may be damaged, or lie there from before it was closed: see `read_own`."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return _closed((home if home.is_absolute() else Path.home() / ".cache") / "isosweep")
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        _warn_once(str(error))
        return None


def _closed(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(f"{folder} belongs to another user")
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return folder


@lru_cache
def _warn_once(problem: str) -> None:
    log.warning("nothing is cached, and each process builds and measures anew: %s", problem)


def read_own(path: Path) -> bytes | None:
    """The content of a file that belongs to this user and that nobody else may write; None if `path` is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait for its writer
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
            return file.read() if own else None
    except OSError:
        return None


def write_own(path: Path, content: bytes) -> None:
    """Write what `read_own` reads, atomically and whatever the umask. Raises OSError."""
    write_atomically(path, content)
    path.chmod(0o600)
