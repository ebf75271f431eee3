"""A corpus on disk: a flat file of training tokens, one of held-out tokens, and a manifest that describes them.

A corpus is named by the hash of its documents and its recipe, built once, and never changed. Its directory gets its final
name only when it is complete, so a crash leaves nothing that looks finished.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from sweep.claim import alone
from sweep.config import CorpusSpec
from sweep.config.fields import check_fields
from sweep.data.memmap import MemmapContents
from sweep.data.mixture import TooShortError
from sweep.data.parts import discard_unfinished
from sweep.data.sources import named
from sweep.data.sources.reader import SOURCES, Skipped
from sweep.data.synthetic import SyntheticContents
from sweep.data.text import Advance, TextContents
from sweep.data.tokenizer import Tokenizer, load_tokenizer
from sweep.errors import InputError, explained
from sweep.files import content_hash, is_disk_full, read_json, write_sealed
from sweep.words import counted


class Contents(Protocol):
    """What a corpus is made of, and how its token files are written."""

    @property
    def vocab_size(self) -> int: ...

    def identity(self) -> dict:
        """What the corpus is, as plain JSON, known before it is built. Its hash is the fingerprint."""
        ...

    def training_tokens(self) -> float:
        """An upper bound on the tokens to train on; infinite if unknown."""
        ...

    def size(self) -> float:
        """Roughly how many bytes there are to read; infinite if unknown."""
        ...

    def write(self, directory: Path, work: Path, workers: int | None, advance: Advance) -> dict:
        """Write the token files into `directory` and return the manifest; `work` is kept for a later start after a crash."""
        ...


# By data.source, besides `SOURCES`: any source of documents can be a corpus of its own.
CONTENTS: dict[str, Callable[[CorpusSpec], Contents]] = {
    "mixture": TextContents.read,
    "tokens": MemmapContents.read,
    "synthetic": SyntheticContents.read,
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A finished corpus.

    Attributes:
        directory: that holds train.bin, validation.bin, manifest.json and perhaps tokenizer.json.
        manifest: source, tokenizer, vocabulary size, and counts and SHA-256 of the two token files.
    """

    directory: Path
    manifest: dict

    @classmethod
    def open(cls, directory: Path) -> "Corpus":
        """Open a finished corpus. Raises InputError if the manifest is damaged, or a token file has another length."""
        remedy = f"delete {directory} and it will be built again"
        with explained(f"corpus {directory} is damaged", remedy, (OSError, ValueError, KeyError, TypeError)):
            manifest = read_json(directory / "manifest.json", dict, remedy)
            width = np.dtype(manifest["dtype"]).itemsize
            lengths = {directory / f"{part}.bin": manifest["parts"][part]["tokens"] * width for part in ("train", "validation")}
        for path, expected in lengths.items():
            if not path.exists():
                raise InputError(f"corpus {directory} lacks {path.name}; {remedy}")
            if (actual := path.stat().st_size) != expected:
                raise InputError(f"corpus {path} has {actual:,} bytes, but its manifest says {expected:,}; {remedy}")
        return cls(directory=directory, manifest=manifest)

    def verify(self) -> None:
        """Read all tokens once. Raises InputError if their hashes are not those of the manifest."""
        for part, expected in self.manifest["parts"].items():
            with open(self.directory / f"{part}.bin", "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected["sha256"]:
                raise InputError(
                    f"corpus {self.directory / part}.bin has changed since it was built (SHA-256 {found[:16]}…, not "
                    f"{expected['sha256'][:16]}…); delete {self.directory} and it will be built again"
                )

    @property
    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    @property
    def vocab_size(self) -> int:
        return self.manifest["vocab_size"]

    def tokens(self, part: str) -> np.ndarray:
        """The ids of "train" or "validation" as a read-only memmap, the same one in all calls of a process."""
        return _mapped(self.directory / f"{part}.bin", self.manifest["dtype"])

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the corpus. Raises InputError if there is none, or it is not that of the manifest."""
        return load_tokenizer(self.manifest, self.directory)

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of held-out text per held-out token; None if unknown."""
        return self.manifest.get("bytes_per_token")

    def left_out(self) -> str:
        """Which documents of its sources are not in it, in words: why it is shorter than they are. Empty if all are."""
        reasons = {
            "duplicates": ("duplicate", "; data.deduplicate=false keeps them"),
            "near_duplicates": ("near duplicate", ""),
            "not_needed": ("document", "; the weights and epochs do not ask for them"),
        }
        total, sizes = self.manifest.get("bytes", 0), self.manifest.get("left_out_bytes", {})
        said = []
        for reason, count in self.manifest.get("left_out", {}).items():
            if count and reason in reasons:
                noun, more = reasons[reason]
                share = f"{sizes[reason] / total:.1%} of the bytes" if total and reason in sizes else ""
                said.append(f"{counted(count, noun)} ({share}{more})" if share else counted(count, noun))
        said += [f"{name}: {Skipped(**each)}" for name, each in self.manifest.get("skipped", {}).items() if each["documents"]]
        return ", ".join(said)


@lru_cache(maxsize=4)
def _mapped(path: Path, dtype: str) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r")


@dataclass(frozen=True)
class CorpusRecipe:
    """A corpus that may not be built yet."""

    spec: CorpusSpec
    contents: Contents

    @classmethod
    def read(cls, spec: CorpusSpec) -> "CorpusRecipe":
        """Find what `spec` names, and check as much of it as is quick. Raises InputError if a field is out of range, a source
        or the tokenizer is unknown or unusable, or there is no text."""
        check_fields(spec, "data.")
        known = {**dict.fromkeys(SOURCES, TextContents.read), **CONTENTS}
        return cls(spec, named(known, spec.source, "data.source")(spec))

    @property
    def vocab_size(self) -> int:
        return self.contents.vocab_size

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the tokens, known before they are written; 16 hex digits."""
        return content_hash(self.contents.identity())

    def find(self, root: Path) -> Corpus | None:
        """The corpus, if it has been built under `root`."""
        return Corpus.open(root / self.fingerprint) if (root / self.fingerprint).exists() else None

    def training_tokens(self, root: Path) -> float:
        """Tokens to train on; before the corpus is built an upper bound. Raises InputError if the held-out part leaves none."""
        if corpus := self.find(root):
            return corpus.manifest["parts"]["train"]["tokens"]
        return self.contents.training_tokens()

    def build(self, root: Path, *, workers: int | None = None, advance: Advance = lambda size, doing="": None) -> Corpus:
        """The corpus under `root`, built if it is not there. Parts that a killed process has tokenised are used again. Raises
        InputError if a document cannot be read, there is too little text for the held-out part and some training, or the disk
        is full.

        Args:
            root: the folder of all corpora.
            workers: processes that tokenise; by default one for each core.
            advance: called with the bytes finished since the last call, and what goes on.
        """
        work = root / f".{self.fingerprint}.partial"
        try:
            while (corpus := self.find(root)) is None:
                with alone(work / "claim"):
                    if self.find(root) is None:
                        self._make(root / self.fingerprint, work, workers, advance)
                    shutil.rmtree(work, ignore_errors=True)
        except OSError as error:
            if not is_disk_full(error):
                raise
            kept = sum(path.stat().st_size for path in work.glob("[0-9]*/*"))
            more = f" (the launch goes on from the {kept / 1e6:,.0f} MB that are done and kept in {work})" if kept else ""
            problem = f"store: the disk of {root} is full, so the text cannot be tokenised there"
            raise InputError(f"{problem}; make room and launch again{more}, or choose another store=…") from error
        return corpus

    def _make(self, final: Path, work: Path, workers: int | None, advance: Advance) -> None:
        temporary = work / "corpus"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            manifest = self.contents.write(temporary, work, workers, advance)
            spec = {name: value for name, value in asdict(self.spec).items() if name in CorpusSpec.__dataclass_fields__}
            write_sealed(temporary / "manifest.json", {"fingerprint": self.fingerprint, "spec": spec, **manifest})
        except TooShortError:
            shutil.rmtree(work)
            raise
        except OSError as error:
            if is_disk_full(error):
                discard_unfinished(work)
            raise
        os.rename(temporary, final)
