"""One run: what it writes, and that stopping it changes nothing."""

import json
import math
import operator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from sweep.data import Corpus
from sweep.errors import InputError
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.train.checkpoint import load_checkpoint
from sweep.train.engine.native import NativeEngine
from sweep.train.loop import train
from sweep.train.schedule import learning_rate


def rows(directory: RunDirectory) -> list[dict]:
    return [json.loads(line) for line in directory.curve.read_text().splitlines()]


def weights(directory: RunDirectory) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(directory.checkpoints)
    assert checkpoint is not None
    return checkpoint["model"]


@pytest.fixture
def finished(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> RunDirectory:
    directory = Store(tmp_path / "finished").run(tiny_run.run_id)
    assert train(tiny_run, corpus, directory) == states.DONE
    return directory


def test_the_curve_has_every_step_and_the_validation_points(finished: RunDirectory, tiny_run: RunConfig) -> None:
    steps = [row for row in rows(finished) if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert [row["tokens"] for row in steps] == [128 * step for step in range(1, 13)]
    expected = [learning_rate(i, 12, 0.02, tiny_run.schedule) for i in range(12)]
    assert [row["lr"] for row in steps] == expected
    assert all(row["grad_norm"] > 0 and row["flops"] > 0 for row in steps)
    assert [row["step"] for row in rows(finished) if "val_loss" in row] == [4, 8, 12]
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_the_store_says_what_ran(finished: RunDirectory, tiny_run: RunConfig) -> None:
    status = finished.status()
    assert status["state"] == states.DONE
    assert status["tokens"] == tiny_run.D
    assert status["val_loss"] == rows(finished)[-1]["val_loss"]
    assert 0 < status["val_loss_se"] < 0.5
    assert finished.config() == tiny_run
    (start,) = json.loads((finished.path / "provenance.json").read_text())["starts"]
    assert start["versions"]["torch"] == torch.__version__
    assert {"host", "time", "commit", "device", "corpus"} <= set(start)
    throughput = [json.loads(line) for line in finished.throughput.read_text().splitlines()]
    assert all(row["tokens_per_s"] > 0 and 0 < row["mfu"] < 2 for row in throughput)


def test_stopping_at_every_step_changes_no_bit(
    finished: RunDirectory, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    for k in range(13):
        directory = Store(tmp_path / f"stopped-{k}").run(tiny_run.run_id)
        state = train(tiny_run, corpus, directory, should_stop=partial(operator.le, k))
        assert state == (states.INTERRUPTED if k < 12 else states.DONE)
        assert train(tiny_run, corpus, directory) == states.DONE
        assert directory.curve.read_bytes() == finished.curve.read_bytes()
        for name, value in weights(finished).items():
            assert torch.equal(weights(directory)[name], value), (k, name)


def test_steps_after_the_last_checkpoint_are_trained_again_not_doubled(
    finished: RunDirectory, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    directory = Store(tmp_path / "crashed").run(tiny_run.run_id)
    train(tiny_run, corpus, directory, should_stop=lambda step: step >= 5)
    with open(directory.curve, "a") as curve:  # a crash after two more steps, the second half written
        curve.write('{"step":6,"tokens":768,"loss":9.0}\n{"step":7,"tok')
    train(tiny_run, corpus, directory)
    assert directory.curve.read_bytes() == finished.curve.read_bytes()


def test_a_finished_run_is_left_alone(finished: RunDirectory, tiny_run: RunConfig, corpus: Corpus) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*") if path.is_file()}
    assert train(tiny_run, corpus, finished, on_progress=lambda progress: pytest.fail("it trained")) == states.DONE
    assert {path: path.stat().st_mtime_ns for path in before if path.parent.name != "claim" and path.exists()} == {
        path: time for path, time in before.items() if path.parent.name != "claim"
    }


def test_a_run_has_one_trainer(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    directory = Store(tmp_path).run(tiny_run.run_id)
    directory.create(tiny_run)
    with directory.own() as ours:
        assert ours
        assert train(tiny_run, corpus, directory) == states.RUNNING
        assert not directory.curve.exists()
    assert train(tiny_run, corpus, directory) == states.DONE


def test_a_changed_configuration_is_refused(finished: RunDirectory, tiny_run: RunConfig, corpus: Corpus) -> None:
    text = (finished.path / "config.yaml").read_text()
    (finished.path / "config.yaml").write_text(text.replace("seed: 0", "seed: 1"))
    with pytest.raises(InputError, match="it was changed after the run began"):
        train(tiny_run, corpus, finished)
    (finished.path / "config.yaml").write_text("model: {_target_: os.system}")
    with pytest.raises(InputError, match="not a run configuration"):
        train(tiny_run, corpus, finished)


def test_divergence_ends_the_run_and_its_curve_at_the_last_finite_step(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(engine: NativeEngine, step: int) -> torch.Tensor:
        return honest(engine, step) * (math.nan if step == 6 else 1)

    honest = NativeEngine.step
    monkeypatch.setattr(NativeEngine, "step", planted)
    directory = Store(tmp_path).run(tiny_run.run_id)
    assert train(tiny_run, corpus, directory) == states.DIVERGED
    assert [row["step"] for row in rows(directory) if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert directory.status()["step"] == 6
    assert train(tiny_run, corpus, directory) == states.DIVERGED  # it would diverge again


def test_a_validation_loss_that_is_not_finite_is_divergence(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NativeEngine, "sequence_losses", lambda *args: torch.tensor([1.0, math.inf]))
    directory = Store(tmp_path).run(tiny_run.run_id)
    assert train(tiny_run, corpus, directory) == states.DIVERGED
    assert directory.status()["step"] == 4
    assert len(rows(directory)) == 4


def test_a_curve_that_lost_steps_is_refused(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    directory = Store(tmp_path).run(tiny_run.run_id)
    train(tiny_run, corpus, directory, should_stop=lambda step: step >= 5)
    directory.curve.write_bytes(directory.curve.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"no checkpoint in .* is sound; delete .* to train the run again"):
        train(tiny_run, corpus, directory)


def test_bf16_follows_fp32(tiny_run: RunConfig, corpus: Corpus, finished: RunDirectory, tmp_path: Path) -> None:
    run = replace(tiny_run, precision="bf16")
    directory = Store(tmp_path / "bf16").run(run.run_id)
    assert train(run, corpus, directory) == states.DONE
    assert all(value.dtype == torch.float32 for value in weights(directory).values())
    difference = directory.status()["val_loss"] - finished.status()["val_loss"]
    assert difference != 0
    assert abs(difference) < 0.05
