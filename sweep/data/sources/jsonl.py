"""JSON lines."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep.data.sources.reader import RecordFiles, grouped, unit_bytes
from sweep.errors import InputError

COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")


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
