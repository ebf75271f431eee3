"""Tokenizers: bytes, a trained BPE, and those that others made."""

import math
import pickle
import re
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import psutil
import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from sweep.cli import main
from sweep.commands.laws import opened, read_tables
from sweep.commands.sweeps import plan_sweep
from sweep.config import CorpusSpec, compose
from sweep.data import CorpusRecipe
from sweep.data.text import TextContents
from sweep.data.tokenizer import LONG_WORD_BYTES, train_bpe
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
    same_everywhere: dict[str, CorpusSpec], tmp_path: Path
) -> None:
    recipe = CorpusRecipe.read(CorpusSpec(**{**vars(same_everywhere["parquet"]), "tokenizer": "bpe", "vocab_size": 400}))
    corpus = recipe.build(tmp_path)
    assert isinstance(recipe.contents, TextContents)
    learnt = set(recipe.contents.documents_to_train_on())
    assert corpus.tokenizer().identity() == train_bpe(learnt, 400).identity()
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


def plain_bpe(text: str, vocab_size: int) -> dict[str, int]:
    """The vocabulary that the library learns by itself."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator([text], trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet))
    return library.get_vocab()


def test_long_words_are_cut_and_others_learnt_whole() -> None:
    rng = np.random.default_rng(0)
    code = "".join(map(chr, rng.integers(ord("a"), ord("z") + 1, LONG_WORD_BYTES)))
    long = [code, "=" * LONG_WORD_BYTES, "\t" * (LONG_WORD_BYTES - 1)]  # a line's end and the tabs are one word
    ordinary = "\n".join([*some_documents(300), "漢字仮名交じり文。" * 20, *long])
    learnt = train_bpe([ordinary.encode()], 420).library
    assert {token: i for token, i in learnt.get_vocab().items() if i < 419} == plain_bpe(ordinary, 419)
    assert "Split" not in learnt.to_str()

    def letters(size: int) -> str:
        return "".join(map(chr, rng.integers(ord("a"), ord("h"), size)))

    # Uncut, the millions of letters would take days.
    for text in (letters(5_000_000), " " * 2_000_000, "=-" * 1_000_000, "漢字" * 1_000_000):
        tokenizer = train_bpe([f"{letters(1000)}\n{text}".encode()], 300)
        start = text[-2000:]
        assert tokenizer.decode(tokenizer.encode([start.encode()])[0].tolist()) == start


LEARNING = """
import sys
from pathlib import Path
from sweep.config import CorpusSpec
from sweep.data import CorpusRecipe

if __name__ == "__main__":
    spec = CorpusSpec(source="text", paths=[sys.argv[1]], tokenizer="bpe", vocab_size=30_000, validation_tokens=1024)
    CorpusRecipe.read(spec).build(Path(sys.argv[2]), advance=lambda size, doing="tokenising": print(doing, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_bpe_says_how_far_it_is_and_can_be_interrupted(how: signal.Signals, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "letters.txt").write_bytes(rng.integers(ord("a"), ord("z") + 1, 8_000_000, dtype=np.uint8).tobytes())
    (tmp_path / "learn.py").write_text(LEARNING)
    command = [sys.executable, str(tmp_path / "learn.py"), str(tmp_path / "letters.txt"), str(tmp_path / "corpora")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as learning:
        assert learning.stdout is not None
        while not (line := learning.stdout.readline()).startswith("learning a BPE: compute merges"):
            assert line
        assert re.fullmatch(r"learning a BPE: compute merges, [\d,]+ of 29,999\n", line)
        children = psutil.Process(learning.pid).children(recursive=True)
        assert children
        learning.send_signal(how)
        assert learning.wait(timeout=20) != 0  # the merges would take longer
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert not list((tmp_path / "corpora").glob("[0-9a-f]*"))


def test_bpe_larger_than_its_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only supports"):
        train_bpe([b"a b c"], 5000)
    with pytest.raises(InputError, match="too small for BPE"):
        train_bpe([b"a b c"], 257)
