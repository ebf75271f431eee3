"""Projects on wandb read back as tables: one that the mirror wrote, and one of another program."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.data import Corpus
from sweep.fit import LawError, read_curves, read_frame, runs_from_frame
from sweep.plan.run import RunConfig
from sweep.store import Store
from tests.sweep.tracking.mirrored import ONLINE, curve_of, train_mirrored
from tests.sweep.tracking.wandb_server import WandbServer

pytest.importorskip("wandb")


def test_a_mirrored_project_is_read_back_as_a_table(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    """Through wandb's own API, from what wandb's own client sent."""
    store = Store(tmp_path / "store")
    labels = {tiny_run.run_id: {"budget": 1e15}}
    mirror = train_mirrored(tiny_run, corpus, store, replace(ONLINE, entity="me"), labels=labels)
    assert mirror.delivered == {"online": 1}
    address, (row,) = "wandb://me/p", read_frame("wandb://me/p").to_dict("records")
    directory = store.run(tiny_run.run_id)
    last = curve_of(directory)[tiny_run.steps]
    assert (row["run_id"], row["state"], row["group"]) == (tiny_run.run_id, "finished", "g")
    assert (row["N"], row["D"], row["model.d_model"]) == (tiny_run.N, tiny_run.D, tiny_run.model.d_model)
    assert row["eval/loss"] == directory.status()["val_loss"]
    assert (row["train/loss"], row["tokens"], row["budget"]) == (last["train/loss"], tiny_run.D, 1e15)

    runs = runs_from_frame(read_frame(address), {"loss": "eval/loss"}, address)
    (curve,) = read_curves(address, {"loss": "train/loss"}, runs)
    steps = curve_of(directory)
    assert curve.tokens.tolist() == [tiny_run.batch_tokens * step for step in steps]
    assert curve.loss.tolist() == [steps[step]["train/loss"] for step in steps]
    assert read_frame(f"{address}?group=g")["run_id"].tolist() == [tiny_run.run_id]
    for wrong, message in (
        ("wandb://me/p?group=other", "has no runs"),
        ("wandb://me/nowhere", "Could not find project nowhere"),
        ("wandb://me", "is not a project; write wandb://entity/project"),
    ):
        with pytest.raises(LawError, match=message):
            read_frame(wrong)


def test_a_project_on_wandb_is_fitted_alone(
    tmp_path: Path, server: WandbServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that another program logged, with a name of its own for everything."""
    for k, (size, ratio) in enumerate((size, ratio) for size in (20, 40, 80, 160, 320) for ratio in (10, 40, 120)):
        D = 1e6 * size * ratio
        config = {"params": {"value": f"{size}M"}, "batch_tokens": {"value": 65536}, "_wandb": {"value": {}}}
        server.created[f"id{k}"] = {"project": "laws", "displayName": f"run {k}", "config": json.dumps(config)}
        loss = 1.7 + 400 / (1e6 * size) ** 0.34
        curve = [
            {"_step": step, "train/loss": loss + 410 / (65536 * step) ** 0.28}
            for step in range(round(D / 65536 / 50), round(D / 65536), 97)
        ]
        server.history[f"id{k}"] = curve
        server.summaries[f"id{k}"] = {"seen": D, "eval/loss": loss + 410 / D**0.28, "_step": 9}
        server.ended[f"id{k}"] = 0
    named = ["columns.N=params", "columns.D=seen", "columns.loss=eval/loss", "columns.curve_loss=train/loss"]
    table = ["table=wandb://me/laws", "curves=wandb://me/laws", *named, f"out={tmp_path}", "fit.resamples=0"]
    assert main(["fit", *table]) == DONE
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert fits["runs"]["used"] == 15
    assert fits["parametric"]["a"]["value"] == pytest.approx(0.28 / 0.62, abs=1e-3)
    assert fits["envelope"]["status"] == "converged"

    server.shutdown()
    server.server_close()
    capsys.readouterr()
    monkeypatch.setattr("sweep.tables.exports.TIMEOUT_S", 2)
    assert main(["fit", *table]) == BAD_INPUT
    error = capsys.readouterr().err
    assert "wandb://me/laws" in error
    assert error.count("isosweep: ") == 1
