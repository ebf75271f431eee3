"""Checkpoints that survive a crash at any byte, and a former owner of the run that wakes up.

A checkpoint is one file. It is written under a temporary name, synced, renamed, and only then listed in the manifest with its
SHA-256. The last two are kept, so that a damaged one costs minutes and not the run.

Beside them, in kept/, lie the weights of the steps that evaluation.keep asks for. They are written before a checkpoint of that
step or a later one, so a run that is killed and resumed has the same ones.
"""

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep.claim import Claim
from sweep.errors import InputError, one_line
from sweep.files import write_atomically
from sweep.store.manifest import checkpoint_name, read_manifest, write_manifest

KEPT = 2
log = logging.getLogger(__name__)


def kept_steps(steps: int, keep: int) -> tuple[int, ...]:
    """The steps, ascending, whose weights a run of so many `steps` keeps: `keep` of them, or every step of a shorter run. The
    last is its end; see `sweep.config.training.EvaluationConfig`."""
    count = min(keep, steps)
    ratio = min(2.0, steps ** (1 / max(count - 1, 1)))
    found: list[int] = []
    for after in reversed(range(count)):
        found.append(max(round(steps / ratio**after), found[-1] + 1 if found else 1))
    return tuple(found)


def save_checkpoint(directory: Path, step: int, state: dict[str, Any], claim: Claim, keep: int | None = KEPT) -> None:
    """Add the checkpoint after `step` steps to `directory`, the run's checkpoint/ or kept/, and drop all but the `keep` latest;
    none with None.

    `state` holds "step", tensors and plain values; nothing else could be loaded again. Raises LostError if another process has
    taken the run over.
    """
    import torch

    directory.mkdir(exist_ok=True)

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content, name = buffer.getbuffer(), checkpoint_name(claim, step)
    entry = {"step": step, "file": name, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(directory / name, bytes(content), claim.check)
    earlier = (old for old in read_manifest(directory) if old["step"] < step)
    write_manifest(directory, claim, [*earlier, entry][-keep if keep else 0 :])


def load_checkpoint(
    directory: Path, device: str = "cpu", problem_of: Callable[[dict[str, Any]], str] = lambda state: ""
) -> dict[str, Any] | None:
    """The latest checkpoint that is sound, after a warning for each later one that is not; None if there are none.

    `problem_of` says what the caller finds wrong with a state, or "". Raises InputError if there are checkpoints and none is
    sound.
    """
    entries = read_manifest(directory)
    for entry in reversed(entries):
        try:
            return load_entry(directory, entry, device, problem_of)
        except InputError as error:
            log.warning("%s; trying the one before", error)
    if entries:
        raise InputError(f"no checkpoint in {directory} is sound; delete {directory.parent} to train the run again")
    return None


def load_entry(
    directory: Path,
    entry: dict[str, Any],
    device: str = "cpu",
    problem_of: Callable[[dict[str, Any]], str] = lambda state: "",
) -> dict[str, Any]:
    """The checkpoint that an entry of the manifest names. Raises InputError if it is missing or damaged, or `problem_of` finds
    something wrong with it."""
    import torch

    path, problem = directory / entry["file"], "is damaged (its SHA-256 is not the manifest's)"
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == entry["sha256"]:
            # weights_only: a checkpoint holds tensors and numbers, and can never run code.
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            problem = problem_of(state) if state["step"] == entry["step"] else "is that of another step"
            if not problem:
                return state
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    except Exception as error:  # it has the manifest's hash, so both were made by somebody else
        problem = f"is no checkpoint ({one_line(error)})"
    raise InputError(f"checkpoint {path} {problem}")
