"""The interface of a source of documents, and the base classes of readers of files and of records with a column of text."""

import glob
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from sweep.config import SourceConfig
from sweep.errors import InputError, explained

PIECE_BYTES = 65_536  # long texts are cut into documents of about this size, at line ends
UNIT_BYTES = 1 << 24  # smallest unit of text that one worker reads
MAX_UNITS = 256
LOOKS, LOOK_BYTES = 16, 1 << 20  # units that planning looks into, and how far into the first
SAMPLES, SAMPLE_BYTES = 16, 65_536  # that identify a file larger than all of them together

SOURCES: dict[str, type["Reader"]] = {}


@dataclass(frozen=True)
class Reader(ABC):
    """The documents of one source, as UTF-8 without NUL, in an order that depends only on the source.

    A subclass registers itself under the name that `data.source` calls it by: `class JsonLines(Records, name="jsonl")`.
    Its documents come in units, which workers read in parallel. `identity` must not read all of the documents: planning a
    sweep on a terabyte takes no longer than on a megabyte.

    Attributes:
        source: the configuration.
        field: the configuration field that messages name, "data" for example.
        known_by_content: whether a small corpus is identified by its documents alone, not by the files that hold them.
        counts_repeats: whether `most_tokens` counts a document as often as it occurs, not once.
    """

    source: SourceConfig
    field: str = "data"
    known_by_content: ClassVar[bool] = False
    counts_repeats: ClassVar[bool] = True

    def __init_subclass__(cls, name: str | None = None) -> None:
        if name is not None:
            SOURCES[name] = cls

    @abstractmethod
    def identity(self) -> Any:
        """What distinguishes this source from others, as plain JSON."""

    @abstractmethod
    def most_tokens(self) -> float:
        """An upper bound on its tokens: the bytes of its documents, plus one for the end of each; infinite if unknown."""

    @abstractmethod
    def units(self) -> list[Any]:
        """Parts that can be read independently."""

    @abstractmethod
    def documents(self, unit: Any) -> Iterator[bytes]:
        """The documents of one unit. Raises InputError if one of them is not text."""

    def __iter__(self) -> Iterator[bytes]:
        """All documents."""
        return (document for unit in self.units() for document in self.documents(unit))

    def check(self) -> None:
        """Quick checks for planning, without the network. Raises InputError if the first documents cannot be read."""
        self.look_into()

    def look_into(self) -> None:
        """Read the first documents, and the first document of some other units. Raises InputError if one cannot be read."""
        units = self.units()
        for place in range(0, len(units), max(1, len(units) // LOOKS)):
            left = LOOK_BYTES if place == 0 else 1
            for document in self.documents(units[place]):
                if (left := left - len(document)) <= 0:
                    break


class FileReader(Reader):
    """A reader of the local files that `paths` names; of a folder, it reads those with one of `endings`."""

    endings: ClassVar[tuple[str, ...]]

    @cached_property
    def files(self) -> list[Path]:
        return expand(self.source.paths, self.endings, self.field)

    def identity(self) -> Any:
        return [file_identity(path) for path in self.files]

    def reading(self, path: Path, problem: str = "cannot be read") -> AbstractContextManager[None]:
        """Raises InputError in place of the errors of opening and reading a file; pyarrow's are ValueErrors."""
        return explained(f"{self.field}.paths: {path} {problem}", "make it again, or leave it out", (OSError, ValueError))


class Records(Reader):
    """Each text of `column` is a document, or with rows=lines a line of a longer text."""

    @abstractmethod
    def texts(self, unit: Any) -> Iterator[bytes]:
        """The texts of one unit, empty ones included."""

    def documents(self, unit: Any) -> Iterator[bytes]:
        texts = self.texts(unit)
        return joined(texts) if self.source.rows == "lines" else filter(None, texts)

    def text_of(self, record: dict, where: str) -> bytes:
        """The text of a record; empty if the column holds null. Raises InputError if there is no such column or no text."""
        column = self.source.column
        if column not in record:
            raise self.missing_column(record, where)
        text = record[column]
        if text is None:
            return b""
        if not isinstance(text, str):
            raise InputError(
                f"{self.field}.column={column}: {where} holds {type(text).__name__}, not text; name a column of text"
            )
        try:
            return text.encode("utf-8").replace(b"\0", b"")
        except UnicodeEncodeError as error:  # half of a surrogate pair
            raise InputError(f"{self.field}: {where} is not Unicode text ({error.reason}); fix it, or leave it out") from error

    def missing_column(self, columns: Iterable[str], where: str) -> InputError:
        return InputError(
            f"{self.field}.column={self.source.column}: {where} has no such column; it has {', '.join(columns)}: "
            "name one of them there"
        )


def expand(paths: list[str], endings: tuple[str, ...], field: str) -> list[Path]:
    """The files that `paths` name, sorted, each once; of a folder those with one of `endings`. Raises InputError if there are
    none."""
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


def unit_bytes(total: float) -> int:
    """The size of a unit: small enough to share the work among workers, large enough to keep at most `MAX_UNITS`."""
    return max(UNIT_BYTES, int(total // MAX_UNITS) + 1)


def grouped(spans: Sequence[Any], sizes: Sequence[int], least: int) -> list[list[Any]]:
    """Units of neighbouring spans, each of at least `least` bytes, so that small files are read many at a time."""
    units: list[list[Any]] = []
    room = 0
    for span, size in zip(spans, sizes, strict=True):
        if room <= 0:
            units.append([])
            room = least
        units[-1].append(span)
        room -= size
    return units


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
