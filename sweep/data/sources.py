"""Where documents come from. A source yields UTF-8 documents in an order that depends on their names alone."""

import glob
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from sweep.errors import InputError

SOURCES = ("stdlib", "text")
PIECE_BYTES = 65_536  # long text files are cut into documents of about this size, at line ends


def read_documents(source: str, paths: list[str]) -> Iterator[bytes]:
    """All documents of a source.

    Args:
        source: "stdlib", the running Python's own standard library (no download), or "text", local files.
        paths: files, directories (their *.txt files) or globs, for "text".

    Raises:
        InputError: if the source is unknown, a path matches nothing, or a text file is not UTF-8.
    """
    if source == "stdlib":
        return _standard_library()
    if source == "text":
        return _text_files(paths)
    raise InputError(f"data.source={source!r} is none of {', '.join(SOURCES)}")


def _standard_library() -> Iterator[bytes]:
    """The .py files of the standard library, tests included; the few that are not plain UTF-8 text on purpose are left
    out (test inputs for the parser, mostly)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        if "site-packages" in path.parts or "dist-packages" in path.parts:
            continue
        content = path.read_bytes()
        if content and b"\0" not in content and _is_utf8(content):
            yield content


def _text_files(paths: list[str]) -> Iterator[bytes]:
    if not paths:
        raise InputError("data.paths is empty; name the text files to train on, for instance data.paths=[corpus/*.txt]")
    for path in _expand(paths):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"data.paths: {path} cannot be read ({error.strerror})") from error
        if not _is_utf8(content):
            raise InputError(f"data.paths: {path} is not UTF-8 text; convert it, or leave it out")
        yield from _pieces(content.replace(b"\0", b""))


def _expand(paths: list[str]) -> list[Path]:
    """The files that `paths` name, sorted, each once."""
    files: set[Path] = set()
    for pattern in paths:
        path = Path(pattern)
        found = list(path.rglob("*.txt")) if path.is_dir() else [Path(match) for match in glob.glob(pattern, recursive=True)]
        found = [file for file in found if file.is_file()]
        if not found:
            raise InputError(f"data.paths: {pattern!r} matches no file; check the path (it is relative to {Path.cwd()})")
        files.update(file.resolve() for file in found)
    return sorted(files)


def _pieces(content: bytes) -> Iterator[bytes]:
    """Cut at the first line end after each `PIECE_BYTES`, so that a part of even a single file can be held out."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start + PIECE_BYTES) + 1
        end = end if end > 0 else len(content)
        yield content[start:end]
        start = end


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
