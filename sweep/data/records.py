"""Sources that keep documents as records with a text column: JSON lines, Parquet, Hugging Face datasets."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.config import SourceConfig
from sweep.data.sources import MAX_UNITS, expand, file_identity, grouped, joined, look_into, unit_bytes
from sweep.errors import InputError

BATCH_ROWS = 256  # of a Parquet file in memory at once
COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")


def text_of(record: dict, column: str, where: str, field: str) -> bytes:
    """The text of a record; empty if it has none.

    Raises:
        InputError: if the column is missing or holds something else.
    """
    if column not in record:
        raise missing_column(column, record, where, field)
    text = record[column]
    if text is None:
        return b""
    if not isinstance(text, str):
        raise InputError(f"{field}.column={column}: {where} holds {type(text).__name__}, not text; name a column of text")
    try:
        return text.encode("utf-8").replace(b"\0", b"")
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise InputError(f"{field}: {where} is not Unicode text ({error.reason}); mend it, or leave it out") from error


def missing_column(column: str, columns: Iterable[str], where: str, field: str) -> InputError:
    return InputError(
        f"{field}.column={column}: {where} has no such column; it has {', '.join(columns)}: name one of them there"
    )


def documents_of(texts: Iterable[bytes], rows: str) -> Iterator[bytes]:
    """Each text that is not empty as a document, or all joined as lines."""
    return joined(texts) if rows == "lines" else (text for text in texts if text)


@dataclass(frozen=True)
class JsonLines:
    """One JSON object on each line, compressed or not."""

    files: list[Path]
    column: str
    rows: str
    field: str

    def identity(self) -> Any:
        return {"files": [file_identity(path) for path in self.files], "column": self.column, "rows": self.rows}

    def most_tokens(self) -> float:
        if any(path.suffix in COMPRESSED for path in self.files):
            return float("inf")
        return sum(path.stat().st_size for path in self.files)

    def check(self) -> None:
        look_into(self)

    def units(self) -> list[Any]:
        """Lists of (path, first byte, end); the lines that begin there. A compressed file is read from its beginning only."""
        least = unit_bytes(sum(path.stat().st_size for path in self.files))
        spans = []
        for path in self.files:
            size = path.stat().st_size
            step = size + 1 if path.suffix in COMPRESSED else least
            spans += [(path, start, min(start + step, size)) for start in range(0, size, step)]
        return grouped(spans, [end - start for _, start, end in spans], least)

    def documents(self, unit: Any) -> Iterator[bytes]:
        return documents_of((text for span in unit for text in self._texts(*span)), self.rows)

    def _texts(self, path: Path, start: int, end: int) -> Iterator[bytes]:
        for at, line in _lines(path, start, end):
            if not line.strip():
                continue
            where = f"{path} at byte {at:,}"
            try:
                record = json.loads(line)
            except UnicodeDecodeError as error:
                raise InputError(f"{self.field}.paths: {where} is not UTF-8 text; convert the file, or leave it out") from error
            except ValueError as error:
                raise InputError(f"{self.field}.paths: {where} is not JSON ({error}); mend it, or leave it out") from error
            if not isinstance(record, dict):
                raise InputError(f"{self.field}.paths: {where} is not a JSON object with a column {self.column!r}")
            yield text_of(record, self.column, where, self.field)


def _lines(path: Path, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that begin in [start, end), and where; of a compressed file all, and where in the text."""
    try:
        if path.suffix in COMPRESSED:
            import pyarrow as pa

            at = 0
            with pa.input_stream(str(path), compression="detect") as stream:
                for line in io.BufferedReader(stream, 1 << 20):
                    yield at, line
                    at += len(line)
            return
        with open(path, "rb") as file:
            if start:
                file.seek(start - 1)
                file.readline()  # the rest of a line that began before
            while (at := file.tell()) < end:
                yield at, file.readline()
    except OSError as error:
        raise InputError(f"data.paths: {path} cannot be read ({error}); make it again, or leave it out") from error


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files, read a few rows at a time."""

    files: list[Path]
    column: str
    rows: str
    field: str

    def identity(self) -> Any:
        return {"files": [file_identity(path) for path in self.files], "column": self.column, "rows": self.rows}

    @cached_property
    def _groups(self) -> list[tuple[Path, int, int]]:
        """(path, row group, bytes of the column before compression). A text that a group holds twice counts once."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        groups: list[tuple[Path, int, int]] = []
        for path in self.files:
            try:
                metadata = pq.read_metadata(path)
            except (pa.ArrowInvalid, OSError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{self.field}.paths: {path} is not a Parquet file ({reason}); leave it out") from error
            names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
            if self.column not in names:
                raise missing_column(self.column, names, str(path), self.field)
            place = names.index(self.column)
            sizes = [metadata.row_group(i).column(place).total_uncompressed_size for i in range(metadata.num_row_groups)]
            groups += [(path, i, size) for i, size in enumerate(sizes)]
        return groups

    def most_tokens(self) -> float:
        return sum(size for _, _, size in self._groups)

    def check(self) -> None:
        look_into(self)

    def units(self) -> list[Any]:
        """Lists of (path, row group)."""
        sizes = [size for _, _, size in self._groups]
        return grouped([(path, group) for path, group, _ in self._groups], sizes, unit_bytes(sum(sizes)))

    def documents(self, unit: Any) -> Iterator[bytes]:
        return documents_of((text for path, group in unit for text in self._texts(path, group)), self.rows)

    def _texts(self, path: Path, group: int) -> Iterator[bytes]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[self.column]):
                    for text in batch.column(0).to_pylist():
                        yield text_of({self.column: text}, self.column, str(path), self.field)
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.field}.paths: {path} cannot be read ({reason}); make it again, or leave it out") from error


@dataclass(frozen=True)
class HuggingFace:
    """A dataset by name, or a local folder: one that `save_to_disk` wrote, or files that `load_dataset` understands."""

    dataset: str
    config: str | None
    split: str
    revision: str | None
    column: str
    rows: str
    field: str

    @classmethod
    def of(cls, source: SourceConfig, field: str) -> "HuggingFace":
        """Raises InputError if no dataset is named."""
        if not source.dataset:
            raise InputError(f"{field}.dataset is empty; name a Hugging Face dataset or a local folder")
        if source.dataset.startswith((".", "/", "~")) and not Path(source.dataset).expanduser().is_dir():
            raise InputError(f"{field}.dataset={source.dataset} is no folder; check the path (it is relative to {Path.cwd()})")
        return cls(source.dataset, source.config, source.split, source.revision, source.column, source.rows, field)

    @property
    def _folder(self) -> Path | None:
        folder = Path(self.dataset).expanduser()
        return folder if folder.is_dir() else None

    def identity(self) -> Any:
        """The files of a local folder; the name and revision of another, which only a commit hash pins for good."""
        what: dict[str, Any] = {"config": self.config, "split": self.split, "column": self.column, "rows": self.rows}
        if self._folder is None:
            return what | {"dataset": self.dataset, "revision": self.revision}
        return what | {"files": [file_identity(path) for path in expand([str(self._folder)], ("",), self.field)]}

    def most_tokens(self) -> float:
        return float("inf")

    def check(self) -> None:
        """Nothing that needs the network is done here: planning works offline."""
        if self._folder is not None:
            look_into(self)

    @cached_property
    def _stream(self) -> Any:
        """A `datasets.IterableDataset`."""
        import datasets

        folder = self._folder
        try:
            if folder and ((folder / "state.json").exists() or (folder / "dataset_dict.json").exists()):
                saved = datasets.load_from_disk(str(folder))
                saved = saved[self.split] if isinstance(saved, datasets.DatasetDict) else saved
                stream = saved.to_iterable_dataset(num_shards=max(1, min(MAX_UNITS, len(saved) // 1024)))
            else:
                name = str(folder) if folder else self.dataset
                stream = datasets.load_dataset(name, self.config, split=self.split, revision=self.revision, streaming=True)
            if stream.column_names is not None and self.column not in stream.column_names:
                raise missing_column(self.column, stream.column_names, self.dataset, self.field)
        except InputError:
            raise
        except Exception as error:  # each builder has errors of its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{self.field}.dataset={self.dataset} cannot be loaded ({reason}); check dataset, config, split and revision, "
                "and the network, or give a local folder"
            ) from error
        return stream.select_columns([self.column]) if stream.column_names is not None else stream

    def units(self) -> list[Any]:
        return list(range(min(self._stream.num_shards, MAX_UNITS)))

    def documents(self, unit: Any) -> Iterator[bytes]:
        return documents_of(self._texts(unit), self.rows)

    def _texts(self, unit: int) -> Iterator[bytes]:
        part = self._stream.shard(num_shards=min(self._stream.num_shards, MAX_UNITS), index=unit)
        where = f"{self.dataset}, {self.split}"
        try:
            for row in part:
                yield text_of(row, self.column, where, self.field)
        except InputError:
            raise
        except Exception as error:  # of the network, of files, of whatever builder this is
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{self.field}.dataset={self.dataset}: reading stopped ({reason}); the same command again goes on from there"
            ) from error
