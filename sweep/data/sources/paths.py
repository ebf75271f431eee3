"""Local files: which ones a path of the configuration names, and what identifies them."""

import glob
import hashlib
import os
from collections import Counter
from pathlib import Path

from sweep.errors import InputError

SAMPLES, SAMPLE_BYTES = 16, 65_536  # that identify a file larger than all of them together


def expand(paths: list[str], endings: tuple[str, ...], field: str) -> list[Path]:
    """The files that `paths` name, sorted, each once; of a folder those with one of `endings`, in any case. A path is a glob
    only as far as nothing has its name. Raises InputError if there are none."""
    if not paths:
        raise InputError(f"{field}.paths is empty; name the files, for instance {field}.paths=[corpus/*{endings[0]}]")
    files: set[Path] = set()
    for pattern in paths:
        if not pattern:
            raise InputError(f"{field}.paths={paths} has an empty entry; leave it out, or write . for this folder")
        there, rest = _literally(pattern)
        matches = [there] if rest is None else list(map(Path, glob.glob(f"{glob.escape(str(there))}/{rest}", recursive=True)))
        if rest is None and there.is_dir():
            matches = sorted(file for file in there.rglob("*") if file.is_file())
            inside = [file for file in matches if file.name.lower().endswith(tuple(map(str.lower, endings)))]
            if not inside:
                raise InputError(_none_inside(pattern, matches, endings, field))
            matches = inside
        found = [file for file in matches if file.is_file()]
        if not found:
            raise InputError(
                f"{field}.paths: {pattern!r} matches no file; check the path (it is relative to {Path.cwd()}), and put one "
                f"with a comma into quotes: '{field}.paths=[\"a, b.txt\"]'"
            )
        files.update(file.resolve() for file in found)
    return sorted(files)


def _literally(pattern: str) -> tuple[Path, str | None]:
    """The longest beginning of a path that exists as it is written, and the glob after it; None if all of it exists. A ~ that
    is no name is the home folder."""
    path = Path(pattern)
    if not os.path.lexists(path.parts[0] if path.parts else "."):
        path = Path(os.path.expanduser(pattern))
    there = Path(path.anchor)
    parts = path.relative_to(there).parts
    for place, part in enumerate(parts):
        if not (there / part).exists():
            return there, "/".join(parts[place:])
        there /= part
    return there, None


def _none_inside(pattern: str, files: list[Path], endings: tuple[str, ...], field: str) -> str:
    kinds = Counter("".join(file.suffixes[-2:]) or file.name for file in files).most_common(5)
    there = f"its files end in {', '.join(f'{kind} ({count:,})' for kind, count in kinds)}" if kinds else "it holds no files"
    named = f"name them: '{field}.suffixes=[{kinds[0][0]}]'" if kinds else "check the path"
    return f"{field}.paths: {pattern!r} matches no file that ends in {', '.join(endings)}; {there}: {named}"


def file_identity(path: Path) -> str:
    """A hash of a file's size and content. Of a file over a megabyte only sixteen samples spread over it are hashed: an edit
    between the samples that keeps the size is not noticed."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
        else:
            for i in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * i // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32]
