"""Writing files so that a reader, or a crash, never sees half of one; and hashing what is in them."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.errors import InputError


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


def write_atomically(path: Path, content: bytes | str, *, private: bool = False) -> None:
    """Replace `path` by `content`: after a crash it holds either all of the old or all of the new. A `private` file is never
    anybody else's to read."""
    temporary = temporary_beside(path)
    try:
        with open(temporary, "wb", opener=_private if private else None) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write `value` atomically as indented JSON without NaN; see `write_atomically`."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n", private=private)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Make `out`; an error while writing there becomes an InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error.strerror}); choose another out=…") from error
