"""Tokenise the units of a source in parallel, into parts on disk that a later start takes up.

A part is two files: the ids of some 64 MB of text, and an index with a row for each document. The index is written last, so a
part with one is whole; what a killed process leaves besides is written again. Memory: the batches being encoded, and one part
for each worker.
"""

import hashlib
import io
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

from sweep.data.sources import Reader
from sweep.data.tokenizer import Tokenizer
from sweep.errors import InputError
from sweep.files import write_atomically

ENCODE_BYTES = 1 << 22  # handed to the tokenizer at once
ENCODE_DOCUMENTS = 1024
PART_BYTES = 1 << 26  # of text in a part
MAX_PARTS = 512  # of a source whose size is known; each is kept open while the corpus is written
ALONE_BYTES = 1 << 25  # less text than this is not worth starting processes for
SHORTEST_LINE = 16  # bytes of a line that can tell two documents apart
# A row for each document: half of its SHA-256, its tokens (the end of document included), its bytes, and its lines that count.
INDEX = np.dtype([("digest", "S16"), ("tokens", np.uint32), ("bytes", np.uint32), ("lines", np.uint32)])


@dataclass(frozen=True)
class Part:
    """Some documents of a unit: their ids in `path`, a .bin file; beside it .index.npy and perhaps .lines.npy."""

    path: Path

    def index(self) -> np.ndarray:
        """A row of `INDEX` for each document."""
        return np.load(self.path.with_suffix(".index.npy"))

    def lines(self) -> np.ndarray:
        """Hashes of the lines of all documents in their order, uint64."""
        return np.load(self.path.with_suffix(".lines.npy"))


@dataclass(frozen=True)
class Job:
    """How the units of one source become parts.

    Attributes:
        reader: gives the documents.
        tokenizer: encodes them.
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
    """All parts of a source, in its order; those that an earlier start finished are left as they are.

    Args:
        reader, tokenizer: what to encode and how.
        directory: where parts go; one for each source, tokenizer and the two options below.
        max_bytes: stop once the units so far have as much text.
        lines: keep hashes of lines, for near duplicates.
        workers: processes; by default one for each core, and none for a few megabytes.
        advance: told how many more bytes of text are done.

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
    """Give the units of `todo` to processes, in order, until those done from the first on have `max_bytes`."""
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
    """Whether the units that are done, from the first on without a gap, have as much text as is wanted."""
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
    """In a new process: take the job, and end when the parent does, even by SIGKILL."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
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
    """Write the parts of a unit that are not there yet; yields how much text it encoded, batch by batch."""
    before = [np.load(path, mmap_mode="r") for path in _indices(job.directory, number)]
    skip, read = sum(map(len, before)), sum(int(index["bytes"].sum()) for index in before)
    part = _PartWriter(job, number, len(before))
    for batch in _batches(islice(job.reader.documents(unit), skip, None), job.max_bytes - read):
        part.add(batch)
        yield sum(map(len, batch))
        if part.bytes >= job.part_bytes:
            part.finish()
            part = _PartWriter(job, number, part.place + 1)
    part.finish()
    write_atomically(_end_of(job.directory, number), b"")


def _batches(documents: Iterator[bytes], most: float) -> Iterator[list[bytes]]:
    """Documents by the batch, until there are `most` bytes of them."""
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


class _PartWriter:
    """One part, collected in memory and written at its end."""

    def __init__(self, job: Job, number: int, place: int) -> None:
        self.job, self.place, self.bytes = job, place, 0
        self.path = job.directory / f"{number:06d}.{place:05d}.bin"
        self.dtype = token_dtype(job.tokenizer.vocab_size)
        self.end = np.array([job.tokenizer.end_of_document], dtype=self.dtype)
        self.ids: list[np.ndarray] = []
        self.rows: list[tuple] = []
        self.lines: list[np.ndarray] = []

    def add(self, documents: list[bytes]) -> None:
        for document, ids in zip(documents, self.job.tokenizer.encode(documents), strict=True):
            if len(ids) and int(ids.max()) >= self.job.tokenizer.vocab_size:
                raise InputError(
                    f"data.tokenizer gave the id {int(ids.max()):,} and says that it has {self.job.tokenizer.vocab_size:,}; "
                    "mend its tokenizer.json"
                )
            lines = line_hashes(document) if self.job.lines else np.empty(0, np.uint64)
            self.ids += [ids.astype(self.dtype), self.end]
            self.lines.append(lines)
            self.rows.append((hashlib.sha256(document).digest()[:16], len(ids) + 1, len(document), len(lines)))
            self.bytes += len(document)

    def finish(self) -> None:
        if not self.rows:
            return
        with open(self.path, "wb") as file:
            for ids in self.ids:
                file.write(ids)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        if self.job.lines:
            _save(self.path.with_suffix(".lines.npy"), np.concatenate(self.lines))
        _save(self.path.with_suffix(".index.npy"), np.array(self.rows, dtype=INDEX))


def line_hashes(document: bytes) -> np.ndarray:
    """Hashes of the different lines of a document that are long enough to mean something, as if in lower case, with every
    number alike and without the space around them (as CCNet compares paragraphs, arXiv 1911.00359), uint64."""
    folded = document.lower().translate(_FOLD)
    lines = {line.strip() for line in folded.split(b"\n")}
    hashes = [
        int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little") for line in lines if len(line) >= SHORTEST_LINE
    ]
    return np.array(sorted(hashes), dtype=np.uint64)


_FOLD = bytes.maketrans(b"123456789", b"0" * 9)


def token_dtype(vocab_size: int) -> np.dtype:
    """What ids are stored as."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def _save(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())


def _end_of(directory: Path, number: int) -> Path:
    """The file that says that a unit has all its parts."""
    return directory / f"{number:06d}.done"


def _indices(directory: Path, number: int) -> list[Path]:
    return sorted(directory.glob(f"{number:06d}.*.index.npy"))


def _bytes_of(directory: Path, number: int) -> int:
    """Text in the parts of a unit that are there."""
    return sum(int(np.load(path, mmap_mode="r")["bytes"].sum()) for path in _indices(directory, number))


def _parts_up_to(directory: Path, units: int, max_bytes: float) -> list[Part]:
    """The parts of the first units that have `max_bytes` of text between them."""
    parts: list[Part] = []
    read = 0
    for number in range(units):
        if read >= max_bytes:
            break
        parts += [Part(path.with_name(path.name.replace(".index.npy", ".bin"))) for path in _indices(directory, number)]
        read += _bytes_of(directory, number)
    return parts
