"""fit of a sweep whose losses are planted: with seeds, and on sets that were evaluated."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.commands.sweeps import open_sweep, plan_sweep, sweep_folder
from sweep.commands.using import exponents_of_sets
from sweep.config import compose
from sweep.files import write_sealed
from sweep.fit import Surface
from sweep.store import Store
from sweep.store.curves import EVALUATIONS
from tests.stores import leave_results

SURFACE = Surface(E=0.9, A=60.0, B=250.0, alpha=0.4, beta=0.45)
DOCS = replace(SURFACE, A=24.0, alpha=0.3)  # the losses on another text: a = 0.6 instead of 0.53
NOISE = 0.02  # nats, between seeds
GRID = ["grid.isoflop.budgets=[3e10,1e11,3e11,1e12]", "grid.isoflop.sizes=6", "grid.isoflop.span=10"]


def planted(text_file: Path, root: Path, *seeds: int) -> tuple[list[str], float]:
    """A finished sweep with these seeds, and how the losses of its seeds scatter about the mean of their cell."""
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "data.max_epochs=1000"]
    batch = ["optimizer.batch_tokens=32768", "fit.resamples=20", "device=cpu"]
    overrides = [*data, *batch, *GRID, f"axis.seeds={list(seeds)}", f"store={root}", "name=seeds"]
    plan, _ = plan_sweep(compose(overrides), overrides=overrides)
    store, rng = Store(root), np.random.default_rng(1)
    plan.write(sweep_folder(store, "seeds"))
    losses: dict[int, list[float]] = {}
    for each in plan.runs:
        loss = float(SURFACE.predict(each.run.N, each.run.D)) + NOISE * rng.standard_normal()
        leave_results(store.run(each.run.run_id), each.run, loss)
        elsewhere = {"loss": float(DOCS.predict(each.run.N, each.run.D))}
        write_sealed(store.run(each.run.run_id).path / EVALUATIONS, {"validation": {"loss": loss}, "docs": elsewhere})
        losses.setdefault(each.cell, []).append(loss)
    squares = sum(np.var(found) * len(found) for found in losses.values())
    return [f"store={root}"], float(np.sqrt(squares / max(1, len(plan.runs) - len(losses))))


def test_seeds_give_the_noise_of_the_fit(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, scatter = planted(text_file, tmp_path, 0, 1, 2)
    assert main(["fit", "seeds", *store]) == DONE
    capsys.readouterr()
    isoflop = json.loads((tmp_path / "sweeps" / "seeds" / "fits.json").read_text())["isoflop"]
    assert isoflop["seed_noise"] == pytest.approx(scatter)
    assert scatter == pytest.approx(NOISE, rel=0.3)
    assert main(["fit", "seeds", *store, "fit.seed_noise=0.05"]) == DONE  # what is given counts
    isoflop = json.loads((tmp_path / "sweeps" / "seeds" / "fits.json").read_text())["isoflop"]
    assert isoflop["seed_noise"] == pytest.approx(0.05)


def test_one_seed_gives_no_noise(text_file: Path, tmp_path: Path) -> None:
    store, _ = planted(text_file, tmp_path, 0)
    assert main(["fit", "seeds", *store]) == DONE
    isoflop = json.loads((tmp_path / "sweeps" / "seeds" / "fits.json").read_text())["isoflop"]
    assert isoflop["seed_noise"] == pytest.approx(NOISE, rel=0.6)  # from the residuals


def test_the_loss_on_an_evaluated_set_is_fitted(text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = planted(text_file, tmp_path, 0)
    assert main(["fit", "seeds", *store, "fit.loss=docs"]) == DONE
    capsys.readouterr()
    fits = json.loads((tmp_path / "sweeps" / "seeds" / "fits.json").read_text())
    assert fits["convention"]["loss"] == "docs"
    assert fits["parametric"]["a"]["value"] == pytest.approx(DOCS.a, abs=0.01)
    assert main(["report", "seeds", *store, "fit.loss=docs"]) == DONE
    assert "the last loss on docs, a set evaluated after training" in (tmp_path / "sweeps/seeds/report.html").read_text()
    capsys.readouterr()
    assert main(["fit", "seeds", *store, "fit.loss=web"]) == BAD_INPUT
    assert "fit.loss=web is none of val, train, bits_per_byte and the evaluated sets (docs)" in capsys.readouterr().err
    assert main(["train-optimal", "seeds", *store, "fit.loss=docs", "--budget", "3e12"]) == BAD_INPUT
    assert "train-optimal measures no fit.loss=docs" in capsys.readouterr().err


def test_the_exponents_of_all_sets_stand_beside_each_other(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = planted(text_file, tmp_path, 0)
    sweep = open_sweep(Namespace(sweep="seeds", overrides=store, config_dir=None))
    rows = [
        {
            "run_id": each.run.run_id,
            "N": each.run.N,
            "D": each.run.D,
            "set": name,
            "loss": surface.predict(each.run.N, each.run.D),
        }
        for each in sweep.plan.runs
        for name, surface in (("validation", SURFACE), ("docs", DOCS))
    ]
    written = exponents_of_sets(sweep, pd.DataFrame(rows))
    shown = capsys.readouterr().out
    for name, surface in (("validation", SURFACE), ("docs", DOCS)):
        assert f"a of {name} by parametric: {surface.a:.3f}" in shown
    assert written[0].stat().st_size > 5000
