"""A corpus on disk: a flat memmap of training tokens, one of held-out tokens, and a manifest that says what they are.

A corpus is named by the hash of its documents and its recipe, made once, and never changed. Its directory appears under
its final name only when it is complete, so a crash leaves nothing that looks finished.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from sweep.config import CorpusSpec
from sweep.data.memmap import MemmapContents
from sweep.data.mixture import TooShortError
from sweep.data.synthetic import SyntheticContents
from sweep.data.text import TextContents
from sweep.data.tokenizer import Tokenizer, load_tokenizer
from sweep.errors import InputError
from sweep.files import content_hash, write_json


class Contents(Protocol):
    """What a corpus is made of."""

    @property
    def vocab_size(self) -> int: ...

    def identity(self) -> dict:
        """What it is, as plain JSON, known before it is made."""
        ...

    def training_tokens(self) -> float:
        """No less than there will be to train on; infinite if that is not known."""
        ...

    def size(self) -> float:
        """Bytes to read, about; infinite if that is not known."""
        ...

    def write(self, directory: Path, work: Path, workers: int | None = None, advance: Callable[[int], None] = ...) -> dict:
        """Write the token files into `directory` and return the manifest; `work` keeps what a later start can use."""
        ...


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A finished corpus.

    Attributes:
        directory: where it lies.
        manifest: source, tokenizer, vocabulary, counts and SHA-256 of the two token files.
    """

    directory: Path
    manifest: dict

    @classmethod
    def open(cls, directory: Path) -> "Corpus":
        """Raises InputError if the manifest is damaged, or the token files are not as long as it says."""
        try:
            corpus = cls(directory=directory, manifest=json.loads((directory / "manifest.json").read_text()))
            width = np.dtype(corpus.manifest["dtype"]).itemsize
            lengths = {part: corpus.manifest["parts"][part]["tokens"] * width for part in ("train", "validation")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"corpus {directory} is damaged ({error}); delete it and it will be made again") from error
        for part, expected in lengths.items():
            if not (directory / f"{part}.bin").exists():
                raise InputError(f"corpus {directory} lacks {part}.bin; delete it and it will be made again")
            if (actual := (directory / f"{part}.bin").stat().st_size) != expected:
                raise InputError(
                    f"corpus {directory / part}.bin has {actual} bytes where its manifest says {expected}; "
                    f"delete {directory} and it will be made again"
                )
        return corpus

    def verify(self) -> None:
        """Read all tokens once. Raises InputError if they are not those that the manifest was made for."""
        for part, expected in self.manifest["parts"].items():
            with open(self.directory / f"{part}.bin", "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected["sha256"]:
                raise InputError(
                    f"corpus {self.directory / part}.bin is not what it was when it was made (SHA-256 {found[:16]}…, not "
                    f"{expected['sha256'][:16]}…); delete {self.directory} and it will be made again"
                )

    @property
    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    @property
    def vocab_size(self) -> int:
        return self.manifest["vocab_size"]

    def tokens(self, part: str) -> np.ndarray:
        """The ids of "train" or "validation" as a read-only memmap."""
        return np.memmap(self.directory / f"{part}.bin", dtype=self.manifest["dtype"], mode="r")

    def tokenizer(self) -> Tokenizer:
        """Raises InputError if it is not the one of the manifest."""
        return load_tokenizer(self.manifest, self.directory)

    @property
    def bytes_per_token(self) -> float | None:
        """Of the text behind the held-out tokens; None if nobody knows."""
        return self.manifest.get("bytes_per_token")


@dataclass(frozen=True)
class CorpusRecipe:
    """A corpus that may not be made yet."""

    spec: CorpusSpec
    contents: Contents

    @classmethod
    def read(cls, spec: CorpusSpec) -> "CorpusRecipe":
        """Find what `spec` names, and look into it as far as that is quick.

        Raises:
            InputError: if a source or the tokenizer is unknown or unusable, or there is no text.
        """
        if spec.source == "tokens":
            return cls(spec, MemmapContents.read(spec))
        if spec.source == "synthetic":
            return cls(spec, SyntheticContents.read(spec))
        return cls(spec, TextContents.read(spec))

    @property
    def vocab_size(self) -> int:
        return self.contents.vocab_size

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the tokens, known before they are made."""
        return content_hash(self.contents.identity())

    def find(self, root: Path) -> Corpus | None:
        """The corpus, if it has been made under `root`."""
        return Corpus.open(root / self.fingerprint) if (root / self.fingerprint).exists() else None

    def training_tokens(self, root: Path) -> float:
        """Tokens to train on; before the corpus is made an upper bound, as no token is shorter than a byte.

        Raises:
            InputError: if the held-out part would leave nothing.
        """
        if corpus := self.find(root):
            return corpus.manifest["parts"]["train"]["tokens"]
        return self.contents.training_tokens()

    def build(self, root: Path, *, workers: int | None = None, advance: Callable[[int], None] = lambda size: None) -> Corpus:
        """The corpus under `root`: the one that is there, or a new one. What a killed process has tokenised is taken up.

        Args:
            root: of all corpora.
            workers: processes that tokenise; by default one for each core.
            advance: told how many more bytes are done.

        Raises:
            InputError: if a document cannot be read, or there is too little text for the held-out part and some training.
        """
        work = root / f".{self.fingerprint}.partial"
        while (corpus := self.find(root)) is None:
            with _alone_in(work) as alone:
                if alone and self.find(root) is None:
                    self._make(root / self.fingerprint, work, workers, advance)
        return corpus

    def _make(self, final: Path, work: Path, workers: int | None, advance: Callable[[int], None]) -> None:
        temporary = work / "corpus"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            manifest = self.contents.write(temporary, work, workers, advance)
        except TooShortError:
            shutil.rmtree(work)
            raise
        manifest = {"fingerprint": self.fingerprint, "spec": _spec_of(self.spec), **manifest}
        write_json(temporary / "manifest.json", manifest)
        os.rename(temporary, final)
        shutil.rmtree(work)


def _spec_of(spec: CorpusSpec) -> dict:
    """The fields of a `CorpusSpec`, without those that a sweep adds."""
    return {name: value for name, value in asdict(spec).items() if name in CorpusSpec.__dataclass_fields__}


@contextmanager
def _alone_in(directory: Path) -> Iterator[bool]:
    """Make `directory` and wait until no other process works in it; False if one has removed it meanwhile.

    The lock is the kernel's: it ends with the process that holds it, however that ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = open(directory / "lock", "w")  # noqa: SIM115
    except FileNotFoundError:
        yield False
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            still_there = os.path.samestat(os.stat(directory / "lock"), os.fstat(lock.fileno()))
        except FileNotFoundError:
            still_there = False
        yield still_there
