"""A tiny sweep of the smoke kind, from the grid to the figures, through the commands a user types."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import DONE
from sweep.commands.sweeps import plan_sweep
from sweep.config import compose
from sweep.launch.record import tell
from tests.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).resolve().parent.parent
GRID = ["experiment=smoke", "grid.isoflop.budgets=[6e9,1.2e10,2.4e10]", "grid.isoflop.sizes=5", "grid.isoflop.span=20"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a sweep that has been launched."""
    overrides = [*GRID, f"store={tmp_path_factory.mktemp('smoke')}"]
    assert main(["launch", *overrides]) == DONE
    return overrides


@pytest.fixture(scope="module")
def out(sweep: list[str]) -> Path:
    assert main(["plot", *sweep]) == DONE
    return Path(compose(sweep).out)


def test_models_learn_far_beyond_letter_frequencies(sweep: list[str], out: Path) -> None:
    config = compose(sweep)
    corpus = plan_sweep(config)[1].find(Path(config.store) / "corpora")
    assert corpus is not None
    counts = np.bincount(corpus.tokens("train"))
    share = counts[counts > 0] / counts.sum()
    unigram_entropy = -(share * np.log(share)).sum()
    runs = pd.read_csv(out / "runs.csv")
    assert len(runs) == 15
    assert (runs["state"] == "done").all()
    assert (runs.groupby("budget")["loss"].min() < 0.85 * unigram_entropy).all()  # of any Python's library
    assert (runs["loss_se"] < 0.03).all()
    assert (runs["train_loss"] - runs["loss"]).abs().max() < 0.6  # held out are the last files, which may be unlike the rest


def test_every_profile_is_a_valley_and_more_compute_is_better(out: Path) -> None:
    fits = json.loads((out / "fits.json").read_text())
    profiles = fits["isoflop"]["profiles"]
    assert [profile["status"] for profile in profiles] == ["converged"] * 3
    assert profiles[0]["loss_opt"] > profiles[1]["loss_opt"] > profiles[2]["loss_opt"]
    assert all(2 < profile["D_opt"] / profile["N_opt"] < 200 for profile in profiles)
    assert fits["parametric"]["status"] == "converged"
    assert fits["envelope"]["status"] == "converged"


def test_figures_and_tables_are_there_and_refit_the_same(out: Path, tmp_path: Path) -> None:
    for name in ("envelope", "isoflop", "parametric"):
        assert (out / f"{name}.png").stat().st_size > 20_000
        assert (out / f"{name}.svg").stat().st_size > 20_000
    assert main(["fit", f"table={out / 'runs.csv'}", f"curves={out / 'curves.parquet'}", f"out={tmp_path}"]) == DONE
    assert (tmp_path / "fits.json").read_text() == (out / "fits.json").read_text()


def test_the_report_knows_what_the_runs_ran_on(sweep: list[str], out: Path) -> None:
    assert main(["report", *sweep, "fit.resamples=20"]) == DONE
    page = (out / "report.html").read_text()
    started = json.loads(next(Path(compose(sweep).store).glob("runs/*/provenance.json")).read_text())["starts"][0]
    for told in (
        "15 finished, 15 starts",
        started["versions"]["torch"],
        "tokens to train on",
        "Core-hours, 15 runs",
    ):
        assert told in page
    assert f"on {started['host']}<" not in page
    assert ">Host<" not in page
    assert str(Path(compose(sweep).store)) not in page


def test_a_second_launch_trains_nothing(sweep: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    store = Path(compose(sweep).store)
    before = {path: path.stat().st_mtime_ns for path in store.glob("runs/*/*")}
    assert main(["launch", *sweep]) == DONE
    assert "15 finished before, 0 to train" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in store.glob("runs/*/*")} == before


def test_another_convention_is_another_fit(sweep: list[str], out: Path, tmp_path: Path) -> None:
    before = json.loads((out / "fits.json").read_text())
    tables = [f"table={out / 'runs.csv'}", f"curves={out / 'curves.parquet'}"]
    other = ["fit.parameters=non_embedding", "fit.loss=train", "fit.flops=kaplan"]
    for source in (tables, sweep):  # a table and the store answer alike
        assert main(["fit", *source, *other, f"out={tmp_path}"]) == DONE
        after = json.loads((tmp_path / "fits.json").read_text())
        assert after["convention"] == {"loss": "train", "N": "non_embedding", "C": "kaplan"}
        assert after["parametric"] != before["parametric"]


def test_plan_shows_what_is_done(sweep: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *sweep]) == DONE
    printed = capsys.readouterr().out
    assert printed.count("done") == 15
    assert "15 runs, 0 to train" in printed


def test_what_to_run_next_can_be_planned_with_the_rest(
    sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["next", *sweep, "next.max_runs=3", f"out={tmp_path}"]) == DONE
    printed = capsys.readouterr().out
    overrides = [part.strip("'") for part in printed.splitlines()[-1].split("' '")]
    assert main(["plan", *sweep, *(part.strip(" '") for part in overrides)]) == DONE
    planned = capsys.readouterr().out
    count = len(json.loads((tmp_path / "next.json").read_text())["runs"])
    assert f"{15 + count} runs, {count} to train" in planned


def test_hydra_multirun_lands_in_the_same_store(sweep: list[str], tmp_path: Path) -> None:
    store = compose(sweep).store
    before = set(Path(store, "runs").iterdir())
    arguments = ["-m", "parameters=3e3,5e3", "tokens=1e4", f"store={store}", "device=cpu"]
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "isosweep: grid.runs: N = 3,000 becomes 2,252, the nearest" in done.stderr
    assert "N = 5,000" not in done.stderr  # 4,872 is near
    new = set(Path(store, "runs").iterdir()) - before
    assert [json.loads((run / "status.json").read_text())["state"] for run in new] == ["done"] * 2
    assert list(tmp_path.iterdir()) == []
    bad = subprocess.run(
        [*command[:2], "parameters=3", "tokens=1e4", f"store={store}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert bad.returncode == 2
    assert bad.stderr.startswith("train.py: grid.runs: N: no model of 3 parameters")


def test_a_multirun_that_is_told_to_stop_begins_no_other_run(sweep: list[str], tmp_path: Path) -> None:
    """By a signal or, as here, by what `isosweep cancel` writes. Its overrides are for nobody else to read."""
    store = Path(compose(sweep).store)
    before = set(store.glob("runs/*"))
    arguments = [
        "-m",
        "parameters=8e3,9e3",
        "tokens=2e7",
        "data.max_epochs=2",
        f"store={store}",
        "device=cpu",
        "runtime.compile=off",
    ]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments, "cluster.log_interval_s=0.1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    ) as multirun:
        wait_until(lambda: any((run / "throughput.jsonl").exists() for run in set(store.glob("runs/*")) - before))
        (record,) = store.glob("launches/*/runs.json")
        tell(record.parent)
        assert multirun.wait(timeout=PATIENCE_S) == 1
    (begun,) = set(store.glob("runs/*")) - before
    assert json.loads((begun / "status.json").read_text())["state"] == "interrupted"
    assert stat.S_IMODE((store / "multirun" / "multirun.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize("arguments", [["parameters=abc", "tokens=1e4"], ["parameters=3e3"]])
def test_a_single_run_without_its_numbers_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments, f"store={tmp_path}"]
    bad = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1
    assert "no number" in bad.stderr


def test_a_bad_run_of_a_multirun_does_not_keep_the_others(sweep: list[str], tmp_path: Path) -> None:
    arguments = ["-m", "parameters=3,2e3", "tokens=2e4", f"store={compose(sweep).store}", "device=cpu"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "no model of 3 parameters" in result.stderr
    assert "1 done" in result.stdout
