"""Writing files so that a reader, or a crash, never sees half of one; reading them back, and noticing what was changed."""

import errno
import glob
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sweep.errors import InputError, one_line

T = TypeVar("T")
TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR})  # of file systems on a network
TRIES, PAUSE_S = 4, 0.5
STALE_S = 3600.0  # of a temporary file, whose writer must be gone
SEAL = "seal"  # the field that holds the hash of the others


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, shortest round-trip floats, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def content_hash(value: Any) -> str:
    """The first 64 bits of the SHA-256 of `value`'s canonical JSON, as 16 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def temporary_beside(path: Path) -> Path:
    """A name in `path`'s own directory that no other writer uses, so that a rename onto `path` is atomic."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")


def fsync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def patiently(call: Callable[[], T]) -> T:
    """What `call` returns. After an error that a file system on a network may get over, it is tried again, a few times."""
    for pause_s in (PAUSE_S * 2**i for i in range(TRIES - 1)):
        try:
            return call()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            time.sleep(pause_s)
    return call()


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that a disk or a quota has no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomically(
    path: Path, content: bytes | str, check: Callable[[], None] = lambda: None, *, private: bool = False
) -> None:
    """Replace `path` by `content`: after a crash it holds either all of the old or all of the new. What writers that were
    killed long ago have left beside it is removed. `check` is called last, and may raise an error to leave `path` as it is. A
    `private` file is never anybody else's to read."""

    def write() -> None:
        temporary = temporary_beside(path)
        try:
            with open(temporary, "wb", opener=_private if private else None) as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            check()
            os.replace(temporary, path)
        except FileNotFoundError:  # another owner of the folder may have tidied it
            check()
            raise
        finally:
            temporary.unlink(missing_ok=True)
        fsync_directory(path.parent)

    patiently(write)
    remove_stale(path)


def remove_stale(path: Path) -> None:
    """Remove the temporary files and folders beside `path`, which exists, that are much older than it is."""
    with suppress(OSError):
        now = path.stat().st_mtime  # by the clock of the file system
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if now - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_json(path: Path, value: Any, check: Callable[[], None] = lambda: None, *, private: bool = False) -> None:
    """Write `value` as indented JSON without NaN, as `write_atomically` does."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n", check, private=private)


def write_sealed(path: Path, value: dict[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Write `value` as `write_json` does, with its hash: `read_json` notices if it was changed since."""
    write_json(path, {**value, SEAL: content_hash(value)}, check)


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """The value in a JSON file of ours, without its seal.

    Raises FileNotFoundError or NotADirectoryError if there is no such file, and InputError with the `remedy` if it cannot be
    read, holds anything but a `kind`, or was sealed and has changed.
    """
    try:
        value = json.loads(patiently(path.read_bytes), parse_constant=_no_number)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({one_line(error)}); {remedy}") from error
    if not isinstance(value, kind):
        raise InputError(f"{path} is damaged (it holds a {type(value).__name__} instead of a {kind.__name__}); {remedy}")
    if isinstance(value, dict) and value.pop(SEAL, seal := _seal_of(value)) != seal:
        raise InputError(f"{path} was changed after it was written; {remedy}")
    return value


def _seal_of(value: dict[str, Any]) -> str:
    return content_hash({name: each for name, each in value.items() if name != SEAL})


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Make `out`; an error while writing there becomes an InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error.strerror}); choose another out=…") from error
