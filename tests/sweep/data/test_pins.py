"""Fingerprints, manifests, tokens and first batches of fixed corpora, as they were when they were first published."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from sweep.config import CorpusSpec, MemmapConfig, SourceConfig, SyntheticConfig
from sweep.data import CorpusRecipe, TrainingSequences
from sweep.files import content_hash


def specs(root: Path) -> dict[str, CorpusSpec]:
    """A small corpus of every kind whose files are the same bytes on every machine."""
    words = ["".join(chr(97 + int(digit)) for digit in str(i * 7919 % 10007)) for i in range(6008)]
    lines = [f"line {i} of a fixed text, with the word {word}" for i, word in enumerate(words)]
    (root / "folder").mkdir()
    (root / "text.txt").write_text("\n".join(lines))
    records = [json.dumps({"id": i, "text": "\n".join(lines[i : i + 8])}) + "\n" for i in range(0, 6000, 6)]
    (root / "a.jsonl").write_text("".join(records[:600]))
    (root / "b.jsonl").write_text("".join(records[500:]))
    (root / "folder" / "part.jsonl").write_text("".join(records))
    (np.arange(20_000) * 7919 % 1009).astype(np.uint16).tofile(root / "ids.bin")
    a, b = str(root / "a.jsonl"), str(root / "b.jsonl")
    mixture = {
        "a": SourceConfig(source="jsonl", paths=[a], weight=0.7),
        "b": SourceConfig(source="jsonl", paths=[b], weight=0.3, epochs=2, rows="lines"),
    }
    synthetic = SyntheticConfig(tokens=20_000, decay=1.25)
    return {
        "text": CorpusSpec(source="text", paths=[str(root / "text.txt")], validation_tokens=2048),
        "first bytes": CorpusSpec(source="text", paths=[str(root)], validation_tokens=2048, max_bytes=2e5),
        "jsonl": CorpusSpec(source="jsonl", paths=[a, b], validation_tokens=2048, near_duplicates=0.25),
        "huggingface": CorpusSpec(source="huggingface", dataset=str(root / "folder"), validation_tokens=2048),
        "mixture": CorpusSpec(source="mixture", sources=mixture, validation_tokens=2048),
        "tokens": CorpusSpec(
            source="tokens",
            tokenizer="none",
            paths=[str(root / "ids.bin")],
            vocab_size=1009,
            validation_tokens=2048,
            memmap=MemmapConfig(header_bytes=512),
        ),
        "synthetic": CorpusSpec(
            source="synthetic", tokenizer="none", vocab_size=48, validation_tokens=2048, synthetic=synthetic
        ),
    }


# Fingerprint, hash of the manifest without its spec and what it says since then, and SHA-256 of the ids of the first batch.
PINS = {
    "text": ("caae7704aae1adca", "ff1e70f54f2805c8", "d50ac29c7d5f4b85"),
    "first bytes": ("c74d4505611fbacc", "ec4288e7bd31db9c", "f908685e63118df3"),
    "jsonl": ("30b23a143d0acf74", "98d17f446e92ce64", "6fe65403952bae7b"),
    "huggingface": ("4964b829b9ffafda", "b2c0d339fbabfdd6", "5869550af2c95126"),
    "mixture": ("633386cf863ae3c0", "c25d2106a70b4376", "3927cbe1bc012c3c"),
    "tokens": ("4b39f82e8163ed8f", "2a043fcee9aa4b33", "14c7e3cc3b9f518f"),
    "synthetic": ("211cd10acc6ffcad", "98c778a74fb27077", "c541253925c680bc"),
}


@pytest.mark.parametrize("kind", PINS)
def test_a_corpus_is_what_it_has_always_been(tmp_path: Path, kind: str) -> None:
    recipe = CorpusRecipe.read(specs(tmp_path)[kind])
    corpus = recipe.build(tmp_path / "corpora")
    manifest = {key: value for key, value in corpus.manifest.items() if key not in ("spec", "left_out_bytes")}
    if kind == "synthetic":  # its losses differ in their last digits between processors
        manifest = {part: described["sha256"] for part, described in manifest["parts"].items()}
    batch = TrainingSequences(corpus.tokens("train"), context_length=32, batch_size=4, seed=0).batch(0)
    digest = hashlib.sha256(batch.tobytes()).hexdigest()[:16]
    assert (recipe.fingerprint, content_hash(manifest), digest) == PINS[kind]
