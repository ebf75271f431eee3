"""Which checkpoints a run has: the names in its checkpoint/, or kept/, and the manifest that lists them.

Names begin with the number of the claim that their writer held: no owner of a run touches the files of a later one, and the
latest manifest counts.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep.claim import Claim
from sweep.errors import InputError
from sweep.files import read_json, write_sealed

NAME = re.compile(r"(?:claim-([0-9]+)-)?(?:step-(?P<step>[0-9]+)\.pt|manifest\.json)")  # without a claim: of an older version


def checkpoint_name(claim: Claim, step: int) -> str:
    """The file of the checkpoint after `step` steps, written under `claim`."""
    return f"claim-{claim.number:08d}-step-{step:010d}.pt"


def read_manifest(directory: Path) -> list[dict[str, Any]]:
    """The entries of the latest manifest in a run's checkpoint/, oldest first: "step", "file" and "sha256". Raises InputError
    if it is damaged."""
    found = [(number, path) for number, path in _files(directory) if path.name.endswith("manifest.json")]
    if not found:
        return []
    path, remedy = max(found)[1], f"delete {directory.parent} to train the run again"
    entries = read_json(path, dict, remedy).get("checkpoints")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise InputError(f"{path} is damaged (not all of its entries are checkpoints of this run); {remedy}")
    return entries


def write_manifest(directory: Path, claim: Claim, entries: list[dict[str, Any]]) -> None:
    """Write the manifest of the owner with this `claim`, and remove its own and earlier owners' files that are not in it.
    Raises LostError if another process has taken the run over."""
    name = f"claim-{claim.number:08d}-manifest.json"
    write_sealed(directory / name, {"checkpoints": entries}, claim.check)
    kept = {name, *(entry["file"] for entry in entries)}
    for number, path in _files(directory):
        if number <= claim.number and path.name not in kept:
            claim.check()
            path.unlink(missing_ok=True)


def last_claim(directory: Path) -> int:
    """The highest claim that is named in a run's checkpoint/; 0 if there is none."""
    return max((number for number, _ in _files(directory)), default=0)


def discard_temporaries(directory: Path) -> None:
    """Remove what former owners of the run were writing: they cannot put it in place any more."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _files(directory: Path) -> Iterator[tuple[int, Path]]:
    """Checkpoints and manifests in `directory`, each with the claim that its name begins with, 0 if with none."""
    if directory.is_dir():
        for path in directory.iterdir():
            if found := NAME.fullmatch(path.name):
                yield int(found[1] or 0), path


def _is_entry(entry: Any) -> bool:
    """Whether it names a file of this folder, by the entry's own step."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("file", "sha256")):
        return False
    found = NAME.fullmatch(entry["file"])
    return found is not None and found["step"] is not None and int(found["step"]) == entry.get("step")
