"""Plain text files, and the running Python's standard library."""

import codecs
import mmap
import sysconfig
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.data.sources.reader import LOOK_BYTES, LOOKS, PIECE_BYTES, FileReader, grouped, unit_bytes

# Prose and code. Markup such as .html and tables such as .csv are text too, but seldom what a model should read.
KINDS = (
    "txt text md markdown rst tex org adoc py pyi ipy js mjs ts jsx tsx c h cc cpp cxx hpp cu java kt scala go rs rb php pl "
    "sh bash swift cs hs ml jl r lua sql f90 m lean v"
)
LONGEST_LINE = 1 << 20  # a text without line ends is cut at this size


class StandardLibrary(FileReader, name="stdlib"):
    """The .py files of the standard library, its tests included, one document each. Files that are not UTF-8 text are left
    out: they are inputs of the parser's tests."""

    known_by_content = True

    @cached_property
    def files(self) -> list[Path]:
        root = Path(sysconfig.get_paths()["stdlib"])
        found = sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix())
        return [path for path in found if not {"site-packages", "dist-packages"} & set(path.parts)]

    def most_tokens(self) -> float:
        return sum(path.stat().st_size + 1 for path in self.files)

    def check(self) -> None:
        """Nothing to check: the library is always there."""

    def units(self) -> list[Any]:
        return [self.files]

    def documents(self, unit: Any) -> Iterator[bytes]:
        for path in unit:
            content = path.read_bytes()
            if content and b"\0" not in content and content.decode("utf-8", errors="ignore").encode() == content:
                yield content


class TextFiles(FileReader, name="text"):
    """UTF-8 text files, cut at the first line end after each `PIECE_BYTES`, so that part of even a single file can be held
    out."""

    endings = tuple(f".{kind}" for kind in KINDS.split())
    known_by_content = True

    def most_tokens(self) -> float:
        sizes = [path.stat().st_size for path in self.files]
        return sum(size + 1 + size // PIECE_BYTES for size in sizes)

    def check(self) -> None:
        for path in self.files[:: max(1, len(self.files) // LOOKS)]:
            start = b""
            with self.reading(path), open(path, "rb") as file:
                start = file.read(LOOK_BYTES)
            try:
                codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) < LOOK_BYTES)  # else it may be cut
            except UnicodeDecodeError as error:
                self._not_utf8(path, error.start, start, error)

    def units(self) -> list[Any]:
        """Lists of (path, first byte, end), which begin and end where documents do."""
        least = unit_bytes(self.most_tokens())
        spans = [(path, start, end) for path in self.files for start, end in _spans(path, least)]
        return grouped(spans, [end - start for _, start, end in spans], least)

    def documents(self, unit: Any) -> Iterator[bytes]:
        for path, start, end in unit:
            content = b""
            with self.reading(path), open(path, "rb") as file:
                file.seek(start)
                content = file.read(end - start)
            for first, last in cuts(content):
                piece = content[first:last]
                try:
                    piece.decode("utf-8")
                except UnicodeDecodeError as error:
                    self._not_utf8(path, start + first + error.start, content, error)
                    continue
                if text := piece.replace(b"\0", b""):
                    yield text

    def _not_utf8(self, path: Path, at: int, content: bytes, error: UnicodeDecodeError) -> None:
        encoding = "UTF-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "LATIN1"
        problem = f"{self.field}.paths: {path} is not UTF-8 text (see byte {at:,})"
        self.bad(f"{problem}; convert it (iconv -f {encoding} -t UTF-8), or leave it out", error)


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
    """Where the documents of a long text begin and end."""
    start, size = 0, len(content)
    while start < size:
        end = content.find(b"\n", start + PIECE_BYTES, start + LONGEST_LINE) + 1
        if end == 0:
            end = min(start + LONGEST_LINE, size)
            while end < size and content[end] & 0xC0 == 0x80:  # inside a character
                end += 1
        yield start, end
        start = end
