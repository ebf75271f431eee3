"""The interface of a source of documents, and the base classes of readers of files and of records with a column of text."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as made
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from sweep.config import SourceConfig
from sweep.data.sources.paths import expand, file_identity
from sweep.errors import InputError, one_line
from sweep.words import counted

PIECE_BYTES = 65_536  # long texts are cut into documents of about this size, at line ends
UNIT_BYTES = 1 << 24  # smallest unit of text that one worker reads
MAX_UNITS = 256
LOOKS, LOOK_BYTES = 16, 1 << 20  # units that planning looks into, and how far into the first

SOURCES: dict[str, type["Reader"]] = {}


@dataclass
class Skipped:
    """Documents that were left out because they cannot be read: how many, and what is wrong with the first of them."""

    documents: int = 0
    first: str = ""

    def __add__(self, other: "Skipped") -> "Skipped":
        return Skipped(self.documents + other.documents, self.first or other.first)

    def __bool__(self) -> bool:
        return self.documents > 0

    def __str__(self) -> str:
        return f"{counted(self.documents, 'bad document')} skipped (the first: {self.first})"


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
        skipped: what was left out since it was last cleared.
    """

    source: SourceConfig
    field: str = "data"
    skipped: Skipped = made(default_factory=Skipped, compare=False)
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
        """The documents of one unit. One that is not text is `bad`."""

    def bad(self, problem: str, cause: Exception | None = None) -> None:
        """Leave out a document, or the rest of a file, and count it. Raises InputError if `on_error` is not "skip"."""
        if self.source.on_error != "skip":
            raise InputError(f"{problem}; {self.field}.on_error=skip leaves out and counts all that is bad") from cause
        self.skipped.first = self.skipped.first or problem.partition(";")[0]
        self.skipped.documents += 1

    def take_skipped(self) -> Skipped:
        """What was left out since this was last called."""
        taken = Skipped(self.skipped.documents, self.skipped.first)
        self.skipped.documents, self.skipped.first = 0, ""
        return taken

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
    """A reader of the local files that `paths` names; of a folder, it reads those with one of `suffixes`, or of `endings`."""

    endings: ClassVar[tuple[str, ...]]

    @cached_property
    def files(self) -> list[Path]:
        return expand(self.source.paths, tuple(self.source.suffixes or self.endings), self.field)

    def identity(self) -> Any:
        return [file_identity(path) for path in self.files]

    @contextmanager
    def reading(self, path: Path, problem: str = "cannot be read") -> Iterator[None]:
        """What opening and reading a file raises makes the file `bad`; pyarrow's errors are ValueErrors, or have no number.
        What the disk says of it is always an InputError: it may read the same file tomorrow."""
        try:
            yield
        except InputError:
            raise
        except (OSError, ValueError) as error:
            message = f"{self.field}.paths: {path} {problem} ({one_line(error)}); make it again, or leave it out"
            if isinstance(error, OSError) and error.errno is not None:
                raise InputError(message) from error
            self.bad(message, error)


class Records(Reader):
    """Each text of `column` is a document, or with rows=lines a line of a longer text."""

    @abstractmethod
    def texts(self, unit: Any) -> Iterator[bytes | None]:
        """The texts of one unit, empty ones included; None for a bad one."""

    def documents(self, unit: Any) -> Iterator[bytes]:
        texts = (text for text in self.texts(unit) if text is not None)
        return joined(texts) if self.source.rows == "lines" else filter(None, texts)

    def text_of(self, record: dict, where: str) -> bytes | None:
        """The text of a record; empty if the column holds null. A record without such a column or without text is `bad`, and
        gives None. Column doc.text is the field text of the column doc, unless there is one with that name."""
        column = self.source.column
        text: Any = record
        for name in [column] if column in record else column.split("."):
            if text is None:
                break
            if not isinstance(text, dict) or name not in text:
                self.bad(self.missing_column(_leaves(record), where))
                return None
            text = text[name]
        if text is None:
            return b""
        try:
            if isinstance(text, str):
                text = text.encode()
            if isinstance(text, bytes):
                text.decode()
                return text.replace(b"\0", b"")
        except (UnicodeEncodeError, UnicodeDecodeError) as error:  # half of a surrogate pair, or bytes of another encoding
            self.bad(f"{self.field}: {where} is not Unicode text ({error.reason}); fix it, or leave it out", error)
            return None
        kind = type(text).__name__
        self.bad(f"{self.field}.column={column}: {where} holds {kind}, not text; name a column of text")
        return None

    def missing_column(self, columns: Iterable[str], where: str) -> str:
        """What to say of a file or record without the column."""
        there = ", ".join(columns) or "none"
        return f"{self.field}.column={self.source.column}: {where} has no such column; it has {there}: name one of them there"


def _leaves(record: Any, prefix: str = "") -> Iterator[str]:
    """The columns of a record, those of records inside it as doc.text."""
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


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
