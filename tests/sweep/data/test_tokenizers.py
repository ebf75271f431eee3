"""Tokenizers: bytes, a trained BPE, and those that others made."""

import math
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.cli import main
from sweep.commands.laws import opened, read_tables
from sweep.commands.sweeps import plan_sweep
from sweep.config import CorpusSpec, compose
from sweep.data import CorpusRecipe
from sweep.data import text as corpus_text
from sweep.data.tokenizer import LibraryTokenizer, train_bpe
from sweep.errors import InputError
from tests.sweep.data.cases import some_documents, write_jsonl


def test_any_tokenizer_json_is_taken(
    wordpiece: Path, same_everywhere: dict[str, CorpusSpec], texts: list[str], tmp_path: Path
) -> None:
    specs = [
        CorpusSpec(**{**vars(same_everywhere["jsonl"]), "tokenizer": str(path)})
        for path in (wordpiece, wordpiece / "tokenizer.json")
    ]
    assert len({CorpusRecipe.read(spec).fingerprint for spec in specs}) == 1
    recipe = CorpusRecipe.read(specs[0])
    corpus = recipe.build(tmp_path)
    assert corpus.vocab_size == recipe.vocab_size
    ids = corpus.tokens("train")
    assert ids.max() < corpus.vocab_size
    assert corpus.manifest["end_of_document"] == 2
    assert (ids == 1).sum() == 0  # nothing is added but the end
    longest = max(np.diff(np.flatnonzero(ids == 2)))
    assert longest > 60  # and nothing cut off
    held_out = corpus.manifest["parts"]["validation"]
    assert corpus.bytes_per_token == held_out["bytes"] / held_out["tokens"]
    assert corpus.bytes_per_token is not None
    assert 3 < corpus.bytes_per_token < 12
    renamed = CorpusRecipe.read(CorpusSpec(**{**vars(specs[0]), "end_of_document": "[CLS]"}))
    assert renamed.fingerprint != recipe.fingerprint


def test_a_document_cannot_end_itself(tmp_path: Path) -> None:
    tokenizer = train_bpe((text.encode() for text in some_documents(200)), 400)
    text = "before <|end_of_document|> after"
    for again in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        ids = again.encode([text.encode()])[0].tolist()
        assert again.end_of_document not in ids
        assert again.decode(ids) == text


def test_a_large_bpe_corpus_holds_out_what_its_tokenizer_never_saw(
    same_everywhere: dict[str, CorpusSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: set[bytes] = set()

    def watched(documents: Any, vocab_size: int) -> LibraryTokenizer:
        known = list(documents)
        learnt.update(known)
        return train_bpe(known, vocab_size)

    monkeypatch.setattr(corpus_text, "train_bpe", watched)
    spec = CorpusSpec(**{**vars(same_everywhere["parquet"]), "tokenizer": "bpe", "vocab_size": 400})
    corpus = CorpusRecipe.read(spec).build(tmp_path)
    assert 100 < len(learnt) < 300
    held_out = corpus.tokenizer().decode(corpus.tokens("validation").tolist())
    assert not any(document.decode() in held_out for document in learnt)


def test_a_tokenizer_that_is_not_the_manifests_is_refused(same_everywhere: dict[str, CorpusSpec], tmp_path: Path) -> None:
    spec = CorpusSpec(**{**vars(same_everywhere["jsonl"]), "tokenizer": "bpe", "vocab_size": 300})
    corpus = CorpusRecipe.read(spec).build(tmp_path)
    train_bpe((text.encode() for text in some_documents(200)), 400).save(corpus.directory)
    with pytest.raises(InputError, match=r"has 400 ids, but the manifest of its corpus says 300; delete"):
        corpus.tokenizer()


def test_losses_in_bits_per_byte(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "lines.jsonl", some_documents(2000))
    sweep = ["data=jsonl", f"data.paths=[{tmp_path / 'lines.jsonl'}]", "data.tokenizer=bpe", "grid=list"]
    sweep += ["data.vocab_size=400", "data.validation_tokens=4096", "grid.runs=[{N: 8000, D: 40_000}, {N: 12_000, D: 40_000}]"]
    sweep += [f"store={tmp_path / 'store'}", "cluster.workers=1", "device=cpu"]
    assert main(["launch", *sweep]) == 0
    tables = {}
    for loss in ("val", "bits_per_byte"):
        options = Namespace(sweep=None, overrides=[f"store={tmp_path / 'store'}", f"fit.loss={loss}"], config_dir=None)
        tables[loss] = read_tables(*opened(options))
    held_out = plan_sweep(compose(sweep))[1].find(tmp_path / "store" / "corpora")
    assert held_out is not None
    ids = held_out.tokens("validation")
    assert held_out.bytes_per_token is not None
    text = held_out.tokenizer().decode(ids.tolist()).encode()
    assert held_out.bytes_per_token * len(ids) == pytest.approx(len(text), abs=4)  # the last document is cut
    factor = 1 / (math.log(2) * held_out.bytes_per_token)
    np.testing.assert_allclose(tables["bits_per_byte"][0].loss, factor * tables["val"][0].loss, rtol=1e-12)
    for nats, bits in zip(tables["val"][1], tables["bits_per_byte"][1], strict=True):
        np.testing.assert_allclose(bits.loss, factor * nats.loss, rtol=1e-6)


def test_bpe_is_lossless_and_splits_digits(text_file: Path, tmp_path: Path) -> None:
    spec = CorpusSpec(source="text", paths=[str(text_file)], tokenizer="bpe", vocab_size=400, validation_tokens=1024)
    corpus = CorpusRecipe.read(spec).build(tmp_path)
    tokenizer = corpus.tokenizer()
    assert corpus.vocab_size == tokenizer.vocab_size == 400
    assert tokenizer.end_of_document == 399
    for text in ("a plain line\n", "ünïcödé 漢字 🦊 \x07", "  indented\t12345"):
        ids = tokenizer.encode([text.encode()])[0]
        assert tokenizer.decode(ids.tolist()) == text
    assert len(tokenizer.encode([b"123456"])[0]) == 6
    assert len(corpus.tokens("train")) < 0.7 * text_file.stat().st_size


def test_bpe_larger_than_its_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only supports"):
        train_bpe([b"a b c"], 5000)
    with pytest.raises(InputError, match="too small for BPE"):
        train_bpe([b"a b c"], 257)
