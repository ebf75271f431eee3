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


def tokens(*paths: Path, **memmap: Any) -> CorpusSpec:
    fields: dict[str, Any] = {"source": "tokens", "tokenizer": "none", "vocab_size": 60_000, "validation_tokens": 1000}
    return CorpusSpec(paths=[str(path) for path in paths], memmap=MemmapConfig(**memmap), **fields)


def llmc(path: Path, ids: np.ndarray, magic: int = 20240520, count: int | None = None) -> Path:
    header = np.zeros(256, np.int32)
    header[:3] = magic, 1, len(ids) if count is None else count
    path.write_bytes(header.tobytes() + ids.tobytes())
    return path


def test_the_header_of_llmc_is_recognised(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 60_000, 5000)
    short = llmc(tmp_path / "gpt2.bin", ids.astype(np.uint16))
    long = llmc(tmp_path / "llama3.bin", ids.astype(np.uint32), magic=20240801)
    declared = CorpusRecipe.read(tokens(short, header_bytes=1024))
    for spec in (tokens(short), tokens(long), tokens(long, dtype="uint32", header_bytes=1024)):
        corpus = CorpusRecipe.read(spec).build(tmp_path / "corpora")
        np.testing.assert_array_equal(corpus.tokens("train"), ids[:-1001])
    assert CorpusRecipe.read(tokens(short)).fingerprint == declared.fingerprint
    ids.astype(np.uint16).tofile(tmp_path / "plain.bin")
    mixed = CorpusRecipe.read(tokens(short, long, tmp_path / "plain.bin"))
    assert mixed.contents.training_tokens() == 15_000 - 1001
    assert mixed.fingerprint not in (CorpusRecipe.read(tokens(long)).fingerprint, declared.fingerprint)
    cut = llmc(tmp_path / "cut.bin", ids.astype(np.uint16), count=6000)
    with pytest.raises(InputError, match=r"cut\.bin has the header of llm\.c for 6,000 ids .* copy it again"):
        CorpusRecipe.read(tokens(cut))


def test_npy_files_without_a_header_are_ids(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 60_000, 5000)
    for dtype in ("uint16", "uint32"):
        ids.astype(dtype).tofile(tmp_path / f"{dtype}.npy")  # as OLMo writes them
        np.save(tmp_path / f"{dtype}-header.npy", ids.astype(dtype))
        for name in (f"{dtype}.npy", f"{dtype}-header.npy"):
            corpus = CorpusRecipe.read(tokens(tmp_path / name, dtype=dtype)).build(tmp_path / "corpora")
            np.testing.assert_array_equal(corpus.tokens("train"), ids[:-1001])
    with open(tmp_path / "archive.npy", "wb") as file:
        np.savez(file, ids=ids)
    with pytest.raises(InputError, match=r"archive\.npy is not a \.npy file, but an archive"):
        CorpusRecipe.read(tokens(tmp_path / "archive.npy"))
