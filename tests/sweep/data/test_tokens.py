"""Corpora of existing tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.config import CorpusSpec, MemmapConfig
from sweep.data import CorpusRecipe
from sweep.errors import InputError


def test_ready_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 1000, 50_000).astype(np.uint16)
    ids.tofile(tmp_path / "train.bin")
    np.save(tmp_path / "train.npy", ids.astype(np.int64))
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, len(ids)
    (tmp_path / "llm.bin").write_bytes(header.tobytes() + ids.tobytes())
    made = []
    for name, header_bytes in (("train.bin", 0), ("train.npy", 0), ("llm.bin", 1024)):
        spec = CorpusSpec(
            source="tokens",
            tokenizer="none",
            paths=[str(tmp_path / name)],
            vocab_size=1000,
            validation_tokens=4096,
            memmap=MemmapConfig(header_bytes=header_bytes),
        )
        recipe = CorpusRecipe.read(spec)
        made.append(recipe.build(tmp_path / "corpora"))
        assert made[-1].manifest["parts"]["train"]["tokens"] == recipe.contents.training_tokens() == 50_000 - 4097
    for corpus in made:
        np.testing.assert_array_equal(corpus.tokens("train"), ids[:-4097])
        np.testing.assert_array_equal(corpus.tokens("validation"), ids[-4097:])
        assert corpus.bytes_per_token is None
    own = CorpusSpec(**{**vars(spec), "memmap": MemmapConfig(header_bytes=1024, validation_paths=[str(tmp_path / "llm.bin")])})
    corpus = CorpusRecipe.read(own).build(tmp_path / "corpora")
    np.testing.assert_array_equal(corpus.tokens("train"), ids)
    assert corpus.manifest["overlap"]["share"] == 1.0


def test_bad_ready_tokens_are_refused(tmp_path: Path, wordpiece: Path) -> None:
    ids = np.full(5000, 5, np.uint16)
    ids[2500] = 300
    ids.tofile(tmp_path / "train.bin")
    (tmp_path / "odd.bin").write_bytes(b"123")
    (tmp_path / "empty.bin").write_bytes(b"")
    np.save(tmp_path / "square.npy", np.zeros((4, 4), np.int64))

    def spec(name: str = "train.bin", **changes: Any) -> CorpusSpec:
        fields: dict[str, Any] = {
            "source": "tokens",
            "tokenizer": "none",
            "vocab_size": 257,
            "validation_tokens": 1000,
        } | changes
        return CorpusSpec(paths=[str(tmp_path / name)], **fields)

    for changes, message in (
        (spec(), r"id 300, outside data\.vocab_size=257; declare"),
        (spec("odd.bin"), r"odd\.bin has 3 bytes, which is not"),
        (spec("empty.bin"), r"empty\.bin has 0 bytes"),
        (spec("square.npy"), r"has shape \(4, 4\)"),
        (spec("missing.bin"), "matches no file"),
        (spec(vocab_size=301, tokenizer="bpe"), "no text to train it on"),
        (spec(vocab_size=301, tokenizer=str(wordpiece)), r"vocab_size=301 is less than the \d+ ids"),
        (spec(vocab_size=301, validation_tokens=5000), "only 5,000 tokens, too few for data.validation_tokens=5,000"),
    ):
        with pytest.raises(InputError, match=message):
            CorpusRecipe.read(changes).training_tokens(tmp_path)


def test_a_bad_id_in_the_middle_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.data.memmap.BLOCK", 1600)
    ids = np.full(5000, 5, np.uint16)
    ids[2500] = 300
    ids.tofile(tmp_path / "train.bin")
    spec = CorpusSpec(source="tokens", tokenizer="none", paths=[str(tmp_path / "train.bin")], validation_tokens=1000)
    recipe = CorpusRecipe.read(spec)
    with pytest.raises(InputError, match=r"id 300, outside data\.vocab_size=257"):
        recipe.build(tmp_path / "corpora")
