"""A corpus of documents, from one source or a mixture: tokenise them, select, and write the token files."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np

from sweep.config import CorpusSpec, SourceConfig
from sweep.data.mixture import Documents, Selection, TooShortError, check_weights, select, shares
from sweep.data.parts import INDEX, Part, gather, measure_overlap, token_dtype
from sweep.data.processes import SPAWN, worker_processes
from sweep.data.sources import reader_of
from sweep.data.sources.reader import Reader, Skipped
from sweep.data.tokenise import Tokenising
from sweep.data.tokenizer import FILE, LibraryTokenizer, Tokenizer, ready_tokenizer, train_bpe
from sweep.errors import InputError

WHOLE_BYTES = 1 << 26  # plain text up to this size is identified by its documents, not by the files that hold them
BPE_BYTES = 1 << 26  # of text that a BPE is trained on
LONG_TOKEN_BYTES = 8  # few tokens are longer
STAGE = re.compile(rb'"stage":"([^"]+)","current":(\d+),"total":(\d+)}')  # of `train_bpe`


class Advance(Protocol):
    """What is called while a corpus is built."""

    def __call__(self, size: int, doing: str = "tokenising") -> None:
        """`size` bytes more are finished; `doing` is what goes on."""
        ...


@dataclass(frozen=True)
class TextContents:
    """Contents of a corpus made from documents; see `sweep.data.corpus.Contents`.

    Attributes:
        spec: the corpus.
        sources: its sources by name; the spec itself if it is the only one.
        readers: of the sources, by the same names.
        tokenizer: None if it is still to be trained on the corpus.
    """

    spec: CorpusSpec
    sources: dict[str, SourceConfig]
    readers: dict[str, Reader]
    tokenizer: Tokenizer | None

    @classmethod
    def read(cls, spec: CorpusSpec) -> "TextContents":
        """Find the sources and read the first documents of each. Raises InputError if a source, a weight or the tokenizer is
        wrong, or there is no text."""
        mixed = spec.source == "mixture"
        sources: dict[str, SourceConfig] = dict(spec.sources or {}) if mixed else {spec.source: spec}
        if mixed:
            check_weights(sources)
        tokenizer = ready_tokenizer(spec)
        readers = {}
        for name, source in sources.items():
            readers[name] = reader_of(source, f"data.sources.{name}" if mixed else "data")
            readers[name].check()
        return cls(spec, sources, readers, tokenizer)

    @property
    def vocab_size(self) -> int:
        return self.spec.vocab_size if self.tokenizer is None else self.tokenizer.vocab_size

    @cached_property
    def documents(self) -> list[bytes] | None:
        """All documents in their order, if it is a small corpus of plain text that is used once and whole; else None.

        Such a corpus is identified by the text itself, whatever files hold it.
        """
        spec, reader = self.spec, next(iter(self.readers.values()))
        plain = spec.source != "mixture" and reader.known_by_content and reader.most_tokens() <= WHOLE_BYTES
        whole = spec.deduplicate and spec.near_duplicates is None and spec.max_bytes is None and spec.epochs == 1
        if not (plain and whole and spec.tokenizer in ("bytes", "bpe")):
            return None
        unique = {hashlib.sha256(document).digest(): document for document in reader}
        if not unique:
            raise self._no_text(spec.source, reader.take_skipped())
        # Sorting by content first makes the order independent of file names.
        in_order = [unique[key] for key in sorted(unique)]
        return [in_order[i] for i in np.random.default_rng(spec.shuffle_seed).permutation(len(in_order))]

    def identity(self) -> dict:
        """The files of a large corpus are identified by their sizes and samples, and a dataset on the Hugging Face Hub by its
        name and revision, so that nothing is read or downloaded whole."""
        spec = self.spec
        # Another release of the library may train other merges.
        library = {"tokenizers": version("tokenizers")} if spec.tokenizer == "bpe" else {}
        if self.documents is not None:
            digest = hashlib.sha256()
            for document in self.documents:
                digest.update(len(document).to_bytes(8, "little"))
                digest.update(document)
            return {
                "format": 1,
                "documents": digest.hexdigest(),
                "tokenizer": spec.tokenizer,
                "validation_tokens": spec.validation_tokens,
                **({"vocab_size": spec.vocab_size, **library} if library else {}),
            }
        return {
            "format": 2,
            "sources": {
                name: {"content": self.readers[name].identity()}
                | {field: getattr(source, field) for field in ("source", "max_bytes", "weight", "epochs")}
                | ({} if source.on_error == "refuse" else {"on_error": source.on_error})
                for name, source in self.sources.items()
            },
            "tokenizer": {"bpe": spec.vocab_size, **library} if self.tokenizer is None else self.tokenizer.identity(),
            "validation_tokens": spec.validation_tokens,
            "shuffle_seed": spec.shuffle_seed,
            "deduplicate": spec.deduplicate,
            "near_duplicates": spec.near_duplicates,
        }

    def most_tokens(self) -> dict[str, float]:
        """An upper bound on the tokens of each source, infinite if unknown: no token is shorter than a byte."""
        if self.documents is not None:
            return {self.spec.source: sum(len(document) + 1 for document in self.documents)}
        sizes = {name: reader.most_tokens() for name, reader in self.readers.items()}
        if not self.spec.deduplicate:
            sizes |= {name: float("inf") for name, reader in self.readers.items() if not reader.counts_repeats}
        for name, source in self.sources.items():
            if source.max_bytes is not None:  # the last document may exceed it, and every document has an end token
                sizes[name] = min(sizes[name], 1.1 * source.max_bytes + 2**20)
        return sizes

    def training_tokens(self) -> float:
        sizes = self.most_tokens()
        if not all(sizes.values()):
            lacking = ", ".join(name for name, size in sizes.items() if not size)
            raise InputError(f"data: {lacking} holds no text; name other paths")
        if (total := sum(share.tokens for share in shares(self.sources, sizes).values())) <= self.spec.validation_tokens:
            raise TooShortError(int(sum(sizes.values())), self.spec.validation_tokens)
        return total - (self.spec.validation_tokens if len(self.sources) == 1 and self.spec.epochs == 1 else 0)

    def size(self) -> float:
        return sum(self.most_tokens().values())

    def write(self, directory: Path, work: Path, workers: int | None, advance: Advance) -> dict:
        """Write the token files and tokenizer. Raises InputError if a document cannot be read, or there is too little text."""
        spec = self.spec
        for reader in self.readers.values():
            reader.look_into()  # planning could not look at remote datasets; fail before hours of work on another source
        tokenizer = self.tokenizer or self._trained(work, advance)
        lines, parts, skipped = spec.near_duplicates is not None, {}, {}
        for number, (name, reader) in enumerate(self.readers.items()):
            max_bytes = self.sources[name].max_bytes or float("inf")
            tokenising = Tokenising(reader, tokenizer, work / f"{number:03d}", max_bytes, lines)
            parts[name], skipped[name] = tokenising.run(workers, advance), tokenising.skipped()
        documents = self._index(parts, skipped)
        trains_on_half = self.tokenizer is None and self.documents is None
        chosen = select(
            documents,
            self.sources,
            held_out=spec.validation_tokens + 1,  # a sequence of T inputs needs T + 1 tokens
            seed=spec.shuffle_seed,
            deduplicate=spec.deduplicate,
            near_duplicates=spec.near_duplicates,
            may_hold_out=~_may_be_trained_on(documents.digest) if trains_on_half else None,
        )
        tokenizer.save(directory)
        dtype = token_dtype(tokenizer.vocab_size)
        written = gather(chosen, documents, [part for source in parts.values() for part in source], dtype, directory)
        described = self._describe(chosen, documents, written)
        bytes_per_token = described["validation"]["bytes"] / described["validation"]["tokens"]
        return {
            "tokenizer": spec.tokenizer,
            "end_of_document": tokenizer.end_of_document,
            "vocab_size": tokenizer.vocab_size,
            "documents": len(documents.digest),
            "left_out": chosen.left_out,
            "left_out_bytes": chosen.left_out_bytes,
            **({"skipped": {name: asdict(each) for name, each in skipped.items()}} if any(skipped.values()) else {}),
            "bytes": int(documents.bytes.sum()),
            "bytes_per_token": bytes_per_token,
            "dtype": dtype.name,
            "parts": described,
            "overlap": measure_overlap(directory, dtype, bytes_per_token),
        }

    def _trained(self, work: Path, advance: Advance) -> Tokenizer:
        """The BPE that an earlier start trained, or a new one. It is trained in a process of its own, which an interrupt ends:
        the library would hear of it only when it is done."""
        if not (work / FILE).exists():
            stderr, childs_stderr = SPAWN.Pipe(duplex=False)
            advance(0, "reading text to learn a BPE")
            with stderr, childs_stderr, worker_processes(1, _write_stderr_to, childs_stderr) as pool:
                training = pool.submit(self.train, work)
                while not training.done():
                    if stderr.poll(0.2) and (stages := STAGE.findall(os.read(stderr.fileno(), 1 << 16))):
                        stage, current, total = stages[-1]
                        advance(0, f"learning a BPE: {stage.decode().lower()}, {int(current):,} of {int(total):,}")
                training.result()
            advance(0)
        from tokenizers import Tokenizer as Library

        return LibraryTokenizer(Library.from_file(str(work / FILE)))

    def train(self, work: Path) -> None:
        """Train the BPE, on no held-out document, and put it into `work`."""
        temporary = work / "training"
        temporary.mkdir(exist_ok=True)
        train_bpe(self.documents_to_train_on(), self.spec.vocab_size, report=True).save(temporary)
        (temporary / FILE).rename(work / FILE)

    def documents_to_train_on(self) -> Iterator[bytes]:
        if self.documents is not None:
            # The first documents are held out; how many is not known before they are tokenised.
            ends = np.cumsum([len(document) for document in self.documents])
            yield from self.documents[int(np.searchsorted(ends, LONG_TOKEN_BYTES * self.spec.validation_tokens, "right")) :]
            return
        for reader in self.readers.values():
            units = reader.units()
            units = units[:: max(1, len(units) // 64)]
            for unit in units:
                left = BPE_BYTES // len(units) // len(self.readers)
                for document in reader.documents(unit):
                    if _may_be_trained_on(np.array([hashlib.sha256(document).digest()[:16]], dtype="S16"))[0]:
                        yield document
                    if (left := left - len(document)) <= 0:
                        break

    def _no_text(self, name: str, skipped: Skipped) -> InputError:
        why = f" ({skipped})" if skipped.documents else ""
        return InputError(f"data: {name} holds no text{why}; name other paths")

    def _index(self, parts: dict[str, list[Part]], skipped: dict[str, Skipped]) -> Documents:
        """All documents, except those beyond a source's `max_bytes`."""
        everything = [part for source in parts.values() for part in source]
        numbers = [number for number, source in enumerate(parts.values()) for _ in source]
        indices = [part.index() for part in everything]
        index = np.concatenate([np.empty(0, INDEX), *indices])
        lengths = [len(rows) for rows in indices]
        starts = [np.cumsum(rows["tokens"], dtype=np.int64) - rows["tokens"] for rows in indices]
        documents = Documents(
            digest=index["digest"],
            tokens=index["tokens"].astype(np.int64),
            bytes=index["bytes"].astype(np.int64),
            source=np.repeat(np.array(numbers, dtype=np.int64), lengths),
            part=np.repeat(np.arange(len(indices)), lengths),
            start=np.concatenate([np.empty(0, np.int64), *starts]),
            line_counts=index["lines"].astype(np.int64),
            lines=np.concatenate([part.lines() for part in everything]) if self.spec.near_duplicates is not None else None,
        )
        kept = np.ones(len(index), dtype=bool)
        for number, (name, source) in enumerate(self.sources.items()):
            mine = np.flatnonzero(documents.source == number)
            if not len(mine):
                raise self._no_text(name, skipped[name])
            if source.max_bytes is not None:  # the last unit may have been read beyond it
                before = np.cumsum(documents.bytes[mine]) - documents.bytes[mine]
                kept[mine[before >= source.max_bytes]] = False
        return documents.where(kept)

    def _describe(self, chosen: Selection, documents: Documents, written: dict[str, dict]) -> dict[str, dict]:
        """Entries of the manifest for both parts: their lengths, and what each source contributes."""
        total = written["train"]["tokens"]
        held_bytes = documents.bytes[chosen.validation] * chosen.cut / documents.tokens[chosen.validation]
        sources: dict[str, dict] = {"train": {}, "validation": {}}
        for number, (name, distinct) in enumerate(chosen.distinct.items()):
            trained = chosen.train[documents.source[chosen.train] == number]
            held = documents.source[chosen.validation] == number
            tokens = int(documents.tokens[trained].sum())
            sources["train"][name] = {
                "tokens": tokens,
                "bytes": int(documents.bytes[trained].sum()),
                "documents": len(distinct),
                "share": tokens / total,
                "epochs": tokens / int(documents.tokens[distinct].sum()),
            }
            sources["validation"][name] = {"tokens": int(chosen.cut[held].sum()), "bytes": round(held_bytes[held].sum())}
        sizes = {part: sum(source["bytes"] for source in sources[part].values()) for part in written}
        return {part: {**written[part], "bytes": sizes[part], "sources": sources[part]} for part in written}


def _write_stderr_to(connection: Connection) -> None:
    os.dup2(connection.fileno(), 2)


def _may_be_trained_on(digests: np.ndarray) -> np.ndarray:
    """Half of all documents, by their content: the BPE of a large corpus is trained on these; only others are held out."""
    return np.ascontiguousarray(digests).view(np.uint8).reshape(-1, 16)[:, 0] % 2 == 0
