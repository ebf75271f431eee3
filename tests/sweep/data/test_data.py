"""From text to batches."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sweep.data import Corpus, CorpusRecipe, CorpusSpec, TrainingSequences, validation_sequences
from sweep.data.text import TextContents
from sweep.data.tokenizer import ByteTokenizer
from sweep.errors import InputError


def test_manifest_says_what_is_on_disk(corpus: Corpus) -> None:
    for part in ("train", "validation"):
        content = (corpus.directory / f"{part}.bin").read_bytes()
        assert corpus.manifest["parts"][part]["sha256"] == hashlib.sha256(content).hexdigest()
        assert corpus.manifest["parts"][part]["tokens"] == len(corpus.tokens(part))
    assert corpus.vocab_size == 257
    assert corpus.manifest["parts"]["validation"]["tokens"] == 4097


def test_bytes_come_back(corpus: Corpus, text_file: Path) -> None:
    # The file is cut into documents at line ends, and the shuffled documents are all there: every line comes back.
    original = set(text_file.read_text().splitlines())
    training = corpus.tokenizer().decode(corpus.tokens("train").tolist()).splitlines()
    assert set(training) <= original
    assert len(set(training)) > 0.8 * len(original)


def test_validation_never_overlaps_training(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.txt" for i in range(40)]
    for i, file in enumerate(files):
        file.write_text(f"document {i} " * 50)
    corpus = CorpusRecipe.read(CorpusSpec(source="text", paths=[str(tmp_path)], validation_tokens=2000)).build(
        tmp_path / "corpora"
    )
    numbers = {
        part: {line.split()[0] for line in corpus.tokenizer().decode(corpus.tokens(part).tolist()).split("document ")[1:]}
        for part in ("train", "validation")
    }
    # Documents follow one another without a mark in the decoded text, but each begins with its own number.
    assert numbers["train"]
    assert numbers["validation"]
    assert not numbers["train"] & numbers["validation"]


def test_duplicates_and_nul_go_and_order_ignores_names(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, "abc"), (second, "cab")):
        folder.mkdir()
        for name, text in zip(names, ("one text\0", "two text", "three text"), strict=True):
            (folder / f"{name}.txt").write_text(text)
    (second / "again.txt").write_text("two text")
    documents = [TextContents.read(CorpusSpec(source="text", paths=[str(folder)])).documents for folder in (first, second)]
    assert documents[0] is not None
    assert documents[0] == documents[1]
    assert documents[0] is not None
    assert sorted(documents[0]) == [b"one text", b"three text", b"two text"]


def test_corpus_is_made_once(text_file: Path, tmp_path: Path) -> None:
    spec = CorpusSpec(source="text", paths=[str(text_file)], validation_tokens=4096)
    recipe = CorpusRecipe.read(spec)
    name, bound = recipe.fingerprint, recipe.training_tokens(tmp_path)
    assert recipe.find(tmp_path) is None
    assert not list(tmp_path.iterdir())
    first = recipe.build(tmp_path)
    assert 0 < recipe.training_tokens(tmp_path) <= bound
    made = (first.directory / "train.bin").stat().st_mtime_ns
    again = CorpusRecipe.read(spec).build(tmp_path)
    assert again.fingerprint == name == first.fingerprint
    assert (again.directory / "train.bin").stat().st_mtime_ns == made
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_fingerprint_follows_what_matters(text_file: Path, tmp_path: Path) -> None:
    def name(**changes: object) -> str:
        spec = CorpusSpec(**{"source": "text", "paths": [str(text_file)], "validation_tokens": 4096, **changes})  # type: ignore[arg-type]
        return CorpusRecipe.read(spec).fingerprint

    copy = tmp_path / "copy.txt"
    copy.write_bytes(text_file.read_bytes())
    names = [name(), name(validation_tokens=2048), name(shuffle_seed=1), name(tokenizer="bpe", vocab_size=300)]
    assert len(set(names)) == len(names)
    assert name(paths=[str(copy)]) == name()


def test_truncated_tokens_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    for file in corpus.directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "train.bin").write_bytes((corpus.directory / "train.bin").read_bytes()[:-2])
    with pytest.raises(InputError, match=r"train\.bin has .* delete"):
        Corpus.open(tmp_path)
    (tmp_path / "train.bin").unlink()
    with pytest.raises(InputError, match=r"lacks train\.bin; delete"):
        Corpus.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"is damaged .* delete"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_tokens_that_changed_are_refused(corpus: Corpus, tmp_path: Path, part: str) -> None:
    shutil.copytree(corpus.directory, tmp_path / "corpus")
    copy = Corpus.open(tmp_path / "corpus")
    copy.verify()
    with open(tmp_path / "corpus" / f"{part}.bin", "r+b") as file:
        file.write(b"\xff\xff")  # an id beyond the vocabulary
    with pytest.raises(InputError, match=rf"{part}.bin has changed since it was built.*built again"):
        copy.verify()


def test_each_sequence_once_per_epoch_in_another_order() -> None:
    tokens = np.arange(1001, dtype=np.uint16)
    sequences = TrainingSequences(tokens, context_length=10, batch_size=8, seed=3)
    assert sequences.sequences == 100
    starts = np.concatenate([sequences.batch(step)[:, 0] for step in range(25)])  # two epochs of 100 sequences
    assert sorted(starts[:100]) == sorted(starts[100:]) == list(range(0, 1000, 10))
    assert (starts[:100] != starts[100:]).any()
    batch = sequences.batch(0)
    assert batch.shape == (8, 11)
    assert (np.diff(batch, axis=1) == 1).all()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    tokens = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint16)
    make = lambda seed: TrainingSequences(tokens, context_length=16, batch_size=4, seed=seed)  # noqa: E731
    forwards = [make(1).batch(step) for step in range(5)]
    backwards = make(1)
    for step in reversed(range(5)):
        np.testing.assert_array_equal(backwards.batch(step), forwards[step])
    assert (make(2).batch(0) != forwards[0]).any()


def test_validation_sequences_cover_the_held_out_part_in_order() -> None:
    tokens = np.arange(65, dtype=np.uint16)
    sequences = validation_sequences(tokens, 16)
    np.testing.assert_array_equal(sequences[:, 0], [0, 16, 32, 48])
    np.testing.assert_array_equal(sequences[-1], np.arange(48, 65))
    with pytest.raises(InputError, match="one sequence"):
        validation_sequences(tokens, 40)


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(InputError, match=r"only 10 tokens.*validation_tokens=4,096"):
        CorpusRecipe.read(CorpusSpec(source="text", paths=[str(short)], validation_tokens=4096)).build(tmp_path / "corpora")
    assert not list((tmp_path / "corpora").iterdir())
    with pytest.raises(InputError, match="do not fill one sequence"):
        TrainingSequences(np.zeros(10, np.uint16), context_length=64, batch_size=1, seed=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            CorpusSpec(source="web"),
            "source=web is none of huggingface, jsonl, parquet, stdlib, text, mixture, tokens, synthetic",
        ),
        (CorpusSpec(source="text"), "data.paths is empty"),
        (CorpusSpec(source="text", paths=["/nowhere/*.txt"]), "'/nowhere/\\*.txt' matches no file"),
    ],
)
def test_unusable_sources_are_refused(spec: CorpusSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CorpusRecipe.read(spec)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8"):
        CorpusRecipe.read(CorpusSpec(source="text", paths=[str(tmp_path)]))


def test_the_standard_library_is_text(tmp_path: Path) -> None:
    documents = TextContents.read(CorpusSpec()).documents
    assert documents is not None
    assert sum(map(len, documents)) > 5e6
    assert all(b"\0" not in document for document in documents)
    assert len(set(documents)) == len(documents)
    decoded = ByteTokenizer().decode(ByteTokenizer().encode(documents[:1])[0].tolist())
    assert decoded.encode() == documents[0]
    json.dumps(decoded)
