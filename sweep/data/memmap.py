"""A corpus of existing tokens: flat files of ids, such as nanoGPT's and llm.c's .bin files, or .npy files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sweep.config import CorpusSpec, MemmapConfig
from sweep.data.mixture import TooShortError
from sweep.data.parts import measure_overlap, token_dtype, write_tokens
from sweep.data.sources.paths import expand, file_identity
from sweep.data.tokenizer import Tokenizer, ready_tokenizer
from sweep.errors import InputError, explained

BLOCK = 1 << 24  # ids copied at once
# The number that llm.c's files begin with says what their ids are: of GPT-2's and of Llama 3's vocabulary.
LLMC_MAGIC, LLMC_HEADER_BYTES = {20240520: "uint16", 20240801: "uint32"}, 1024
NPY_MAGIC, NPZ_MAGIC = b"\x93NUMPY", b"PK\x03\x04"


@dataclass(frozen=True)
class MemmapContents:
    """Contents of a corpus made from files of ids; see `sweep.data.corpus.Contents`.

    Attributes:
        spec: the corpus.
        memmap: the format of the files.
        train, validation: the ids of each file; without validation files, the end of the training files is held out.
        tokenizer: the one that made the ids, if it is named.
    """

    spec: CorpusSpec
    memmap: MemmapConfig
    train: list[np.ndarray]
    validation: list[np.ndarray]
    tokenizer: Tokenizer | None

    @classmethod
    def read(cls, spec: CorpusSpec) -> "MemmapContents":
        """Open the files and check the first and last ids of each. Raises InputError if a file is missing, empty, of another
        length or type than declared, or has ids beyond the vocabulary."""
        memmap = spec.memmap or MemmapConfig()
        tokenizer = ready_tokenizer(spec) if spec.tokenizer != "none" else None
        if spec.tokenizer == "bpe":
            raise InputError(
                "data.tokenizer=bpe: there is no text to train it on; name the tokenizer that made the tokens, or none"
            )
        if tokenizer is not None and tokenizer.vocab_size > spec.vocab_size:
            raise InputError(
                f"data.vocab_size={spec.vocab_size:,} is less than the {tokenizer.vocab_size:,} ids of "
                f"data.tokenizer={spec.tokenizer}; declare the vocabulary that the tokens were made with"
            )
        opened = []
        for paths in (spec.paths, memmap.validation_paths):
            endings = tuple(spec.suffixes or (".bin", ".npy"))
            files = expand(paths, endings, "data") if paths or paths is spec.paths else []
            opened.append([_open(path, memmap) for path in files])
            for path, ids in zip(files, opened[-1], strict=True):
                _check(np.concatenate([ids[: BLOCK // 16], ids[-BLOCK // 16 :]]), spec.vocab_size, path)
        return cls(spec, memmap, opened[0], opened[1], tokenizer)

    @property
    def vocab_size(self) -> int:
        return self.spec.vocab_size

    def identity(self) -> dict:
        paths = [Path(str(ids.filename)) for ids in (*self.train, *self.validation)]  # type: ignore[attr-defined]
        formats = [list(_format(path, self.memmap)) for path in paths if not _is_npy(path)]
        same = all(each == formats[0] for each in formats)
        dtype, header_bytes = formats[0] if formats and same else (self.memmap.dtype, self.memmap.header_bytes)
        return {
            "format": 2,
            "tokens": [[file_identity(Path(str(ids.filename))) for ids in part] for part in (self.train, self.validation)],  # type: ignore[attr-defined]
            "dtype": dtype,
            "header_bytes": header_bytes,
            **({} if same else {"formats": formats}),
            "vocab_size": self.spec.vocab_size,
            "tokenizer": None if self.tokenizer is None else self.tokenizer.identity(),
            "validation_tokens": self.spec.validation_tokens,
        }

    def training_tokens(self) -> float:
        total = sum(map(len, self.train))
        held_out = self.spec.validation_tokens + 1
        if (sum(map(len, self.validation)) if self.validation else total - 1) < held_out:
            raise TooShortError(sum(map(len, self.validation or self.train)), self.spec.validation_tokens)
        return total if self.validation else total - held_out

    def size(self) -> float:
        return sum(ids.nbytes for ids in (*self.train, *self.validation))

    def write(self, directory: Path, work: Path, workers: int | None, advance: Callable[[int], None]) -> dict:
        """Copy the ids, each checked. Raises InputError if one is beyond the vocabulary, or there are too few."""
        train_tokens, dtype = int(self.training_tokens()), token_dtype(self.vocab_size)
        start, held_out = 0 if self.validation else train_tokens, self.spec.validation_tokens + 1
        parts = {
            "train": self._copy(directory / "train.bin", self.train, 0, train_tokens, advance),
            "validation": self._copy(directory / "validation.bin", self.validation or self.train, start, held_out, advance),
        }
        bytes_per_token = self.memmap.bytes_per_token
        if self.tokenizer is not None:
            self.tokenizer.save(directory)
            held = np.fromfile(directory / "validation.bin", dtype=dtype)
            bytes_per_token = len(self.tokenizer.decode(held.tolist()).encode()) / len(held)
        return {
            "tokenizer": self.spec.tokenizer,
            "end_of_document": None if self.tokenizer is None else self.tokenizer.end_of_document,
            "vocab_size": self.vocab_size,
            "bytes_per_token": bytes_per_token,
            "dtype": dtype.name,
            "parts": parts,
            "overlap": measure_overlap(directory, dtype, bytes_per_token or 4.0),
        }

    def _copy(self, path: Path, files: list[np.ndarray], start: int, tokens: int, advance: Callable[[int], None]) -> dict:
        """Copy `tokens` ids from position `start` of the concatenated files, in blocks."""
        dtype = token_dtype(self.vocab_size)

        def blocks() -> Iterator[bytes]:
            skipped, left = start, tokens
            for ids in files:
                wanted = ids[skipped : skipped + left]
                for block in (wanted[at : at + BLOCK] for at in range(0, len(wanted), BLOCK)):
                    _check(block, self.vocab_size, Path(str(ids.filename)))  # type: ignore[attr-defined]
                    yield block.astype(dtype).tobytes()
                    advance(block.nbytes)
                skipped, left = max(0, skipped - len(ids)), left - len(wanted)

        return write_tokens(path, blocks(), dtype)


def _open(path: Path, memmap: MemmapConfig) -> np.ndarray:
    """The ids of a file as a read-only memmap of shape (tokens,)."""
    if _is_npy(path):
        errors = (ValueError, OSError, EOFError)
        with explained(f"data.paths: {path} is not a .npy file", "write it again, or leave it out", errors):
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
            raise InputError(
                f"data.paths: {path} has shape {ids.shape} and type {ids.dtype}; it must be a flat array of integer ids"
            )
        return ids
    size, (name, header_bytes) = path.stat().st_size, _format(path, memmap)
    if (size - header_bytes) % np.dtype(name).itemsize or size <= header_bytes:
        raise InputError(
            f"data.paths: {path} has {size:,} bytes, which is not data.memmap.header_bytes={header_bytes} "
            f"plus whole ids of data.memmap.dtype={name}; declare both as the file was written"
        )
    return np.memmap(path, dtype=name, mode="r", offset=header_bytes)


def _is_npy(path: Path) -> bool:
    """Whether a file has numpy's header; OLMo's .npy files are ids alone. Raises InputError if it is an archive of numpy's."""
    start = _start(path)
    if path.suffix == ".npy" and start.startswith(NPZ_MAGIC):
        raise InputError(f"data.paths: {path} is not a .npy file, but an archive of several; save its ids with numpy.save")
    return start.startswith(NPY_MAGIC)


def _format(path: Path, memmap: MemmapConfig) -> tuple[str, int]:
    """The type of the ids of a file without numpy's header, and where they begin: as declared, or as llm.c's header says.
    Raises InputError if nothing is declared, and that header says another length than the file has."""
    declared = memmap.dtype, memmap.header_bytes
    if len(start := _start(path)) < 12 or memmap.header_bytes not in (0, LLMC_HEADER_BYTES):
        return declared
    magic, _, count = np.frombuffer(start, dtype="<i4").tolist()
    if (dtype := LLMC_MAGIC.get(magic)) is None:
        return declared
    expected, size = LLMC_HEADER_BYTES + count * np.dtype(dtype).itemsize, path.stat().st_size
    if size == expected:
        return dtype, LLMC_HEADER_BYTES
    if memmap.header_bytes:
        return declared
    problem = f"data.paths: {path} has the header of llm.c for {count:,} ids of {dtype}, which make {expected:,} bytes"
    raise InputError(f"{problem}, but has {size:,}; copy it again, or leave it out")


def _start(path: Path) -> bytes:
    with (
        explained(f"data.paths: {path} cannot be read", "make it readable, or leave it out", OSError),
        open(path, "rb") as file,
    ):
        return file.read(12)


def _check(ids: np.ndarray, vocab_size: int, path: Path) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"data.paths: {path} has the id {high if high >= vocab_size else low:,}, outside data.vocab_size={vocab_size:,}; "
            "declare the vocabulary, dtype and header_bytes that the tokens were made with"
        )
