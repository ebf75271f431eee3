"""Configuration of the corpus: where documents come from, and how they become tokens."""

from dataclasses import dataclass, field

from sweep.config.fields import checked, choice, number


def _suffixes(value: list[str]) -> str | None:
    right = value and all(len(suffix) > 1 and suffix.startswith(".") and not set(suffix) & set("*?/") for suffix in value)
    return None if right else "is no list of the ends of file names; write them as [.txt,.md]"


@dataclass(kw_only=True)
class SourceConfig:
    """Where documents come from.

    Attributes:
        source: one of `sweep.data.sources.reader.SOURCES`: "stdlib", the running Python's standard library; "text", "jsonl" or
            "parquet", local files; "huggingface", a dataset by name or local folder. A whole corpus can also be a "mixture" of
            sources, existing "tokens", or "synthetic": one of `sweep.data.corpus.CONTENTS`, which check the name.
        paths: files, folders or globs of local files. A path that exists as it is written is no glob.
        suffixes: of a folder's files that are read, such as .txt; by default those of its kind of source, for "text" of prose
            and code. Files that `paths` names one by one are always read.
        column: that holds the text, in JSONL, Parquet and Hugging Face datasets; doc.text is the field text of the column doc.
        on_error: what to do about a document that has no text, is no UTF-8, or is cut off: "refuse" the corpus, or "skip" the
            document (of text files a piece of about 64 KB, of a damaged file its rest) and count it.
        max_line_bytes: a longer line of JSONL is such a document.
        dataset, config, split, revision: of "huggingface", as `datasets.load_dataset` takes them.
        rows: "documents", or "lines" of longer texts, which are joined and then split into documents as text files are.
        max_bytes: use only the first documents, until they have this many bytes.
        weight: share of the training tokens, in a mixture; given for all of its sources, adding up to 1, or for none.
        epochs: how often a source of a mixture is repeated; where there are weights, how often at most.
    """

    source: str = "text"
    paths: list[str] = field(default_factory=list)
    suffixes: list[str] | None = checked(_suffixes, default=None)
    column: str = "text"
    on_error: str = choice("refuse", "skip")
    max_line_bytes: float = number(1e8, at_least=1, at_most=4e9)
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    rows: str = choice("documents", "lines")
    max_bytes: float | None = number(None, above=0)
    weight: float | None = number(None, above=0)
    epochs: float = number(1, above=0)


@dataclass(kw_only=True)
class MemmapConfig:
    """Flat files of token ids, in the format of nanoGPT and llm.c.

    Attributes:
        dtype: of the ids in .bin files, and in .npy files without numpy's header, as OLMo's; others contain their own.
        header_bytes: to skip at the start of each such file. llm.c's files, known by their first number, say both themselves.
        validation_paths: files of held-out tokens; if empty, the end of the training files is held out.
        bytes_per_token: average length of the held-out tokens in bytes, if known, for losses in bits per byte.
    """

    dtype: str = choice("uint8", "uint16", "int16", "int32", "uint32", "int64", default="uint16")
    header_bytes: int = number(0, at_least=0)
    validation_paths: list[str] = field(default_factory=list)
    bytes_per_token: float | None = number(None, above=0)


@dataclass(kw_only=True)
class SyntheticConfig:
    """A Markov chain of known entropy rate; see `sweep.data.synthetic`.

    Attributes:
        tokens: number of training tokens; the held-out tokens are generated in addition.
        zipf, offset: token k has the weight (k + offset)^-zipf.
        coupling: standard deviation of the log of how much more often than by chance two tokens are neighbours.
        decay: the r-th eigenvalue of the coupling falls as r^-decay.
        seed: of the chain and of the walk on it.
    """

    tokens: float = number(2e7, at_least=2)
    zipf: float = number(1.5, at_least=0)
    offset: float = number(5.0, at_least=0)
    coupling: float = number(1.0, at_least=0)
    decay: float = number(1.0, at_least=0)
    seed: int = number(0, at_least=0)


@dataclass(kw_only=True)
class CorpusSpec(SourceConfig):
    """The documents and the tokenizer of a corpus.

    Attributes:
        sources: of a mixture, by name.
        tokenizer: "bytes"; "bpe", trained on the corpus; a tokenizer.json, a folder with one, or a Hugging Face name.
        vocab_size: number of ids of a BPE (end of document included), of token files, or of the synthetic chain. Other
            tokenizers have their own number (bytes: 257).
        end_of_document: the token that ends a document, for a tokenizer that does not name one.
        validation_tokens: length of the held-out part, taken from whole documents that training never sees.
        shuffle_seed: seed of the order of the documents.
        deduplicate: leave out exact duplicates of earlier documents.
        near_duplicates: leave out documents that share at least this fraction of their lines with earlier documents.
        memmap: of source=tokens.
        synthetic: of source=synthetic.
    """

    source: str = "stdlib"
    sources: dict[str, SourceConfig] | None = None
    tokenizer: str = "bytes"
    vocab_size: int = number(257, at_least=2)
    end_of_document: str | None = None
    validation_tokens: int = number(131_072, at_least=1)
    shuffle_seed: int = number(0, at_least=0, below=2**63)
    deduplicate: bool = True
    near_duplicates: float | None = number(None, above=0, at_most=1)
    memmap: MemmapConfig | None = None
    synthetic: SyntheticConfig | None = None


@dataclass(kw_only=True)
class DataConfig(CorpusSpec):
    """The corpus, the context T, how often it may be repeated, and how many processes tokenise it.

    Attributes:
        context_length: T, tokens per sequence.
        max_epochs: a horizon that repeats the corpus more often is refused.
        unique_tokens: each run trains only on so many tokens of the corpus (whole sequences drawn at random, the same for all
            runs and seeds; a smaller number is a part of a larger one), repeated as often as its horizon needs:
            `max_epochs` does not bound that. The held-out part stays the same. null: the whole corpus.
        workers: processes that tokenise; null: one for each core.
    """

    context_length: int = number(128, at_least=1)
    max_epochs: float = number(1, above=0)
    unique_tokens: float | None = number(None, at_least=1)
    workers: int | None = number(None, at_least=1)
