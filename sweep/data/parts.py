"""Files of token ids: the parts that a source is tokenised into, the training and held-out tokens gathered from them, and how
much these two overlap: no document is in both, but sentences and licences may be."""

import hashlib
import io
import mmap
import os
import resource
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sweep.data.mixture import Documents, Selection
from sweep.data.tokenizer import Tokenizer
from sweep.errors import InputError
from sweep.files import write_atomically
from sweep.machine import cores

WRITE_BYTES = 1 << 22  # gathered at once
MIN_LINE_BYTES = 16  # shorter lines do not distinguish documents
# A row for each document: half of its SHA-256, its tokens (the end of document included), its bytes, and its hashed lines.
INDEX = np.dtype([("digest", "S16"), ("tokens", np.uint32), ("bytes", np.uint32), ("lines", np.uint32)])
GRAM_BYTES = 64  # about the 13 words that GPT-3 was checked with (Brown et al., arXiv 2005.14165, appendix C)
BLOCK = 1 << 16  # tokens hashed at once, so that the hashes stay in the cache
FILTER_BITS = 22
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that multiplying loses no bit
_FOLD = bytes.maketrans(b"123456789", b"0" * 9)


@dataclass(frozen=True)
class Part:
    """Some documents of a unit: their ids in `path`, a .bin file; beside it .index.npy, and .lines.npy if lines are hashed."""

    path: Path

    def index(self) -> np.ndarray:
        """A row of `INDEX` for each document."""
        return np.load(self.path.with_suffix(".index.npy"))

    def lines(self) -> np.ndarray:
        """Hashes of the lines of all documents in their order, uint64."""
        return np.load(self.path.with_suffix(".lines.npy"))


class PartWriter:
    """One part, collected in memory and written by `finish` to `path`, its index last: a part with an index is complete. With
    `hash_lines`, hashes of lines are kept for near duplicates."""

    def __init__(self, path: Path, tokenizer: Tokenizer, *, hash_lines: bool) -> None:
        self.path, self.tokenizer, self.hash_lines, self.bytes = path, tokenizer, hash_lines, 0
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.end = np.array([tokenizer.end_of_document], dtype=self.dtype)
        self.ids: list[np.ndarray] = []
        self.rows: list[tuple] = []
        self.lines: list[np.ndarray] = []

    def add(self, documents: list[bytes]) -> None:
        """Encode documents. Raises InputError if the tokenizer gives an id beyond its vocabulary."""
        for document, ids in zip(documents, self.tokenizer.encode(documents), strict=True):
            if len(ids) and int(ids.max()) >= self.tokenizer.vocab_size:
                raise InputError(
                    f"data.tokenizer gave the id {int(ids.max()):,}, but its vocabulary has {self.tokenizer.vocab_size:,}; "
                    "fix its tokenizer.json"
                )
            lines = line_hashes(document) if self.hash_lines else np.empty(0, np.uint64)
            self.ids += [ids.astype(self.dtype), self.end]
            self.lines.append(lines)
            self.rows.append((hashlib.sha256(document).digest()[:16], len(ids) + 1, len(document), len(lines)))
            self.bytes += len(document)

    def finish(self) -> None:
        """Write the part, unless it is empty."""
        if not self.rows:
            return
        with open(self.path, "wb") as file:
            for ids in self.ids:
                file.write(ids)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        if self.hash_lines:
            _save(self.path.with_suffix(".lines.npy"), np.concatenate(self.lines))
        _save(self.path.with_suffix(".index.npy"), np.array(self.rows, dtype=INDEX))


def discard_unfinished(work: Path) -> None:
    """Remove what a build has half written into `work`; all of it if no part is finished."""
    finished = {path.name.removesuffix(".index.npy") for path in work.glob("[0-9]*/*.index.npy")}
    if not finished:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(work / "corpus", ignore_errors=True)
    for path in work.glob("[0-9]*/*"):
        if path.suffix != ".done" and ".".join(path.name.split(".")[:2]) not in finished:  # 000000.00000.bin and the like
            path.unlink(missing_ok=True)


def line_hashes(document: bytes) -> np.ndarray:
    """Hashes of a document's distinct lines of at least `MIN_LINE_BYTES`, sorted, uint64.

    Case, digits and surrounding space are ignored, as when CCNet compares paragraphs (Wenzek et al., arXiv 1911.00359).
    """
    folded = document.lower().translate(_FOLD)
    lines = {line.strip() for line in folded.split(b"\n")}
    hashes = [
        int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little") for line in lines if len(line) >= MIN_LINE_BYTES
    ]
    return np.array(sorted(hashes), dtype=np.uint64)


def token_dtype(vocab_size: int) -> np.dtype:
    """The type that ids are stored as."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def write_tokens(path: Path, blocks: Iterable[bytes], dtype: np.dtype) -> dict:
    """Write blocks of ids one after another; returns the number of tokens and their SHA-256 as in a manifest."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as out:
        for block in blocks:
            out.write(block)
            digest.update(block)
            size += len(block)
    return {"tokens": size // dtype.itemsize, "sha256": digest.hexdigest()}


def gather(chosen: Selection, documents: Documents, parts: list[Part], dtype: np.dtype, directory: Path) -> dict[str, dict]:
    """Write train.bin and validation.bin; returns the tokens and SHA-256 of each, by "train" and "validation"."""
    lengths = {"validation": chosen.cut, "train": documents.tokens[chosen.train]}
    rows = {"validation": chosen.validation, "train": chosen.train}
    _allow_open_files(len(parts))
    with ExitStack() as stack:
        views = []
        for part in parts:
            file = stack.enter_context(open(part.path, "rb"))
            views.append(memoryview(stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))))
            stack.callback(views[-1].release)

        def blocks(name: str) -> Iterator[bytes]:
            first = documents.start[rows[name]] * dtype.itemsize
            last = first + lengths[name] * dtype.itemsize
            sizes = np.cumsum(last - first)
            edges = np.searchsorted(sizes, np.arange(0, sizes[-1], WRITE_BYTES))
            for some in map(slice, edges, [*edges[1:], len(sizes)]):
                numbers = documents.part[rows[name][some]].tolist()
                places = zip(numbers, first[some].tolist(), last[some].tolist(), strict=True)
                yield b"".join([views[part][start:end] for part, start, end in places])

        return {name: write_tokens(directory / f"{name}.bin", blocks(name), dtype) for name in rows}


def _allow_open_files(more: int) -> None:
    """Raise the limit of open files as far as needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * more + 256  # a mapping keeps a descriptor in addition to the file's own
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _save(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())


def measure_overlap(directory: Path, dtype: np.dtype, bytes_per_token: float) -> dict:
    """The fraction of held-out n-grams that also occur in the training tokens, compared by 64-bit hashes.

    `directory` holds train.bin and validation.bin, with ids of type `dtype`. Returns {"tokens": n, "share": fraction of the
    n-grams at all held-out positions}; n is the power of two closest to `GRAM_BYTES` of text.
    """
    doublings = max(1, round(np.log2(GRAM_BYTES / bytes_per_token)))
    n = 2**doublings
    held_out = gram_hashes(np.fromfile(directory / "validation.bin", dtype=dtype), doublings)
    if not len(held_out):
        return {"tokens": n, "share": 0.0}
    wanted = np.unique(held_out)
    # A Bloom filter on the first bits of each hash: one look-up rules out nearly all n-grams that are not wanted.
    shift = np.uint64(64 - FILTER_BITS)
    maybe = np.zeros(2**FILTER_BITS, dtype=bool)
    maybe[wanted >> shift] = True
    found = np.zeros(len(wanted), dtype=bool)
    train = np.memmap(directory / "train.bin", dtype=dtype, mode="r")

    def look(start: int) -> None:
        hashes = gram_hashes(train[start : start + BLOCK + n - 1], doublings)
        hits = hashes[maybe[hashes >> shift]]
        places = np.minimum(np.searchsorted(wanted, hits), len(wanted) - 1)
        found[places[wanted[places] == hits]] = True

    with ThreadPoolExecutor(cores()) as threads:  # numpy releases the GIL
        list(threads.map(look, range(0, len(train), BLOCK)))
    return {"tokens": n, "share": float(found[np.searchsorted(wanted, held_out)].mean())}


def gram_hashes(ids: np.ndarray, doublings: int) -> np.ndarray:
    """A hash of the 2**doublings tokens from each position on, shape (positions,), uint64.

    It is a polynomial in an odd number modulo 2**64, built by joining two halves in each doubling. Its high bits are finally
    mixed into the low ones.
    """
    hashes, power = ids.astype(np.uint64), MULTIPLIER
    for i in range(doublings):
        half = 2**i
        joined = hashes[:-half] * np.uint64(power)
        joined += hashes[half:]
        hashes, power = joined, power * power % 2**64
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(MULTIPLIER)
    return hashes
