"""Documents to token ids. Every tokenizer ends a document with the id `end_of_document`."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sweep.config import CorpusSpec
from sweep.errors import InputError, explained

BYTES = 256
FILE = "tokenizer.json"
LONG_WORD_BYTES = 512  # a longer one is cut while merges are learnt: they take time that grows with the square of its length
END_OF_DOCUMENT = "<|end_of_document|>"  # of a BPE that we train
# For tokenizers that do not say which of their tokens ends a text: GPT-2, Llama 3, Llama 2 and T5, Gemma, BERT.
KNOWN_ENDS = (END_OF_DOCUMENT, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")


class ByteTokenizer:
    """Each byte is its own token; 256 ends a document."""

    vocab_size = BYTES + 1
    end_of_document = BYTES

    def encode(self, documents: Sequence[bytes]) -> list[np.ndarray]:
        """One array of ids for each UTF-8 document, without the end-of-document id."""
        return [np.frombuffer(document, dtype=np.uint8).astype(np.uint16) for document in documents]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < BYTES).decode("utf-8", errors="replace")

    def count_bytes(self, ids: Sequence[int] | np.ndarray) -> int:
        """Length of the text of `ids`, in bytes; the end of a document has none."""
        return int((np.asarray(ids) < BYTES).sum())

    def save(self, directory: Path) -> None:
        """Nothing to save: the vocabulary is the bytes."""

    def identity(self) -> Any:
        """What distinguishes it from other tokenizers, as plain JSON."""
        return "bytes"


class LibraryTokenizer:
    """A tokenizer of the `tokenizers` library, without padding, truncation or added tokens. Raises InputError if it lacks the
    token `end_of_document`.

    The names of special tokens in a text are encoded as plain text, so that no document can contain its own end.
    """

    def __init__(self, library: Any, end_of_document: str = END_OF_DOCUMENT) -> None:
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True
        self.library, self._end = library, end_of_document
        self.vocab_size = 1 + max(library.get_vocab(with_added_tokens=True).values())  # ids may have gaps
        if (end := library.token_to_id(end_of_document)) is None:
            raise InputError(f"data.end_of_document={end_of_document!r} is not a token of this tokenizer; name one that is")
        self.end_of_document: int = end

    def __reduce__(self) -> Any:  # pickling the library loses encode_special_tokens
        return LibraryTokenizer, (self.library, self._end)

    def encode(self, documents: Sequence[bytes]) -> list[np.ndarray]:
        texts = [document.decode("utf-8") for document in documents]
        remedy = "give it an unknown token or byte fallback, or choose another, such as bytes"
        with explained("data.tokenizer cannot encode a document", remedy):
            encodings = self.library.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode(list(ids))

    def count_bytes(self, ids: Sequence[int] | np.ndarray) -> int:
        """Length of the text of `ids`, in bytes. A byte-level tokenizer writes each byte as a letter; of another one, what is
        left of a character that the ids cut counts as three."""
        ids = [int(i) for i in ids if i != self.end_of_document]
        if type(self.library.decoder).__name__ == "ByteLevel":
            return sum(len(self.library.id_to_token(i) or "") for i in ids)
        return len(self.decode(ids).encode())

    def save(self, directory: Path) -> None:
        self.library.save(str(directory / FILE))

    def identity(self) -> Any:
        return {
            "sha256": hashlib.sha256(self.library.to_str().encode()).hexdigest()[:32],
            "end_of_document": self.end_of_document,
        }


Tokenizer: TypeAlias = ByteTokenizer | LibraryTokenizer


def train_bpe(documents: Iterable[bytes], vocab_size: int, *, report: bool = False) -> LibraryTokenizer:
    """Train a byte-level BPE with `vocab_size` ids, the 256 bytes and the end of document included.

    Numbers are split into single digits, as in LLaMA. Characters that no merge covers fall back to bytes, so none is unknown.
    With `report`, how far it is appears on stderr, as lines of JSON with `stage`, `current` and `total`. Raises InputError if
    `vocab_size` leaves no room for merges, or the documents do not support that many.
    """
    if vocab_size <= BYTES + 1:
        raise InputError(f"data.vocab_size={vocab_size} is too small for BPE; ask for more than {BYTES + 1}")
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Library

    library = Library(models.BPE())
    words = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    short = pre_tokenizers.Split(Regex(f".{{{LONG_WORD_BYTES}}}"), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([*words, short])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # the end of document is added afterwards, to be the last id
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=report,
    )
    if report and hasattr(trainer, "progress_format"):  # from release 0.23 of the library on
        trainer.progress_format = "json"
    library.train_from_iterator((document.decode("utf-8") for document in documents), trainer)
    library.pre_tokenizer = pre_tokenizers.Sequence(words)
    library.add_special_tokens([END_OF_DOCUMENT])
    if library.get_vocab_size() != vocab_size:
        raise InputError(
            f"data.vocab_size={vocab_size}: the corpus only supports {library.get_vocab_size()} tokens; "
            "ask for at most that many, or add text"
        )
    return LibraryTokenizer(library)


def ready_tokenizer(spec: CorpusSpec) -> Tokenizer | None:
    """The tokenizer that `spec` names; None if it is still to be trained on the corpus. Raises InputError if it cannot be
    loaded, or it is not known which of its tokens ends a document."""
    if spec.tokenizer == "bytes":
        return ByteTokenizer()
    if spec.tokenizer == "bpe":
        if spec.vocab_size <= BYTES + 1:
            raise InputError(f"data.vocab_size={spec.vocab_size} is too small for BPE; ask for more than {BYTES + 1}")
        return None
    from tokenizers import Tokenizer as Library

    path = Path(spec.tokenizer).expanduser()
    if path.is_dir():
        path = path / FILE
    remedy = "give bytes, bpe, a tokenizer.json, a folder with one, or a Hugging Face name"
    local = path.name == FILE or spec.tokenizer.startswith((".", "/", "~"))
    if local and not path.is_file():
        raise InputError(f"data.tokenizer={spec.tokenizer}: there is no {path}; {remedy}")
    with explained(f"data.tokenizer={spec.tokenizer} cannot be loaded", remedy):
        local_text = path.read_text(encoding="utf-8-sig") if path.is_file() else None
        library = Library.from_pretrained(spec.tokenizer) if local_text is None else Library.from_str(local_text)
    return LibraryTokenizer(library, spec.end_of_document or _own_end(library, path.with_name("tokenizer_config.json")))


def _own_end(library: Any, config: Path) -> str:
    """The token that ends a text: the one that tokenizer_config.json names, or the first of `KNOWN_ENDS` it has."""
    if config.is_file():
        problem, remedy = f"{config} cannot be read", "fix it, or name the token with data.end_of_document"
        with explained(problem, remedy, (OSError, ValueError, AttributeError)):
            token = json.loads(config.read_text(encoding="utf-8-sig")).get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and library.token_to_id(token) is not None:
            return token
    known = [token for token in KNOWN_ENDS if library.token_to_id(token) is not None]
    if not known:
        raise InputError("data.end_of_document=null: it is not known which token of the tokenizer ends a document; name it")
    return known[0]


def load_tokenizer(manifest: dict, directory: Path) -> Tokenizer:
    """The tokenizer that made the corpus in `directory`. Raises InputError if it has none, or not the one of its manifest."""
    if manifest["tokenizer"] == "bytes":
        return ByteTokenizer()
    if not (directory / FILE).exists():
        raise InputError(
            f"corpus {directory} has no tokenizer; if it is made of existing tokens, name their tokenizer with data.tokenizer=…"
        )
    from tokenizers import Tokenizer as Library

    library = Library.from_file(str(directory / FILE))
    end = manifest.get("end_of_document")
    token = END_OF_DOCUMENT if end is None else library.id_to_token(end)
    if token is None:
        raise InputError(f"{directory / FILE} has no id {end}; delete {directory} and it will be built again")
    tokenizer = LibraryTokenizer(library, token)
    if tokenizer.vocab_size > manifest["vocab_size"]:
        raise InputError(
            f"{directory / FILE} has {tokenizer.vocab_size:,} ids, but the manifest of its corpus says "
            f"{manifest['vocab_size']:,}; delete {directory} and it will be built again"
        )
    return tokenizer
