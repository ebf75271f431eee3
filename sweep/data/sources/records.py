"""Local files of records: JSON lines and Parquet."""

import io
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.data.sources.reader import FileReader, Records, file_identity, grouped, unit_bytes
from sweep.errors import InputError

COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")
BATCH_ROWS = 256  # of a Parquet file in memory at once


class RecordFiles(FileReader, Records):
    """Records in local files."""

    def identity(self) -> Any:
        files = [file_identity(path) for path in self.files]
        return {"files": files, "column": self.source.column, "rows": self.source.rows}


class JsonLines(RecordFiles, name="jsonl"):
    """One JSON object on each line, compressed or not."""

    endings = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst")

    def most_tokens(self) -> float:
        if any(path.suffix in COMPRESSED for path in self.files):
            return float("inf")
        return sum(path.stat().st_size for path in self.files)

    def units(self) -> list[Any]:
        """Lists of (path, first byte, end): the lines that begin there. A compressed file can only be read from its start."""
        least = unit_bytes(sum(path.stat().st_size for path in self.files))
        spans = []
        for path in self.files:
            size = path.stat().st_size
            step = size + 1 if path.suffix in COMPRESSED else least
            spans += [(path, start, min(start + step, size)) for start in range(0, size, step)]
        return grouped(spans, [end - start for _, start, end in spans], least)

    def texts(self, unit: Any) -> Iterator[bytes]:
        for path, start, end in unit:
            for at, line in self._lines(path, start, end):
                if line.strip():
                    where = f"{path} at byte {at:,}"
                    yield self.text_of(self._record(line, where), where)

    def _record(self, line: bytes, where: str) -> dict:
        problem = f"{self.field}.paths: {where} is not"
        try:
            record = json.loads(line)
        except UnicodeDecodeError as error:
            raise InputError(f"{problem} UTF-8 text; convert the file, or leave it out") from error
        except ValueError as error:
            raise InputError(f"{problem} JSON ({error}); fix it, or leave it out") from error
        if not isinstance(record, dict):
            raise InputError(f"{problem} a JSON object with a column {self.source.column!r}; fix it, or leave it out")
        return record

    def _lines(self, path: Path, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The lines of a file that begin in [start, end), each with its place; of a compressed file all lines, each with its
        place in the uncompressed text."""
        if path.suffix in COMPRESSED:
            import pyarrow as pa

            at = 0
            with self.reading(path), pa.input_stream(str(path), compression="detect") as stream:
                for line in io.BufferedReader(stream, 1 << 20):
                    yield at, line
                    at += len(line)
            return
        with self.reading(path), open(path, "rb") as file:
            if start:
                file.seek(start - 1)
                file.readline()  # the rest of a line that began before
            while (at := file.tell()) < end:
                yield at, file.readline()


class ParquetFiles(RecordFiles, name="parquet"):
    """Parquet files, read a few rows at a time."""

    endings = (".parquet",)
    counts_repeats = False  # a row group may store a repeated value once

    @cached_property
    def _groups(self) -> list[tuple[Path, int, int]]:
        """(path, row group, bytes of the column before compression)."""
        import pyarrow.parquet as pq

        groups: list[tuple[Path, int, int]] = []
        for path in self.files:
            with self.reading(path, "is not a Parquet file"):
                metadata = pq.read_metadata(path)
            names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
            if self.source.column not in names:
                raise self.missing_column(names, str(path))
            place = names.index(self.source.column)
            sizes = [metadata.row_group(i).column(place).total_uncompressed_size for i in range(metadata.num_row_groups)]
            groups += [(path, i, size) for i, size in enumerate(sizes)]
        return groups

    def most_tokens(self) -> float:
        return sum(size for _, _, size in self._groups)

    def units(self) -> list[Any]:
        """Lists of (path, row group)."""
        sizes = [size for _, _, size in self._groups]
        return grouped([(path, group) for path, group, _ in self._groups], sizes, unit_bytes(sum(sizes)))

    def texts(self, unit: Any) -> Iterator[bytes]:
        import pyarrow.parquet as pq

        column = self.source.column
        for path, group in unit:
            with self.reading(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column]):
                    for text in batch.column(0).to_pylist():
                        yield self.text_of({column: text}, str(path))
