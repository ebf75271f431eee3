"""Losses along training, from kept checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.config import CorpusSpec, SourceConfig
from sweep.data import Corpus, CorpusRecipe
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store
from sweep.store.curves import ALONG, OWN, evaluated, read_results
from sweep.train.loop import train
from sweep.train.runtime import Runtime
from sweep.use.along import evaluate_along, lacking
from sweep.use.evaluate import sets_of
from sweep.use.positions import position_blocks, surprisal


@pytest.fixture(scope="module")
def other_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "digits.txt"
    path.write_text("".join(f"{number}\n" for number in np.random.default_rng(3).integers(0, 10**6, 40_000)))
    return path


@pytest.fixture
def finished(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> tuple[RunConfig, RunDirectory]:
    """A run of 64 steps that kept 8, 16, 32 and was evaluated at 32 as it trained."""
    run = replace(tiny_run, steps=64, evaluation_points=2)
    directory = Store(tmp_path / "store").run(run.run_id)
    train(run, corpus, directory, Runtime(keep=4))
    return run, directory


def digits(path: Path, tokens: int = 5000) -> tuple[dict[str, SourceConfig], int]:
    return {"digits": SourceConfig(source="text", paths=[str(path)])}, tokens


def test_the_own_loss_along_the_run_is_that_of_training(
    finished: tuple[RunConfig, RunDirectory],
    corpus: Corpus,
    other_text: Path,
) -> None:
    run, directory = finished
    sets = sets_of(corpus, *digits(other_text))
    assert evaluate_along(run, directory, sets, "cpu") == []
    known = evaluated(directory)
    assert list(known[OWN][ALONG]) == list(known["digits"][ALONG]) == ["8", "16", "32"]
    by_step = {row["step"]: row["val_loss"] for row in read_results(directory).evaluations}
    assert known[OWN][ALONG]["32"]["loss"] == pytest.approx(by_step[32], rel=1e-5)
    assert known[OWN]["loss"] == pytest.approx(by_step[64], rel=1e-5)
    losses = [known[OWN][ALONG][step]["loss"] for step in ("8", "16", "32")]
    assert losses == sorted(losses, reverse=True)
    assert np.shape(known[OWN][ALONG]["8"]["blocks"]) == (32, 17)
    assert lacking(run, directory, 4) == 0


def test_what_is_known_is_not_worked_out_again_and_a_changed_set_is(
    finished: tuple[RunConfig, RunDirectory],
    corpus: Corpus,
    other_text: Path,
) -> None:
    run, directory = finished
    evaluate_along(run, directory, sets_of(corpus, *digits(other_text)), "cpu")
    before = evaluated(directory)
    longer = sets_of(corpus, *digits(other_text, 6000))
    evaluate_along(run, directory, longer, "cpu")
    after = evaluated(directory)
    assert after[OWN] == before[OWN]
    assert {found["tokens"] for found in after["digits"][ALONG].values()} == {6000 // 32 * 32}
    for folder in (directory.checkpoints, directory.kept):
        for file in folder.iterdir():
            file.unlink()
    assert evaluate_along(run, directory, longer, "cpu") == []
    assert evaluated(directory) == after
    assert lacking(run, directory, 4) == 0  # they were measured
    assert lacking(run, directory, 6) == 2


def test_a_damaged_one_is_left_out_and_the_others_are_not(finished: tuple[RunConfig, RunDirectory], corpus: Corpus) -> None:
    run, directory = finished
    (path,) = directory.kept.glob("*16.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (problem,) = evaluate_along(run, directory, sets_of(corpus, {}, 0), "cpu")
    assert "is damaged" in problem
    assert path.name in problem
    assert list(evaluated(directory)[OWN][ALONG]) == ["8", "32"]


def test_the_noise_of_the_text_is_taken_out_and_the_law_left(corpus: Corpus) -> None:
    """Of tokens whose loss is their surprise after the one before, and a law of the position, the law is left."""
    random = np.random.default_rng(0)
    flat = np.asarray(corpus.tokens("train"), dtype=np.int64)[: 512 * 32 + 1]
    sequences = np.lib.stride_tricks.sliding_window_view(flat, 33)[::32]
    t = np.arange(1, 33)
    law, surprise = 2 + t**-0.7, surprisal(sequences)
    losses = law + 0.8 * (surprise - surprise.mean()) + 0.05 * random.standard_normal((512, 32))
    blocks = position_blocks(losses, sequences)
    assert blocks.shape[0] == 32
    early = blocks.mean(axis=0)[:4]  # bins of one position each
    off, off_before = np.abs(early - law[:4]).max(), np.abs(losses.mean(axis=0) - law)[:4].max()
    assert off < 0.01
    assert off_before > 3 * off
    assert losses.mean() == pytest.approx(2 + (t**-0.7).mean(), abs=0.01)


def test_surprisal_is_that_of_the_text_itself() -> None:
    found = surprisal(np.array([[0, 1, 0, 2], [0, 1, 0, 1]]))
    assert found == pytest.approx(-np.log([[3 / 4, 1, 1 / 4], [3 / 4, 1, 3 / 4]]))


def test_the_sources_of_a_mixture_along_training(
    text_file: Path,
    other_text: Path,
    tiny_run: RunConfig,
    tmp_path: Path,
) -> None:
    sources = {
        "words": SourceConfig(source="text", paths=[str(text_file)]),
        "digits": SourceConfig(source="text", paths=[str(other_text)]),
    }
    corpus = CorpusRecipe.read(CorpusSpec(source="mixture", sources=sources, validation_tokens=8192)).build(tmp_path / "c")
    run = replace(tiny_run, corpus=corpus.fingerprint)
    directory = Store(tmp_path / "store").run(run.run_id)
    train(run, corpus, directory, Runtime(keep=3))
    evaluate_along(run, directory, sets_of(corpus, {}, 0), "cpu")
    known = evaluated(directory)
    assert list(known) == [OWN, "words", "digits"]
    assert all(list(found[ALONG]) == ["3", "6"] for found in known.values())


def test_the_command(
    text_file: Path,
    other_text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, out = tmp_path / "s", tmp_path / "out"
    sweep = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=8192", "device=cpu", f"store={store}"]
    sweep += ["data.context_length=64", "grid=list", "grid.runs=[{N: 3e3, D: 1e5}, {N: 6e3, D: 1e5}]", "name=two"]
    sets = f"evaluation.sets={{digits: {{source: text, paths: [{other_text}]}}}}"
    assert main(["launch", *sweep]) == DONE
    evaluate = ["evaluate", "two", f"store={store}", f"out={out}", "evaluation.tokens=4096", sets]
    capsys.readouterr()
    # Finished without keep: the losses at the ends as ever, and one line of what there is not.
    assert main(evaluate) == DONE
    assert "along training" not in capsys.readouterr().out
    assert main([*evaluate, "evaluation.keep=4"]) == DONE
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if "along training" in line]
    assert line.startswith(
        "2 of 2 runs lack 6 of their checkpoints along training: they were trained without evaluation.keep=4"
    )
    assert "isosweep launch two evaluation.keep=4 trains them again" in line
    assert (out / "evaluations.csv").exists()
    assert not (out / "along.csv").exists()
    # As the line says.
    for path in (store / "runs").iterdir():
        for file in sorted(path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        path.rmdir()
    assert main(["launch", "two", f"store={store}", "evaluation.keep=4"]) == DONE
    assert main(evaluate) == DONE
    told = capsys.readouterr().out
    assert "lack" not in told
    assert "loss by position, L(t) = L_inf + c t^-gamma" in told
    assert "digits, the end of a run: " in told
    frame = pd.read_csv(out / "along.csv")
    assert len(frame) == 2 * 4 * 2
    assert sorted(frame["set"].unique()) == ["digits", OWN]
    assert frame.groupby("run_id")["final"].sum().tolist() == [2, 2]
    assert (frame["tokens"] <= frame["D"]).all()
    ends = pd.read_csv(out / "evaluations.csv").merge(frame[frame["final"]], on=["run_id", "set"])
    assert ends["loss_x"].tolist() == pytest.approx(ends["loss_y"].tolist())
    found = json.loads((out / "along.json").read_text())
    assert len(found["positions"]) == 8
    assert {each["of"] for each in found["effects"]} == {"the end of a run", "a tenfold N"}
    for figure in ("positions_along.png", "transfer_along.svg", "sets_along.png"):
        assert (out / figure).stat().st_size > 5000
    # compare says it of an experiment with this analysis; without text to compare with it says what to do.
    assert main(["compare", "two", f"store={store}", f"out={out}", "about.analysis=transfer"]) == DONE
    assert "cannot be told: at equal loss on the training text" in capsys.readouterr().out
    for path in store.glob("runs/*/evaluations.json"):
        path.unlink()
    assert main(["compare", "two", f"store={store}", f"out={out}", "about.analysis=transfer"]) == BAD_INPUT
    assert "isosweep evaluate measures them" in capsys.readouterr().err
