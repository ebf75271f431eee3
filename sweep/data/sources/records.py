"""What sources share that keep documents as records with a column of text."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from sweep.data.sources.reader import FileReader, Reader, file_identity, joined
from sweep.errors import InputError


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


class RecordFiles(FileReader, Records):
    """Records in local files."""

    def identity(self) -> Any:
        files = [file_identity(path) for path in self.files]
        return {"files": files, "column": self.source.column, "rows": self.source.rows}
