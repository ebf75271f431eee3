"""Parquet files."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.data.sources.reader import RecordFiles, grouped, unit_bytes

BATCH_ROWS = 256  # in memory at once


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
