"""Tokenise the units of a source in parallel, into parts on disk, so that a later start continues where a killed one stopped.

A part holds the ids of about 64 MB of text, and an index. A part without an index is incomplete and is written again. Memory:
the batches being encoded, and one part for each worker.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from sweep.data.parts import Part, PartWriter
from sweep.data.processes import SPAWN, worker_processes
from sweep.data.sources.reader import Reader, Skipped
from sweep.data.tokenizer import Tokenizer
from sweep.files import write_json
from sweep.machine import cores

ENCODE_BYTES = 1 << 22  # handed to the tokenizer at once
ENCODE_DOCUMENTS = 1024
PART_BYTES = 1 << 26  # of text in a part
MAX_PARTS = 512  # of a source whose size is known; each is kept open while the corpus is written
ALONE_BYTES = 1 << 25  # starting processes does not pay off for less text than this


@dataclass(frozen=True)
class Tokenising:
    """How one source becomes parts.

    Attributes:
        reader, tokenizer: of the source and of the corpus.
        directory: for the parts; every combination of the other attributes needs its own.
        max_bytes: stop once the units read so far have this much text.
        lines: keep hashes of lines, for near duplicates.
    """

    reader: Reader
    tokenizer: Tokenizer
    directory: Path
    max_bytes: float = float("inf")
    lines: bool = False

    def run(self, workers: int | None = None, advance: Callable[[int], None] = lambda size: None) -> list[Part]:
        """All parts of the source, in its order. Parts that an earlier start finished are not written again. Raises InputError
        if a document cannot be read.

        Args:
            workers: processes; by default one for each core, or one for a small source.
            advance: called with the bytes of text finished since the last call.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        known = min(self.reader.most_tokens(), self.max_bytes)
        part_bytes = max(PART_BYTES, int(known // MAX_PARTS)) if known < float("inf") else PART_BYTES
        units = self.reader.units()
        if workers is None:
            workers = 1 if known < ALONE_BYTES else cores()
        todo = [(number, unit) for number, unit in enumerate(units) if not self._end_of(number).exists()]
        advance(sum(map(self._bytes_of, range(len(units)))))
        if min(workers, len(todo)) > 1:
            self._in_processes(todo, part_bytes, workers, max(1, cores() // workers), advance)
        else:
            for number, unit in todo:
                if self._enough():
                    break
                for size in self.unit(number, unit, part_bytes):
                    advance(size)
        return self._finished()[0]

    def skipped(self) -> Skipped:
        """The documents of its parts' units that could not be read."""
        return sum((self._skipped_of(number) for number in range(self._finished()[2])), Skipped())

    def _in_processes(
        self, todo: list[tuple[int, Any]], part_bytes: int, workers: int, threads: int, advance: Callable[[int], None]
    ) -> None:
        """Tokenise the units of `todo` in worker processes, in order, until there is enough text."""
        done_bytes = SPAWN.SimpleQueue()
        with worker_processes(min(workers, len(todo)), _prepare, self, part_bytes, threads, done_bytes) as pool:
            left = iter(todo)
            running: set[Future[None]] = set()
            while True:
                while len(running) < 2 * workers and not self._enough() and (next_unit := next(left, None)):
                    running.add(pool.submit(_tokenise_in_worker, *next_unit))
                if not running:
                    return
                finished, running = wait(running, timeout=0.2, return_when=FIRST_EXCEPTION)
                while not done_bytes.empty():
                    advance(done_bytes.get())
                for future in finished:
                    future.result()

    def unit(self, number: int, unit: Any, part_bytes: int) -> Iterator[int]:
        """Write the missing parts of a unit; yields the bytes of each encoded batch."""
        self.reader.take_skipped()
        before = [np.load(path, mmap_mode="r") for path in self._indices(number)]
        skip, read = sum(map(len, before)), self._bytes_of(number)
        paths = (self._path(number, place) for place in count(len(before)))
        part = PartWriter(next(paths), self.tokenizer, hash_lines=self.lines)
        for batch in _batches(islice(self.reader.documents(unit), skip, None), self.max_bytes - read):
            part.add(batch)
            yield sum(map(len, batch))
            if part.bytes >= part_bytes:
                part.finish()
                part = PartWriter(next(paths), self.tokenizer, hash_lines=self.lines)
        part.finish()
        write_json(self._end_of(number), asdict(self.reader.take_skipped()))

    def _enough(self) -> bool:
        return self.max_bytes < float("inf") and self._finished()[1] >= self.max_bytes

    def _finished(self) -> tuple[list[Part], int, int]:
        """The parts of finished units, from the first on without a gap until they have `max_bytes` of text, their bytes, and
        how many units they are."""
        parts: list[Part] = []
        read = 0
        for number in count():
            if read >= self.max_bytes or not self._end_of(number).exists():
                break
            parts += [Part(self._path(number, place)) for place, _ in enumerate(self._indices(number))]
            read += self._bytes_of(number)
        return parts, read, number

    def _path(self, number: int, place: int) -> Path:
        return self.directory / f"{number:06d}.{place:05d}.bin"

    def _end_of(self, number: int) -> Path:
        """The file that marks a unit as complete."""
        return self.directory / f"{number:06d}.done"

    def _skipped_of(self, number: int) -> Skipped:
        content = self._end_of(number).read_bytes()
        return Skipped(**json.loads(content)) if content else Skipped()

    def _indices(self, number: int) -> list[Path]:
        return sorted(self.directory.glob(f"{number:06d}.*.index.npy"))

    def _bytes_of(self, number: int) -> int:
        """Text in the finished parts of a unit."""
        return sum(int(np.load(path, mmap_mode="r")["bytes"].sum()) for path in self._indices(number))


_worker: tuple[Tokenising, int, Any] | None = None


def _prepare(job: Tokenising, part_bytes: int, threads: int, done_bytes: Any) -> None:
    """Set up a worker process."""
    global _worker
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    _worker = job, part_bytes, done_bytes


def _tokenise_in_worker(number: int, unit: Any) -> None:
    assert _worker is not None
    job, part_bytes, done_bytes = _worker
    for size in job.unit(number, unit, part_bytes):
        done_bytes.put(size)


def _batches(documents: Iterator[bytes], most: float) -> Iterator[list[bytes]]:
    """Documents in batches, until they have `most` bytes."""
    batch: list[bytes] = []
    size = read = 0
    for document in documents:
        if read >= most:
            break
        batch.append(document)
        size, read = size + len(document), read + len(document)
        if size >= ENCODE_BYTES or len(batch) >= ENCODE_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
