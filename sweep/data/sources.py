"""Where documents come from. A reader finds the documents of one source in units, which workers can read apart.

Every document is UTF-8 without NUL. What a source's documents are is told without reading them all (`Reader.identity`), so
that planning a sweep on a terabyte takes no longer than on a megabyte.
"""

import codecs
import glob
import hashlib
import mmap
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from sweep.config import SourceConfig
from sweep.errors import InputError

READABLE = ("stdlib", "text", "jsonl", "parquet", "huggingface")
PIECE_BYTES = 65_536  # long texts are cut into documents of about this size, at line ends
LONGEST_LINE = 1 << 20  # and without line ends, at this size
UNIT_BYTES = 1 << 24  # of text that one worker reads at once, at least
MAX_UNITS = 256
WHOLE_BYTES = 1 << 26  # plain text up to this size is known by its documents, whatever the files they lie in
LOOKS, LOOK_BYTES = 16, 1 << 20  # units that planning looks into, and how far into the first
SAMPLES, SAMPLE_BYTES = 16, 65_536  # of a larger file, that tell it from others


class Reader(Protocol):
    """The documents of one source, in an order that depends on nothing but the source."""

    def identity(self) -> Any:
        """What tells this source from others, as plain JSON."""
        ...

    def most_tokens(self) -> float:
        """No less than its different documents have bytes, and one for the end of each; infinite if that is not known."""
        ...

    def check(self) -> None:
        """Raises InputError if some of its first documents cannot be had."""
        ...

    def units(self) -> list[Any]:
        """Parts that can be read apart."""
        ...

    def documents(self, unit: Any) -> Iterator[bytes]:
        """The documents of one part. Raises InputError if there is one that is no text."""
        ...


def reader_of(source: SourceConfig, field: str = "data") -> Reader:
    """The reader of `source`; `field` is what messages call it.

    Raises:
        InputError: if the source is unknown, incomplete, or a path matches nothing.
    """
    from sweep.data.records import HuggingFace, JsonLines, ParquetFiles

    if source.source == "stdlib":
        return StandardLibrary()
    if source.source == "huggingface":
        return HuggingFace.of(source, field)
    if source.source == "text":
        return TextFiles(expand(source.paths, (".txt",), field))
    if source.source == "jsonl":
        endings = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst")
        return JsonLines(expand(source.paths, endings, field), source.column, source.rows, field)
    if source.source == "parquet":
        return ParquetFiles(expand(source.paths, (".parquet",), field), source.column, source.rows, field)
    raise InputError(f"{field}.source={source.source!r} is none of {', '.join(READABLE)}")


def look_into(reader: Reader) -> None:
    """Read the first documents, and the first of some other units. Raises InputError if one of them cannot be had."""
    units = reader.units()
    for place in range(0, len(units), max(1, len(units) // LOOKS)):
        left = LOOK_BYTES if place == 0 else 1
        for document in reader.documents(units[place]):
            if (left := left - len(document)) <= 0:
                break


@dataclass(frozen=True)
class StandardLibrary:
    """The .py files of the running Python's standard library, tests included; the few that are not plain UTF-8 text on
    purpose are left out (test inputs for the parser, mostly)."""

    @cached_property
    def files(self) -> list[Path]:
        root = Path(sysconfig.get_paths()["stdlib"])
        found = sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix())
        return [path for path in found if not {"site-packages", "dist-packages"} & set(path.parts)]

    def identity(self) -> Any:
        return [file_identity(path) for path in self.files]

    def most_tokens(self) -> float:
        return sum(path.stat().st_size + 1 for path in self.files)

    def check(self) -> None:
        """It is there."""

    def units(self) -> list[Any]:
        return [self.files]

    def documents(self, unit: Any) -> Iterator[bytes]:
        for path in unit:
            content = path.read_bytes()
            if content and b"\0" not in content and _is_utf8(content):
                yield content


@dataclass(frozen=True)
class TextFiles:
    """UTF-8 text files, cut at the first line end after each `PIECE_BYTES`, so that a part of even a single file can be held
    out."""

    files: list[Path]

    def identity(self) -> Any:
        return [file_identity(path) for path in self.files]

    def most_tokens(self) -> float:
        sizes = [path.stat().st_size for path in self.files]
        return sum(size + 1 + size // PIECE_BYTES for size in sizes)

    def check(self) -> None:
        for path in self.files[:: max(1, len(self.files) // LOOKS)]:
            with _opened(path) as file:
                start = file.read(LOOK_BYTES)
            try:
                codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) < LOOK_BYTES)  # else it may be cut
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error.start) from error

    def units(self) -> list[Any]:
        """Lists of (path, first byte, end), between documents."""
        least = unit_bytes(self.most_tokens())
        spans = [(path, start, end) for path in self.files for start, end in _spans(path, least)]
        return grouped(spans, [end - start for _, start, end in spans], least)

    def documents(self, unit: Any) -> Iterator[bytes]:
        for path, start, end in unit:
            yield from self._pieces(path, start, end)

    def _pieces(self, path: Path, start: int, end: int) -> Iterator[bytes]:
        with _opened(path) as file:
            file.seek(start)
            content = file.read(end - start)
        for first, last in cuts(content):
            piece = content[first:last]
            try:
                piece.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, start + first + error.start) from error
            if text := piece.replace(b"\0", b""):
                yield text


def _spans(path: Path, least: int) -> Iterator[tuple[int, int]]:
    """Ranges of at least `least` bytes that end where a document does."""
    size = path.stat().st_size
    if size <= least:
        if size:
            yield 0, size
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 0
        for _, end in cuts(content):
            if end - start >= least or end == size:
                yield start, end
                start = end


def cuts(content: "bytes | mmap.mmap") -> Iterator[tuple[int, int]]:
    """Where documents begin and end in a long text."""
    start, size = 0, len(content)
    while start < size:
        end = content.find(b"\n", start + PIECE_BYTES, start + LONGEST_LINE) + 1
        if end == 0:
            end = min(start + LONGEST_LINE, size)
            while end < size and content[end] & 0xC0 == 0x80:  # inside a character
                end += 1
        yield start, end
        start = end


def joined(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Documents of about `PIECE_BYTES` from the lines of a longer text."""
    lines: list[bytes] = []
    size = 0
    for row in rows:
        line = row if row.endswith(b"\n") else row + b"\n"
        lines.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
    if lines:
        yield b"".join(lines)


def expand(paths: list[str], endings: tuple[str, ...], field: str) -> list[Path]:
    """The files that `paths` name, sorted, each once; of a folder those with the given endings.

    Raises:
        InputError: if there are none.
    """
    if not paths:
        raise InputError(f"{field}.paths is empty; name the files, for instance {field}.paths=[corpus/*{endings[0]}]")
    files: set[Path] = set()
    for pattern in paths:
        path = Path(pattern)
        inside = [file for file in path.rglob("*") if file.name.endswith(endings)] if path.is_dir() else []
        found = inside or [Path(match) for match in glob.glob(pattern, recursive=True)]
        found = [file for file in found if file.is_file()]
        if not found:
            raise InputError(f"{field}.paths: {pattern!r} matches no file; check the path (it is relative to {Path.cwd()})")
        files.update(file.resolve() for file in found)
    return sorted(files)


def file_identity(path: Path) -> str:
    """A hash of a file's size and of its content, or, if it is over a megabyte, of sixteen samples spread over it: an edit that
    keeps the size and falls between the samples goes unseen."""
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


def unit_bytes(total: float) -> int:
    """How much one worker reads at once, so that there are enough units to share and not too many to keep open."""
    return max(UNIT_BYTES, int(total // MAX_UNITS) + 1)


def grouped(spans: Sequence[Any], sizes: Sequence[int], least: int) -> list[list[Any]]:
    """Neighbouring spans together, until they have at least `least` bytes: small files are read many at a time."""
    units: list[list[Any]] = []
    room = 0
    for span, size in zip(spans, sizes, strict=True):
        if room <= 0:
            units.append([])
            room = least
        units[-1].append(span)
        room -= size
    return units


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"data.paths: {path} cannot be read ({error.strerror})") from error


def _not_utf8(path: Path, at: int) -> InputError:
    return InputError(
        f"data.paths: {path} is not UTF-8 text (see byte {at:,}); convert it (iconv -f LATIN1 -t UTF-8), or leave it out"
    )


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
