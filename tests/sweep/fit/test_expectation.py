"""What a grid would tell about a, before it is trained, against fits of simulated sweeps on that grid."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.fit import NO_INTERVALS, Intervals, LawError, Noise, Simulator, fit_parametric, next_runs
from sweep.fit.approaches.parametric_problem import ILL_CONDITIONED
from sweep.fit.questions.expectation import REFERENCE_C, SCATTER, TOO_WIDE, expect, inefficiency
from sweep.fit.surface import BESIROGLU, CHINCHILLA, Surface

Grid = tuple[np.ndarray, np.ndarray]


def isoflop(budgets: Any, sizes: int, span: float, ratio: float = 20) -> Grid:
    """(N, D) of `sizes` at each budget, over a factor `span` about D / N = `ratio`."""
    C = np.repeat(np.asarray(budgets, dtype=float), sizes)
    N = np.sqrt(C / 6 / ratio) * np.tile(np.geomspace(span**-0.5, span**0.5, sizes), len(budgets))
    return N, C / (6 * N)


def horizons(sizes: list[float], ratios: list[float]) -> Grid:
    N, ratio = (grid.ravel() for grid in np.meshgrid(sizes, ratios))
    return N, ratio * N


GRIDS = {
    "five budgets": isoflop(np.geomspace(1e18, 1e20, 5), 7, 16),
    "a laptop's three": isoflop([2e10, 6e10, 2e11], 6, 12),
    "horizons": horizons([8e3, 2e4, 4e4, 1e5], [5, 10, 20, 40, 80]),
}


def assumed_surface(N: np.ndarray, D: np.ndarray) -> Surface:
    """Chinchilla's exponents and E; its terms at its optimum of 1e20 FLOPs, at the geometric mean of the grid."""
    N_opt, D_opt = CHINCHILLA.optimal(REFERENCE_C)
    N_0, D_0 = np.exp(np.log(N).mean()), np.exp(np.log(D).mean())
    A = CHINCHILLA.A / N_opt**CHINCHILLA.alpha * N_0**CHINCHILLA.alpha
    B = CHINCHILLA.B / D_opt**CHINCHILLA.beta * D_0**CHINCHILLA.beta
    return Surface(E=CHINCHILLA.E, A=A, B=B, alpha=CHINCHILLA.alpha, beta=CHINCHILLA.beta)


@pytest.mark.parametrize(("grid", "objective"), [*((grid, "huber") for grid in GRIDS), ("a laptop's three", "log_mse")])
def test_planted_sweeps_scatter_as_expected(grid: str, objective: str) -> None:
    """40 fits tell a standard deviation to 11 %; 1.4 is three times that."""
    N, D = GRIDS[grid]
    expected, surface = expect(N, D, objective=objective), assumed_surface(N, D)
    fits = [
        fit_parametric(
            Simulator(surface=surface, noise=Noise(run=SCATTER), seed=seed).runs(N, D),
            objective=objective,
            intervals=NO_INTERVALS,
        )
        for seed in range(40)
    ]
    assert 1 / 1.4 < np.std([fit.a.value for fit in fits]) / expected.sd < 1.4
    conditions = np.median([fit.certificate.condition_number for fit in fits])
    assert expected.condition_number == pytest.approx(conditions, rel=0.1 if objective == "log_mse" else 0.7)
    assert expected.problem is None
    assert expected.a.low is not None
    assert expected.a.high is not None
    assert (expected.a.high - expected.a.low) / 2 == pytest.approx(1.2816 * expected.sd, rel=1e-4)
    for part in (f"a = {CHINCHILLA.a:.4g} (", "80% interval", "condition number", "Chinchilla's surface", "scatter by 0.5 %"):
        assert part in expected.line()


def test_what_an_estimator_loses_against_least_squares() -> None:
    """Huber 1964: the square root of pi / 2 for absolute values; 95 % efficiency at 1.345 standard deviations."""
    assert inefficiency("lad", 1e-3, 0.005) == pytest.approx(np.sqrt(np.pi / 2))
    assert inefficiency("huber", 1e-9, 0.005) == pytest.approx(np.sqrt(np.pi / 2))
    assert inefficiency("huber", 1.345 * 0.005, 0.005) == pytest.approx(0.95**-0.5, abs=1e-3)
    assert inefficiency("huber", 1.0, 0.005) == pytest.approx(1)
    assert inefficiency("log_mse", 1e-9, 0.005) == 1
    draws = np.random.default_rng(0).standard_normal((4000, 101))
    assert np.std(np.median(draws, axis=1)) / np.std(draws.mean(axis=1)) == pytest.approx(inefficiency("lad", 1, 1), rel=0.05)


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        (isoflop([1e18], 12, 16), "D follows from N"),
        (horizons([1e7, 3e7, 1e8, 3e8, 1e9, 3e9], [20]), "D follows from N"),
        ((np.geomspace(1e7, 1e9, 9), 1e10 * np.linspace(1, 1.01, 9)), "D hardly varies"),
        ((1e8 * np.linspace(1, 1.1, 9), np.geomspace(1e9, 1e11, 9)), "N hardly varies"),
        (isoflop([1e18, 1e19], 2, 4), "needs at least 6 runs"),
        (isoflop([1e18, 2e18, 4e18], 5, 2), "too wide to tell Kaplan's 0.73 from Chinchilla's 0.50"),
    ],
)
def test_a_grid_that_cannot_identify_a_is_told(grid: Grid, why: str) -> None:
    found = expect(*grid)
    assert found.a.low is None
    assert found.problem is not None
    assert found.line().startswith(f"a cannot be identified by {len(grid[0])} runs: ")
    assert why in found.line()
    json.dumps(found.to_dict(), allow_nan=False)


def test_many_runs_do_not_hide_an_ill_conditioned_design() -> None:
    """The interval alone would pass: what is left is that some combination of the constants is hardly determined."""
    N, D = (np.repeat(x, 30_000) for x in isoflop([1e18, 1.3e18, 1.6e18], 3, 1.4))
    found = expect(N, D)
    assert found.condition_number > ILL_CONDITIONED
    assert 2.56 * found.sd < TOO_WIDE
    assert "some combination of E, A, B, alpha and beta is hardly determined" in found.line()


def test_an_earlier_fit_takes_the_place_of_chinchillas_surface() -> None:
    N, D = GRIDS["five budgets"]
    runs = Simulator(surface=BESIROGLU, noise=Noise(run=0.01)).runs(N, D)
    fit = fit_parametric(runs, intervals=NO_INTERVALS)
    saved = {"convention": {"loss": "val", "N": "total", "C": "6N"}, "parametric": fit.to_dict()}
    found = expect(N, D, previous=saved)
    assert found.a.value == pytest.approx(fit.a.value)
    assert "the surface of the sweep's last fit; losses that scatter by" in found.line()
    assert found.sd == pytest.approx(2 * expect(N, D).sd, rel=0.8)  # it scatters about twice as much
    for other in (
        {**saved, "convention": {"N": "non_embedding", "C": "6N"}},
        {**saved, "parametric": {"status": "collinear", "reason": "one budget"}},
        {},
    ):
        assert expect(N, D, previous=other) == expect(N, D)


def test_a_tied_fit_is_known_before() -> None:
    found = expect(*GRIDS["horizons"], tied=True)
    assert str(found.a) == "0.5 (by construction, no interval)"


def test_next_tells_what_the_new_runs_add() -> None:
    runs = Simulator(surface=CHINCHILLA, noise=Noise(run=0.005)).isoflop([1e18, 3e18, 1e19], sizes=7)
    fit = fit_parametric(runs, intervals=Intervals(60))
    chosen = next_runs(fit, runs, flops=1e20, most=7)
    assert (chosen.now.sd, chosen.then.sd) == (pytest.approx(chosen.sd_before), pytest.approx(chosen.sd_after))
    assert (chosen.now.runs, chosen.then.runs) == (21, 21 + len(chosen.N))
    assert chosen.then.condition_number < chosen.now.condition_number
    assert "now:  a = " in chosen.summary()
    assert "then: a = " in chosen.summary()
    json.dumps(chosen.to_dict(), allow_nan=False)
    loss = next_runs(fit, runs, flops=1e20, most=2, target="loss", target_C=1e22)
    assert loss.now == chosen.now  # of a, whatever the target


def test_plan_tells_it_before_any_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("A text of a few words. " * 40_000)
    data = [
        "data=text",
        f"data.paths=[{tmp_path / 'text.txt'}]",
        "data.validation_tokens=4096",
        "data.max_epochs=20",
        "device=cpu",
    ]
    common = [*data, f"store={tmp_path / 'store'}", f"out={tmp_path / 'out'}"]
    grid = ["grid=isoflop", "grid.isoflop.budgets=[2e10,6e10,2e11]", "grid.isoflop.sizes=6", "grid.isoflop.span=12"]
    assert main(["plan", *common, *grid]) == DONE
    assert "is to be expected of 18 runs by Approach 3 (80% interval); condition number" in capsys.readouterr().out
    assert main(["plan", *common, *grid[:1], "grid.isoflop.budgets=[6e10]"]) == DONE
    assert "a cannot be identified by" in capsys.readouterr().out
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "fits.json").write_text("{")
    assert main(["plan", *common, *grid]) == BAD_INPUT
    assert "fits.json is damaged" in capsys.readouterr().err


def test_an_unusable_array_is_refused() -> None:
    with pytest.raises(LawError):
        expect([1e8, 1e9, -1.0], [1e9, 1e10, 1e11])
