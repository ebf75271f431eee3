"""curve.jsonl of a run in training: a row for every step and every evaluation."""

import json
import os
from pathlib import Path

from models import flops_per_token
from sweep.errors import InputError
from sweep.files import write_atomically
from sweep.plan.run import RunConfig


class Curve:
    """The curve of `run`, open for new rows; a context manager that closes it.

    `path` is that of curve.jsonl, or None on the ranks beside rank 0, where rows go nowhere.
    """

    def __init__(self, path: Path | None, run: RunConfig) -> None:
        self.tokens_per_step, self.flops_per_token = run.batch_tokens, flops_per_token(run.model, "exact")
        self.file = open(path if path is not None else os.devnull, "ab")  # noqa: SIM115  # __exit__ closes it

    def __enter__(self) -> "Curve":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def write(self, step: int, **values: float) -> None:
        """Add a row after `step` steps, with the tokens and the FLOPs (exact convention) until then."""
        tokens = step * self.tokens_per_step
        row = {"step": step, "tokens": tokens, "flops": tokens * self.flops_per_token, **values}
        self.file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")

    def sync(self) -> int:
        """Put all rows on disk; the length of the file in bytes."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.file.tell()


def cut(path: Path, length: int) -> None:
    """Leave the first `length` bytes of a curve. Raises InputError if it is shorter."""
    kept = path.read_bytes()[:length] if length and path.exists() else b""
    if len(kept) < length:
        raise InputError(f"{path} is shorter than its checkpoint says; delete {path.parent} to train again")
    # A new file: an owner that was given up for dead may still write to the old one, where nobody reads.
    write_atomically(path, kept)
