"""Losses of finished runs on other text."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.config import CorpusSpec, SourceConfig
from sweep.data import Corpus, CorpusRecipe
from sweep.errors import InputError
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store
from sweep.train.loop import train
from sweep.use.evaluate import OWN, evaluate, evaluated, sets_of


@pytest.fixture(scope="module")
def other_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "digits.txt"
    rng = np.random.default_rng(3)
    path.write_text("".join(f"{number}\n" for number in rng.integers(0, 10**6, 40_000)))
    return path


@pytest.fixture
def finished(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> tuple[RunConfig, RunDirectory]:
    run = replace(tiny_run, steps=60)
    directory = Store(tmp_path / "store").run(run.run_id)
    train(run, corpus, directory)
    return run, directory


def test_the_own_loss_is_that_of_training(finished: tuple[RunConfig, RunDirectory], corpus: Corpus, other_text: Path) -> None:
    run, directory = finished
    sets = sets_of(corpus, {"digits": SourceConfig(source="text", paths=[str(other_text)])}, 5000)
    found = evaluate(run, directory, sets, "cpu")
    status = directory.status()
    assert found[OWN]["loss"] == pytest.approx(status["val_loss"], rel=1e-5)
    assert found[OWN]["loss_se"] == pytest.approx(status["val_loss_se"], rel=1e-4)
    assert len(found[OWN]["by_position"]) == 32
    assert np.mean(found[OWN]["by_position"]) == pytest.approx(found[OWN]["loss"])
    assert found["digits"]["loss"] > found[OWN]["loss"] + 0.3  # it has seen no digit
    assert found["digits"]["tokens"] == 5000 // 32 * 32
    # A byte is a token, but for one at the end of each document.
    assert found["digits"]["bits_per_byte"] == pytest.approx(found["digits"]["loss"] / np.log(2), rel=1e-3)


def test_what_is_known_is_not_worked_out_again(
    finished: tuple[RunConfig, RunDirectory], corpus: Corpus, other_text: Path
) -> None:
    run, directory = finished
    named = {"digits": SourceConfig(source="text", paths=[str(other_text)])}
    first = evaluate(run, directory, sets_of(corpus, named, 5000), "cpu")
    for file in directory.checkpoints.iterdir():
        file.unlink()
    assert evaluate(run, directory, sets_of(corpus, named, 5000), "cpu") == first == evaluated(directory)
    with pytest.raises(InputError, match="holds no checkpoint"):
        evaluate(run, directory, sets_of(corpus, named, 6000), "cpu")  # other tokens


def test_the_sources_of_a_mixture_make_up_the_whole(
    text_file: Path, other_text: Path, tiny_run: RunConfig, tmp_path: Path
) -> None:
    sources = {
        "words": SourceConfig(source="text", paths=[str(text_file)]),
        "digits": SourceConfig(source="text", paths=[str(other_text)]),
    }
    spec = CorpusSpec(source="mixture", sources=sources, validation_tokens=8192)
    corpus = CorpusRecipe.read(spec).build(tmp_path / "corpora")
    run = replace(tiny_run, corpus=corpus.fingerprint)
    directory = Store(tmp_path / "store").run(run.run_id)
    train(run, corpus, directory)
    own, words, digits = sets_of(corpus, {}, 0)
    assert (own.name, words.name, digits.name) == (OWN, "words", "digits")
    assert len(words.tokens) + len(digits.tokens) == len(own.tokens)
    assert np.isin(digits.tokens, [*b"0123456789\n", 256]).all()
    assert not np.isin(words.tokens, list(b"0123456789")).any()
    found = evaluate(run, directory, [own, words, digits], "cpu")
    weights = np.array([len(words.tokens), len(digits.tokens)])
    losses = np.array([found["words"]["loss"], found["digits"]["loss"]])
    assert found[OWN]["loss"] == pytest.approx((weights * losses).sum() / weights.sum(), rel=0.01)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"validation": SourceConfig(source="stdlib")}, "choose another name"),
        ({"web": SourceConfig(source="text", paths=["/nowhere/*.txt"])}, r"evaluation\.sets\.web.*matches no file"),
        ({"web": SourceConfig(source="radio")}, r"evaluation\.sets\.web\.source=radio is none of"),
    ],
)
def test_bad_sets(corpus: Corpus, named: dict[str, SourceConfig], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sets_of(corpus, named, 1000)


def test_a_set_of_less_than_two_sequences(finished: tuple[RunConfig, RunDirectory], corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("forty characters are not enough for two.")
    sets = sets_of(corpus, {"short": SourceConfig(source="text", paths=[str(tmp_path / "short.txt")])}, 1000)
    with pytest.raises(InputError, match="41 tokens are not two sequences"):
        evaluate(*finished, sets, "cpu")


def test_the_command(text_file: Path, other_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "device=cpu", f"store={tmp_path / 's'}"]
    sweep += ["grid=list", "grid.runs=[{N: 3e3, D: 1e5}, {N: 6e3, D: 1e5}]", f"out={tmp_path / 'out'}"]
    sets = f"evaluation.sets={{digits: {{source: text, paths: [{other_text}]}}}}"
    assert main(["evaluate", *sweep, sets]) == BAD_INPUT
    assert "which sweep of store=" in capsys.readouterr().err
    assert main(["launch", *sweep]) == DONE
    assert main(["evaluate", *sweep, sets]) == DONE  # the sets are no part of what a run is
    frame = pd.read_csv(tmp_path / "out" / "evaluations.csv")
    assert sorted(frame["set"]) == ["digits"] * 2 + [OWN] * 2
    assert (frame["loss"] > 1).all()
    for figure in ("positions.png", "transfer.svg"):
        assert (tmp_path / "out" / figure).stat().st_size > 5000
    assert main(["evaluate", *sweep, "evaluation.sets={x: {source: text, paths: [/nowhere]}}"]) == BAD_INPUT
    assert "evaluation.sets.x" in capsys.readouterr().err
