"""Documents to token ids. Every tokenizer ends a document with the id `end_of_document`, its last."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sweep.errors import InputError

TOKENIZERS = ("bytes", "bpe")
BYTES = 256


class Tokenizer(Protocol):
    """Turns UTF-8 documents into ids below `vocab_size`, losslessly."""

    vocab_size: int

    @property
    def end_of_document(self) -> int: ...

    def encode(self, documents: Sequence[bytes]) -> list[np.ndarray]:
        """One array of ids for each document, without the end-of-document id."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def save(self, directory: Path) -> None: ...


class ByteTokenizer:
    """Each byte is its own token; 256 ends a document."""

    vocab_size = BYTES + 1
    end_of_document = BYTES

    def encode(self, documents: Sequence[bytes]) -> list[np.ndarray]:
        return [np.frombuffer(document, dtype=np.uint8).astype(np.uint16) for document in documents]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < BYTES).decode("utf-8", errors="replace")

    def save(self, directory: Path) -> None:
        """Nothing to keep: the vocabulary is the bytes."""


class BPETokenizer:
    """Byte-level byte-pair encoding (the `tokenizers` library): numbers are split into single digits, as in LLaMA, and
    what no merge covers falls back to its bytes, so that no character is unknown."""

    END_OF_DOCUMENT = "<|end_of_document|>"
    FILE = "tokenizer.json"

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Library

        self._set(Library.from_file(str(path)))

    def _set(self, library: Any) -> None:
        self.library = library
        self.vocab_size = library.get_vocab_size()

    @property
    def end_of_document(self) -> int:
        return self.library.token_to_id(self.END_OF_DOCUMENT)

    @classmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int) -> "BPETokenizer":
        """Learn merges until there are `vocab_size` ids, the 256 bytes and the end of document included.

        Raises:
            InputError: if `vocab_size` leaves no room for a merge, or the documents cannot fill it.
        """
        if vocab_size <= BYTES + 1:
            raise InputError(f"data.vocab_size={vocab_size} is too small for BPE; ask for more than {BYTES + 1}")
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, pre_tokenizers, trainers

        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # the end of document is added last, so that it is the last id
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        library.train_from_iterator((document.decode("utf-8") for document in documents), trainer)
        library.add_special_tokens([cls.END_OF_DOCUMENT])
        if library.get_vocab_size() != vocab_size:
            raise InputError(
                f"data.vocab_size={vocab_size}: the corpus only supports {library.get_vocab_size()} tokens; "
                "ask for that many or fewer, or bring more text"
            )
        tokenizer = cls.__new__(cls)
        tokenizer._set(library)
        return tokenizer

    def encode(self, documents: Sequence[bytes]) -> list[np.ndarray]:
        encodings = self.library.encode_batch_fast([document.decode("utf-8") for document in documents])
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode(list(ids))

    def save(self, directory: Path) -> None:
        self.library.save(str(directory / self.FILE))


def vocabulary(kind: str, vocab_size: int) -> int:
    """Ids of a tokenizer of `kind` that was asked for `vocab_size`, which bytes do not heed."""
    return BYTES + 1 if kind == "bytes" else vocab_size


def load_tokenizer(kind: str, directory: Path) -> Tokenizer:
    """The tokenizer that wrote the corpus in `directory`."""
    return ByteTokenizer() if kind == "bytes" else BPETokenizer(directory / BPETokenizer.FILE)
