"""Checkpoints that survive a crash at any byte.

A checkpoint is one file. It is written under a temporary name, synced, renamed, and only then listed in manifest.json
with its SHA-256. The last two are kept, so that a damaged one costs minutes and not the run.
"""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

from sweep.errors import InputError
from sweep.files import write_atomically, write_json

KEPT = 2
MANIFEST = "manifest.json"
log = logging.getLogger(__name__)


def save_checkpoint(directory: Path, step: int, state: dict[str, Any], keep: int = KEPT) -> None:
    """Add the checkpoint after `step` steps to `directory`, the run's checkpoint/, and drop all but the `keep` latest.

    `state` holds tensors and plain values; nothing else could be loaded again.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    name = f"step-{step:010d}.pt"
    entry = {"step": step, "file": name, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(directory / name, bytes(content))
    kept = [*(old for old in read_manifest(directory) if old["step"] < step), entry][-keep:]
    write_json(directory / MANIFEST, {"checkpoints": kept})
    for file in set(directory.glob("*.pt")) - {directory / each["file"] for each in kept}:
        file.unlink()


def load_checkpoint(directory: Path, device: str = "cpu") -> dict[str, Any] | None:
    """The latest checkpoint that is not damaged, after a warning for each damaged one; None if there are none.
    Raises InputError if there are checkpoints and all are damaged."""
    import torch

    entries = read_manifest(directory)
    for entry in reversed(entries):
        path, problem = directory / entry["file"], "is damaged (its SHA-256 is not the manifest's)"
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == entry["sha256"]:
                # weights_only: a checkpoint holds tensors and numbers, and can never run code.
                return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        log.warning("checkpoint %s %s; trying the one before", path, problem)
    if entries:
        raise InputError(f"every checkpoint in {directory} is damaged; delete {directory.parent} to train the run again")
    return None


def read_manifest(directory: Path) -> list[dict[str, Any]]:
    """The manifest's entries, oldest first. Raises InputError if it is damaged."""
    try:
        return json.loads((directory / MANIFEST).read_text())["checkpoints"]
    except FileNotFoundError:
        return []
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError) as error:
        remedy = f"delete {directory.parent} to train the run again"
        raise InputError(f"{directory / MANIFEST} is damaged ({error}); {remedy}") from error
