"""Tokenise the units of a source in parallel, into parts on disk, so that a later start continues where a killed one stopped.

A part holds the ids of about 64 MB of text, and an index. A part without an index is incomplete and is written again. Memory:
the batches being encoded, and one part for each worker.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sweep.data.parts import Part, PartWriter
from sweep.data.sources.reader import Reader
from sweep.data.tokenizer import Tokenizer
from sweep.files import write_atomically

ENCODE_BYTES = 1 << 22  # handed to the tokenizer at once
ENCODE_DOCUMENTS = 1024
PART_BYTES = 1 << 26  # of text in a part
MAX_PARTS = 512  # of a source whose size is known; each is kept open while the corpus is written
ALONE_BYTES = 1 << 25  # starting processes does not pay off for less text than this


@dataclass(frozen=True)
class Job:
    """How the units of one source become parts.

    Attributes:
        reader: of the source.
        tokenizer: encodes the documents.
        directory: where the parts go.
        max_bytes: no unit is read further than this.
        part_bytes: text in a part.
        lines: whether to keep hashes of lines.
    """

    reader: Reader
    tokenizer: Tokenizer
    directory: Path
    max_bytes: float
    part_bytes: int
    lines: bool


def tokenise(
    reader: Reader,
    tokenizer: Tokenizer,
    directory: Path,
    *,
    max_bytes: float = float("inf"),
    lines: bool = False,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda size: None,
) -> list[Part]:
    """All parts of a source, in its order. Parts that an earlier start finished are not written again.

    Args:
        reader, tokenizer: of the source and of the corpus.
        directory: for the parts; every combination of source, tokenizer, `max_bytes` and `lines` needs its own.
        max_bytes: stop once the units read so far have this much text.
        lines: keep hashes of lines, for near duplicates.
        workers: processes; by default one for each core, or one for a small source.
        advance: called with the bytes of text finished since the last call.

    Raises:
        InputError: if a document cannot be read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    known = min(reader.most_tokens(), max_bytes)
    part_bytes = max(PART_BYTES, int(known // MAX_PARTS)) if known < float("inf") else PART_BYTES
    job = Job(reader, tokenizer, directory, max_bytes, part_bytes, lines)
    units = list(enumerate(reader.units()))
    cores = len(os.sched_getaffinity(0))
    if workers is None:
        workers = 1 if known < ALONE_BYTES else cores
    todo = [(number, unit) for number, unit in units if not _end_of(directory, number).exists()]
    advance(sum(_bytes_of(directory, number) for number, _ in units))
    if min(workers, len(todo)) <= 1:
        read = 0
        for number, unit in units:
            if read >= max_bytes:
                break
            if (number, unit) in todo:
                for size in _tokenise_unit(job, number, unit):
                    advance(size)
            read += _bytes_of(directory, number)
    else:
        _in_processes(job, units, todo, workers, max(1, cores // workers), advance)
    return _parts_up_to(directory, len(units), max_bytes)


def _in_processes(
    job: Job,
    units: list[tuple[int, Any]],
    todo: list[tuple[int, Any]],
    workers: int,
    threads: int,
    advance: Callable[[int], None],
) -> None:
    """Tokenise the units of `todo` in worker processes, in order, until the first units without a gap have `max_bytes`."""
    context = multiprocessing.get_context("spawn")
    done_bytes = context.SimpleQueue()
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(
        min(workers, len(todo)), mp_context=context, initializer=_prepare, initargs=(job, threads, done_bytes)
    ) as pool:
        left = iter(todo)
        running: set[Future[None]] = set()
        try:
            while True:
                while len(running) < 2 * workers and not _enough(job, units) and (next_unit := next(left, None)):
                    running.add(pool.submit(_tokenise_in_worker, *next_unit))
                if not running:
                    return
                finished, running = wait(running, timeout=0.2, return_when=FIRST_EXCEPTION)
                while not done_bytes.empty():
                    advance(done_bytes.get())
                for future in finished:
                    future.result()
        except BaseException:
            for future in running:
                future.cancel()
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise


def _enough(job: Job, units: list[tuple[int, Any]]) -> bool:
    """Whether the finished units, counted from the first without a gap, have `max_bytes` of text."""
    if job.max_bytes == float("inf"):
        return False
    read = 0
    for number, _ in units:
        if not _end_of(job.directory, number).exists():
            return False
        if (read := read + _bytes_of(job.directory, number)) >= job.max_bytes:
            return True
    return False


_worker: tuple[Job, Any] | None = None


def _prepare(job: Job, threads: int, done_bytes: Any) -> None:
    """Set up a worker process, which also exits when its parent is killed, even by SIGKILL."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent terminates its workers
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    _worker = job, done_bytes


def _tokenise_in_worker(number: int, unit: Any) -> None:
    assert _worker is not None
    job, done_bytes = _worker
    for size in _tokenise_unit(job, number, unit):
        done_bytes.put(size)


def _tokenise_unit(job: Job, number: int, unit: Any) -> Iterator[int]:
    """Write the missing parts of a unit; yields the bytes of each encoded batch."""
    before = [np.load(path, mmap_mode="r") for path in _indices(job.directory, number)]
    skip, read = sum(map(len, before)), sum(int(index["bytes"].sum()) for index in before)

    def part_at(place: int) -> PartWriter:
        path = job.directory / f"{number:06d}.{place:05d}.bin"
        return PartWriter(path, job.tokenizer, hash_lines=job.lines)

    place = len(before)
    part = part_at(place)
    for batch in _batches(islice(job.reader.documents(unit), skip, None), job.max_bytes - read):
        part.add(batch)
        yield sum(map(len, batch))
        if part.bytes >= job.part_bytes:
            part.finish()
            place += 1
            part = part_at(place)
    part.finish()
    write_atomically(_end_of(job.directory, number), b"")


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


def _end_of(directory: Path, number: int) -> Path:
    """The file that marks a unit as complete."""
    return directory / f"{number:06d}.done"


def _indices(directory: Path, number: int) -> list[Path]:
    return sorted(directory.glob(f"{number:06d}.*.index.npy"))


def _bytes_of(directory: Path, number: int) -> int:
    """Text in the finished parts of a unit."""
    return sum(int(np.load(path, mmap_mode="r")["bytes"].sum()) for path in _indices(directory, number))


def _parts_up_to(directory: Path, units: int, max_bytes: float) -> list[Part]:
    """The parts of the first units that together have `max_bytes` of text."""
    parts: list[Part] = []
    read = 0
    for number in range(units):
        if read >= max_bytes:
            break
        parts += [Part(path.with_name(path.name.replace(".index.npy", ".bin"))) for path in _indices(directory, number)]
        read += _bytes_of(directory, number)
    return parts
