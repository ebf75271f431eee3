"""Documents and files that several tests of the data use."""

import json
from pathlib import Path

import numpy as np

from sweep.data import Corpus


def some_documents(count: int, seed: int = 0, words: int = 60) -> list[str]:
    """Different documents of a few hundred bytes, beyond ASCII too."""
    rng = np.random.default_rng(seed)
    vocabulary = ["".join(rng.choice(list("abcdeéfghij漢字"), rng.integers(2, 8))) for _ in range(300)]
    return [f"{seed} {i}: " + " ".join(rng.choice(vocabulary, words)) for i in range(count)]


def write_jsonl(path: Path, texts: list[str], column: str = "text") -> Path:
    path.write_text("".join(json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts)))
    return path


def save_dataset(folder: Path, texts: list[str]) -> Path:
    import datasets

    datasets.Dataset.from_dict({"text": texts, "id": list(range(len(texts)))}).save_to_disk(str(folder))
    return folder


def documents_of(corpus: Corpus, part: str = "train") -> list[str]:
    ids = corpus.tokens(part)
    ends = np.flatnonzero(ids == corpus.manifest["end_of_document"])
    return [corpus.tokenizer().decode(ids[start:end].tolist()) for start, end in zip([0, *(ends + 1)], ends, strict=False)]
