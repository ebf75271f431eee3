"""Local files of records: JSON lines and Parquet."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.data.sources.paths import file_identity
from sweep.data.sources.reader import FileReader, Records, grouped, unit_bytes
from sweep.errors import InputError

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".lz4": "lz4"}
SKIP_BYTES = 1 << 20  # of a line that is too long, at once
BATCH_ROWS = 256  # of a Parquet file in memory at once


class RecordFiles(FileReader, Records):
    """Records in local files."""

    def identity(self) -> Any:
        files = [file_identity(path) for path in self.files]
        return {"files": files, "column": self.source.column, "rows": self.source.rows}


class JsonLines(RecordFiles, name="jsonl"):
    """One JSON object on each line, compressed or not."""

    endings = tuple(f"{kind}{suffix}" for kind in (".jsonl", ".json") for suffix in ("", *COMPRESSED))

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

    def texts(self, unit: Any) -> Iterator[bytes | None]:
        for path, start, end in unit:
            for at, line in self._lines(path, start, end):
                where = f"{path} at byte {at:,}"
                if line.strip() and (record := self._record(line, where)) is not None:
                    yield self.text_of(record, where)

    def _record(self, line: bytes, where: str) -> dict | None:
        problem = f"{self.field}.paths: {where} is not"
        try:
            record = json.loads(line)
        except UnicodeDecodeError as error:
            self.bad(f"{problem} UTF-8 text; convert the file, or leave it out", error)
            return None
        except (ValueError, RecursionError) as error:
            self.bad(f"{problem} JSON ({error}); fix it, or leave it out", error)
            return None
        if not isinstance(record, dict):
            self.bad(f"{problem} a JSON object with a column {self.source.column!r}; fix it, or leave it out")
            return None
        return record

    def _lines(self, path: Path, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The lines of a file that begin in [start, end), each with its place; of a compressed file all lines, each with its
        place in the uncompressed text."""
        most, compressed = int(self.source.max_line_bytes), path.suffix in COMPRESSED
        with self.reading(path), _opened(path) as file:
            at = start
            if start:
                file.seek(start - 1)
                at += _skip_line(file) - 1  # the rest of a line that began before
            while (compressed or at < end) and (line := file.readline(most + 1)):
                if len(line) <= most:
                    yield at, line
                    at += len(line)
                    continue
                problem = f"{self.field}.max_line_bytes={most:,}: {path} has a longer line at byte {at:,}"
                self.bad(f"{problem}; raise it if there is memory for several times that, or leave the line out")
                at += len(line) + (0 if line.endswith(b"\n") else _skip_line(file))


def _skip_line(file: Any) -> int:
    """Go to the end of the line; returns the bytes that were skipped."""
    skipped = 0
    while part := file.readline(SKIP_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file to read lines of, decompressed."""
    codec = COMPRESSED.get(path.suffix)
    if codec is None or (codec == "zstd" and _is_long(path)):
        with open(path, "rb") as file, _long_zstd(file, path) if codec else nullcontext(file) as lines:
            yield lines
        return
    import pyarrow as pa

    with pa.input_stream(str(path), compression=codec) as stream:
        yield io.BufferedReader(stream, 1 << 20)


def _is_long(path: Path) -> bool:
    """Whether a .zst file was written with a longer window (zstd --long=31) than pyarrow reads."""
    import pyarrow as pa

    try:
        with pa.input_stream(str(path), compression="zstd") as stream:
            stream.read(1)
    except OSError as error:
        return "too much memory" in str(error)
    return False


def _long_zstd(file: Any, path: Path) -> Any:
    try:
        from zstandard import ZstdDecompressor
    except ModuleNotFoundError as error:
        remedy = f"pip install zstandard, or write it again: zstd -d --long=31 -c {path.name} | zstd -o again{path.suffix}"
        raise InputError(f"{path} was compressed with a longer window than pyarrow reads; {remedy}") from error
    return io.BufferedReader(ZstdDecompressor(max_window_size=1 << 31).stream_reader(file, read_across_frames=True), 1 << 20)


class ParquetFiles(RecordFiles, name="parquet"):
    """Parquet files, read a few rows at a time."""

    endings = (".parquet",)
    counts_repeats = False  # a row group may store a repeated value once

    @cached_property
    def _groups(self) -> list[tuple[Path, int | None, int, int]]:
        """(path, row group, its first row, bytes of the column before compression); None for a bad file."""
        import pyarrow.parquet as pq

        groups: list[tuple[Path, int | None, int, int]] = []
        for path in self.files:
            place = None
            with self.reading(path, "is not a Parquet file"):
                metadata = pq.read_metadata(path)
                columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
                # Lists and numbers are no text.
                names = [c.path if c.max_repetition_level == 0 and c.physical_type == "BYTE_ARRAY" else "" for c in columns]
                if self.source.column in names:
                    place = names.index(self.source.column)
                else:
                    self.bad(self.missing_column(filter(None, names), str(path)))
            if place is None:
                groups.append((path, None, 0, 0))
                continue
            row = 0
            for i in range(metadata.num_row_groups):
                group = metadata.row_group(i)
                groups.append((path, i, row, group.column(place).total_uncompressed_size))
                row += group.num_rows
        self.take_skipped()  # they are counted when they are read
        return groups

    def most_tokens(self) -> float:
        return sum(size for *_, size in self._groups)

    def units(self) -> list[Any]:
        """Lists of (path, row group, its first row)."""
        sizes = [size for *_, size in self._groups]
        return grouped([place for *place, _ in self._groups], sizes, unit_bytes(sum(sizes)))

    def texts(self, unit: Any) -> Iterator[bytes | None]:
        import pyarrow.parquet as pq

        for path, group, row in unit:
            if group is None:
                self.bad(f"{self.field}.paths: {path} is not a Parquet file with a text column {self.source.column}")
                continue
            with self.reading(path), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[self.source.column]):
                    for text in _values(batch, self.source.column):
                        yield self.text_of({self.source.column: text}, f"{path}, row {row:,} from 0")
                        row += 1


def _values(batch: Any, column: str) -> list[Any]:
    """The values of a column, of doc.text those inside the structs of doc; text as bytes, which may not be UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values, top = batch.column(0), batch.schema.names[0]
    if top != column:
        values = pc.struct_field(values, column.removeprefix(f"{top}.").split("."))
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.cast(pa.large_binary())
    return values.to_pylist()
