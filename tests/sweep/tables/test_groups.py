"""Rows that belong together: nearly equal budgets, compute that clusters, several rows of one (N, D), trajectories."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.fit import NO_INTERVALS, Intervals, LawError, fit_isoflop, fit_parametric, runs_from_frame


def loss_of(N: np.ndarray, D: np.ndarray) -> np.ndarray:
    return 1.7 + 400 / N**0.34 + 410 / D**0.28


def profiles(budgets: list[float], noise: float, kind: str = "uniform", seed: int = 0) -> pd.DataFrame:
    """Nine sizes around the optimum of each budget; `budget` is off by `noise`, `planned` is not."""
    rng = np.random.default_rng(seed)
    planned = np.repeat(budgets, 9)
    N = np.round(np.sqrt(planned / 120) * np.tile(np.geomspace(0.3, 3, 9), len(budgets)))
    off = rng.uniform(-noise, noise, len(N)) if kind == "uniform" else noise * rng.standard_normal(len(N))
    D = planned / (6 * N)
    return pd.DataFrame({"N": N, "D": D, "loss": loss_of(N, D), "budget": planned * (1 + off), "planned": planned})


NINE = np.geomspace(6e18, 3e21, 9).tolist()


@pytest.mark.parametrize("budgets", [NINE, [6e18, 1e19, 1.2e19, 3e19, 1e20]])
@pytest.mark.parametrize(("noise", "kind"), [(0.0, "uniform"), (0.003, "uniform"), (0.02, "uniform"), (0.01, "normal")])
def test_budgets_within_a_tolerance_are_one(budgets: list[float], noise: float, kind: str) -> None:
    for seed in range(10):
        frame = profiles(budgets, noise, kind, seed)
        for given in (frame, frame.sample(frac=1, random_state=seed)):
            runs = runs_from_frame(given)
            assert pd.crosstab(given["planned"].to_numpy(), runs.budget).gt(0).sum().tolist() == [1] * len(budgets)
            assert len(runs.notes) == (noise > 0)
    assert runs.budget == pytest.approx(given["planned"].to_numpy(), rel=2.5 * noise)


def test_a_scattered_budget_makes_the_profiles_of_an_exact_one() -> None:
    scattered, exact = (fit_isoflop(profiles(NINE, noise), intervals=NO_INTERVALS) for noise in (0.003, 0.0))
    assert [len(profile.N) for profile in scattered.profiles] == [9] * 9
    assert scattered.a.value == pytest.approx(exact.a.value, abs=1e-3)


def test_budgets_that_were_planned_close_together_stay_apart() -> None:
    for noise in (0, 0.003):
        runs = runs_from_frame(profiles([1e19, 1.1e19, 4e19], noise))
        assert len(np.unique(runs.budget)) == 3
    alone = profiles([1e19, 1e20], 0).assign(budget=lambda frame: 10 ** np.linspace(18, 21, len(frame)))
    np.testing.assert_array_equal(runs_from_frame(alone).budget, alone["budget"])


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.02])
def test_a_table_without_budgets_is_grouped_where_compute_clusters(noise: float) -> None:
    frame = profiles(NINE, noise)
    frame = frame.assign(D=frame["budget"] / (6 * frame["N"]))
    runs = runs_from_frame(frame[["N", "D", "loss"]])
    assert pd.crosstab(frame["planned"].to_numpy(), runs.budget).gt(0).sum().tolist() == [1] * 9
    assert "rows with nearly equal C were taken as 9 budgets" in runs.notes[0]
    assert np.isnan(runs_from_frame(frame[["N", "D", "loss"]], {"budget": "none"}).budget).all()
    assert len(fit_isoflop(frame[["N", "D", "loss"]], intervals=NO_INTERVALS).profiles) == 9


def test_grids_and_scattered_runs_are_not_grouped() -> None:
    rng = np.random.default_rng(0)
    for sizes, horizons in [(5, 5), (8, 8), (12, 12), (6, 20)]:  # the diagonals of these have equal compute
        N, D = np.repeat(2.0 ** np.arange(sizes) * 1e7, horizons), np.tile(2.0 ** np.arange(horizons) * 1e9, sizes)
        some = rng.random(len(N)) > 0.1
        for chosen in (some, ~np.zeros_like(some)):
            runs = runs_from_frame(pd.DataFrame({"N": N, "D": D, "loss": loss_of(N, D)})[chosen])
            assert np.isnan(runs.budget).all()
    for _ in range(50):
        N, D = 10 ** rng.uniform(7, 10, 60), 10 ** rng.uniform(9, 11, 60)
        assert np.isnan(runs_from_frame(pd.DataFrame({"N": N, "D": D, "loss": loss_of(N, D)})).budget).all()


def rates() -> pd.DataFrame:
    """Three learning rates of each (N, D), one of them far off; the middle is best."""
    frame = profiles(NINE, 0).drop(columns="planned")
    parts = [frame.assign(loss=frame["loss"] + off, run_id=[f"{name}{i}" for i in range(81)]) for name, off in OFF.items()]
    return pd.concat(parts, ignore_index=True)


OFF = {"low": 0.02, "best": 0.0, "high": 0.9}


def test_several_rows_of_one_N_and_D() -> None:
    best = runs_from_frame(rates(), how="best")
    assert best.run_id.tolist() == [f"best{i}" for i in range(81)]
    assert len(best.excluded) == 162
    assert best.excluded[0].reason == "best0 has the same N and D and a lower loss"
    mean = runs_from_frame(rates(), how="seeds")
    assert mean.loss == pytest.approx(best.loss + 0.92 / 3)
    assert len(mean) == 81
    with pytest.raises(LawError, match=r"best0 and low0 have the same N = .* losses of .*columns\.replicates=best"):
        runs_from_frame(rates().query("run_id == 'low0' or run_id == 'best0' or run_id == 'best1'"), how="refuse")
    with pytest.raises(LawError, match=r"replicates=mean is none of best, seeds, refuse"):
        runs_from_frame(rates(), how="mean")


def test_losses_far_apart_are_pointed_out_and_seeds_are_not() -> None:
    runs = runs_from_frame(rates())
    assert len(runs) == 243
    (note,) = runs.notes
    assert "81 of 81 (N, D)" in note
    assert "columns.replicates=best" in note
    frame = rates()
    seeds = frame.assign(loss=frame["loss"].where(~frame["run_id"].str.startswith("high"), frame["loss"] - 0.89))
    assert runs_from_frame(seeds).notes == ()


def trajectories(points: int = 30, seed: int = 0, sizes: int = 8) -> pd.DataFrame:
    """Checkpoints of one run per size; what is off in a run is off in all of its points."""
    rng = np.random.default_rng(seed)
    size = np.geomspace(2e7, 2e9, sizes)
    N, run = np.repeat(size, points), np.repeat(np.arange(sizes), points)
    D = 60 * N * np.tile(np.linspace(1 / points, 1, points), sizes)
    off = 0.005 * rng.standard_normal(sizes)[run] + 0.0005 * rng.standard_normal(len(N))
    return pd.DataFrame({"N": N, "D": D, "loss": loss_of(N, D) * (1 + off), "run_id": [f"run{i}" for i in run]})


def test_points_of_trajectories_are_resampled_together() -> None:
    frame = trajectories()
    found = runs_from_frame(frame.drop(columns="run_id"))
    assert found.cluster is not None
    assert len(set(found.cluster)) == 8
    assert "8 sizes have 30 rows each" in found.notes[0]
    assert "columns.cluster=none" in found.notes[0]
    undone = runs_from_frame(frame.drop(columns="run_id"), {"cluster": "none"})
    assert undone.cluster is None
    assert undone.notes == ()
    intervals = Intervals(resamples=50)
    known = fit_parametric(frame.drop(columns="run_id").assign(cluster=frame["N"]), intervals=intervals).a
    alone = frame.drop(columns="run_id").assign(cluster=np.arange(len(frame)))
    assert fit_parametric(found, intervals=intervals).a == known
    narrow = fit_parametric(alone, intervals=intervals).a
    assert np.ptp([known.low, known.high]) > 2 * np.ptp([narrow.low, narrow.high])


def test_grids_of_runs_are_no_trajectories() -> None:
    N, D = np.repeat(np.geomspace(1e7, 1e9, 6), 4), np.tile(np.geomspace(1e9, 1e10, 4), 6)
    runs = runs_from_frame(pd.DataFrame({"N": N, "D": D, "loss": loss_of(N, D)}))
    assert runs.cluster is None
    assert runs.notes == ()
    wide = np.tile(2.0 ** np.arange(10) * 1e8, 6), np.repeat(np.geomspace(1e7, 1e9, 6), 10)
    hinted = runs_from_frame(pd.DataFrame({"N": wide[1], "D": wide[0], "loss": loss_of(wide[1], wide[0])}))
    assert hinted.cluster is None
    assert "columns.cluster=N" in hinted.notes[0]


@pytest.mark.parametrize("remedy", ["columns.cluster=run_id", "columns.cluster=N"])
def test_what_a_message_advises_works(tmp_path: Path, capsys: pytest.CaptureFixture[str], remedy: str) -> None:
    table = tmp_path / "runs.csv"
    trajectories(points=8).rename(columns={"N": "Model Size", "run_id": "name"}).to_csv(table, index=False)
    asked = ["fit", f"table={table}", f"out={tmp_path / 'out'}", "fit.resamples=0", "columns.N=Model Size"]
    assert main([*asked, "columns.run_id=name"]) == BAD_INPUT
    assert "run_id run0 occurs 8 times; if these are points of one trajectory" in capsys.readouterr().err
    named = ["columns.run_id=name"] if remedy == "columns.cluster=run_id" else []
    assert main([*asked, *named, remedy]) == DONE
    assert json.loads((tmp_path / "out" / "fits.json").read_text())["runs"]["used"] == 64
