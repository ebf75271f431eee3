"""fit of a sweep with seeds, whose losses are planted."""

import json
from pathlib import Path

import numpy as np
import pytest

from sweep.cli import main
from sweep.commands import DONE
from sweep.commands.sweeps import plan_sweep, sweep_folder
from sweep.config import compose
from sweep.fit import Surface
from sweep.store import Store
from tests.stores import leave_results

SURFACE = Surface(E=0.9, A=60.0, B=250.0, alpha=0.4, beta=0.45)
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
