"""Approach 3 finds the optimum of a committed table to the last digits of double precision."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweep.fit import NO_INTERVALS, RunTable, fit_parametric, read_runs

GOLDENS = Path(__file__).resolve().parents[2] / "goldens"
GOLDEN = {name: float(value) for name, value in json.loads((GOLDENS / "surface.json").read_text()).items()}


@pytest.fixture(scope="module")
def runs() -> RunTable:
    """240 simulated runs; goldens/make_surface.py made them and found their optimum in sixty-digit arithmetic."""
    return read_runs(GOLDENS / "surface.csv")


def test_the_optimum_to_twelve_digits(runs: RunTable) -> None:
    fit = fit_parametric(runs, delta=GOLDEN["delta"], intervals=NO_INTERVALS)
    assert len(runs) == GOLDEN["runs"] == 240
    for name in ("E", "A", "B", "alpha", "beta", "a"):
        assert getattr(fit, name).value == pytest.approx(GOLDEN[name], rel=1e-12)
    assert fit.objective == pytest.approx(GOLDEN["objective"], rel=1e-13)
    assert fit.status == "converged"
    assert fit.certificate.stationary
    assert fit.certificate.gradient_norm < 1e-14


def test_other_losses_of_the_residuals_have_other_optima(runs: RunTable) -> None:
    """The golden numbers tell the objectives apart."""
    options: dict[str, Any]
    for options in ({"delta": 1e-2}, {"objective": "lad"}, {"objective": "log_mse"}, {"objective": "linear_mse"}):
        fit = fit_parametric(runs, intervals=NO_INTERVALS, **options)
        assert abs(fit.alpha.value / GOLDEN["alpha"] - 1) > 1e-4
