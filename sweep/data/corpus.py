"""A corpus on disk: a flat memmap of training tokens, one of held-out tokens, and a manifest that says what they are.

A corpus is named by the hash of its documents and its recipe, made once, and never changed. Its directory appears under
its final name only when it is complete, so a crash leaves nothing that looks finished.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sweep.data.sources import read_documents
from sweep.data.tokenizer import TOKENIZERS, BPETokenizer, ByteTokenizer, Tokenizer, load_tokenizer
from sweep.errors import InputError
from sweep.files import content_hash, temporary_beside, write_json

FORMAT = 1
ENCODE_DOCUMENTS = 1024  # documents handed to the tokenizer at once


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """What a corpus is made of.

    Attributes:
        source, paths: see `sweep.data.sources.read_documents`.
        tokenizer: "bytes" or "bpe".
        vocab_size: ids of a BPE, the end of document included; bytes have 257.
        validation_tokens: length of the held-out part, taken from whole documents that training never sees.
        shuffle_seed: seed of the order of the documents.
    """

    source: str = "stdlib"
    paths: list[str] = field(default_factory=list)
    tokenizer: str = "bytes"
    vocab_size: int = 257
    validation_tokens: int = 131_072
    shuffle_seed: int = 0


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
        return load_tokenizer(self.manifest["tokenizer"], self.directory)


@dataclass(frozen=True)
class CorpusRecipe:
    """A corpus that may not be made yet: its documents, read and in order, and what to do with them."""

    spec: CorpusSpec
    documents: list[bytes]

    @classmethod
    def read(cls, spec: CorpusSpec) -> "CorpusRecipe":
        """Read the documents of `spec`, drop exact duplicates, and shuffle them by its seed.

        Raises:
            InputError: if the source or the tokenizer is unknown, or there is no text.
        """
        if spec.tokenizer not in TOKENIZERS:
            raise InputError(f"data.tokenizer={spec.tokenizer!r} is none of {', '.join(TOKENIZERS)}")
        unique = {hashlib.sha256(document).digest(): document for document in read_documents(spec.source, spec.paths)}
        if not unique:
            raise InputError(f"data.source={spec.source!r} holds no text; name other data.paths")
        # Sorting by content first makes the order independent of file names.
        in_order = [unique[key] for key in sorted(unique)]
        return cls(spec, [in_order[i] for i in np.random.default_rng(spec.shuffle_seed).permutation(len(in_order))])

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the tokens, known before they are made."""
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(len(document).to_bytes(8, "little"))
            digest.update(document)
        recipe = {"format": FORMAT, "documents": digest.hexdigest(), "tokenizer": self.spec.tokenizer}
        recipe["validation_tokens"] = self.spec.validation_tokens
        if self.spec.tokenizer == "bpe":  # another release of the library may learn other merges
            recipe |= {"vocab_size": self.spec.vocab_size, "tokenizers": version("tokenizers")}
        return content_hash(recipe)

    def find(self, root: Path) -> Corpus | None:
        """The corpus, if it has been made under `root`."""
        return Corpus.open(root / self.fingerprint) if (root / self.fingerprint).exists() else None

    def training_tokens(self, root: Path) -> int:
        """Tokens to train on; before the corpus is made an upper bound, as no token is shorter than a byte.

        Raises:
            InputError: if the held-out part would leave nothing.
        """
        if corpus := self.find(root):
            return corpus.manifest["parts"]["train"]["tokens"]
        if (tokens := sum(len(document) + 1 for document in self.documents)) <= self.spec.validation_tokens:
            raise _too_short(tokens, self.spec)
        return tokens - self.spec.validation_tokens

    def build(self, root: Path) -> Corpus:
        """The corpus under `root`: the one that is there, or a new one.

        Raises:
            InputError: if the text is too short for the held-out part and some training.
        """
        if corpus := self.find(root):
            return corpus
        final = root / self.fingerprint
        temporary = temporary_beside(final)
        try:
            temporary.mkdir(parents=True)
            manifest = _write_tokens(self.spec, self.documents, temporary)
            write_json(temporary / "manifest.json", {"fingerprint": self.fingerprint, **manifest})
            try:
                os.rename(temporary, final)
            except OSError:
                if not final.exists():  # else another process made the same corpus first, and it is as good as ours
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Corpus.open(final)


def _write_tokens(spec: CorpusSpec, documents: list[bytes], directory: Path) -> dict:
    """Tokenise into `directory`; the first documents, as many as it takes, are the held-out part."""
    tokenizer: Tokenizer = ByteTokenizer()
    if spec.tokenizer == "bpe":
        # The held-out documents are not known before they are tokenised; a token is seldom more than 8 bytes long.
        end = np.cumsum([len(document) for document in documents])
        tokenizer = BPETokenizer.train(
            [document for document, at in zip(documents, end, strict=True) if at > 8 * spec.validation_tokens],
            spec.vocab_size,
        )
    tokenizer.save(directory)
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)

    lengths = {"validation": 0, "train": 0}
    digests = {part: hashlib.sha256() for part in lengths}
    wanted = spec.validation_tokens + 1  # a window of T inputs needs T + 1 tokens
    with open(directory / "validation.bin", "wb") as validation, open(directory / "train.bin", "wb") as train:
        files = {"validation": validation, "train": train}
        for start in range(0, len(documents), ENCODE_DOCUMENTS):
            for ids in tokenizer.encode(documents[start : start + ENCODE_DOCUMENTS]):
                document = np.append(ids, tokenizer.end_of_document).astype(dtype)
                part = "validation" if lengths["validation"] < wanted else "train"
                if part == "validation":  # the rest of the document that fills it is dropped, not trained on
                    document = document[: wanted - lengths["validation"]]
                files[part].write(document.tobytes())
                digests[part].update(document.tobytes())
                lengths[part] += len(document)
    if lengths["validation"] < wanted or lengths["train"] == 0:
        raise _too_short(sum(lengths.values()), spec)
    parts = {part: {"tokens": lengths[part], "sha256": digests[part].hexdigest()} for part in lengths}
    return {
        "spec": asdict(spec),
        "tokenizer": spec.tokenizer,
        "vocab_size": tokenizer.vocab_size,
        "documents": len(documents),
        "bytes": sum(map(len, documents)),
        "dtype": dtype.name,
        "parts": parts,
    }


def _too_short(tokens: int, spec: CorpusSpec) -> InputError:
    return InputError(
        f"data: the corpus has only {tokens:,} tokens, too few for data.validation_tokens={spec.validation_tokens:,} and "
        "training; lower it, or bring more text"
    )
