"""curve.jsonl of a run in training: a row for every step and every evaluation."""

import hashlib
import json
import os
from pathlib import Path

from models import flops_per_token
from sweep.claim import Claim
from sweep.files import write_atomically
from sweep.plan.run import RunConfig


class Curve:
    """The curve of `run`, open for new rows; a context manager that closes it.

    `path` is that of curve.jsonl, or None on the ranks beside rank 0, where rows go nowhere.
    """

    def __init__(self, path: Path | None, run: RunConfig) -> None:
        self.tokens_per_step, self.flops_per_token = run.batch_tokens, flops_per_token(run.model, "exact")
        self.digest = hashlib.sha256(path.read_bytes() if path is not None else b"")
        self.file = open(path if path is not None else os.devnull, "ab")  # noqa: SIM115  # __exit__ closes it

    def __enter__(self) -> "Curve":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def write(self, step: int, **values: float) -> None:
        """Add a row after `step` steps, with the tokens and the FLOPs (exact convention) until then."""
        tokens = step * self.tokens_per_step
        row = {"step": step, "tokens": tokens, "flops": tokens * self.flops_per_token, **values}
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        self.digest.update(line)
        self.file.write(line)

    def sync(self) -> dict[str, int | str]:
        """Put all rows on disk; the length of the file in bytes and its SHA-256, as a checkpoint names them."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return {"curve_bytes": self.file.tell(), "curve_sha256": self.digest.hexdigest()}


def problem_of(path: Path, state: dict[str, int | str]) -> str:
    """What is wrong with a curve for who goes on from a checkpoint with this `state`; "" if nothing is."""
    kept = _beginning(path, state)
    if len(kept) < int(state["curve_bytes"]):
        return f"needs more of {path.name} than there is"
    if hashlib.sha256(kept).hexdigest() != state.get("curve_sha256", hashlib.sha256(kept).hexdigest()):
        return f"belongs to another {path.name}, which was changed since"
    return ""


def cut(path: Path, state: dict[str, int | str], claim: Claim) -> None:
    """Leave what a checkpoint's `state` says of a curve. Raises LostError if another process has taken the run over."""
    # A new file: an owner that was given up for dead may still write to the old one, where nobody reads.
    write_atomically(path, _beginning(path, state), claim.check)


def _beginning(path: Path, state: dict[str, int | str]) -> bytes:
    return path.read_bytes()[: int(state["curve_bytes"])] if path.exists() else b""
