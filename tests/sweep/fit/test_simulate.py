"""The simulator, and what the fits make of random surfaces."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sweep.cli import main
from sweep.fit import (
    NO_INTERVALS,
    Compute,
    LawError,
    Noise,
    Simulator,
    Surface,
    fit_isoflop,
    fit_parametric,
    read_curves,
    read_runs,
)
from sweep.tables.curves import Curve
from sweep.tables.table import COLUMNS, RunTable

SURFACE = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
BUDGETS = np.geomspace(1e18, 1e20, 5).tolist()


def write_simulated(runs: RunTable, curves: Sequence[Curve], out: Path) -> tuple[Path, Path]:
    """runs.csv and curves.parquet under `out`, with the columns that `isosweep fit table=… curves=…` reads."""
    out.mkdir(parents=True, exist_ok=True)
    frame = {name: getattr(runs, name) for name in ("run_id", "budget", "N", "D", "C", "loss")}
    pd.DataFrame(frame).assign(state="done").to_csv(out / "runs.csv", index=False)
    pd.concat(
        [pd.DataFrame({"run_id": curve.run_id, "tokens": curve.tokens, "loss": curve.loss}) for curve in curves]
        or [pd.DataFrame({"run_id": [], "tokens": [], "loss": []})]
    ).to_parquet(out / "curves.parquet", index=False)
    return out / "runs.csv", out / "curves.parquet"


@st.composite
def surfaces(draw: st.DrawFn) -> Surface:
    """Surfaces whose three terms all show around 1e9 parameters and 2e10 tokens, as a measured one's must."""
    alpha, beta = draw(st.floats(0.15, 0.7)), draw(st.floats(0.15, 0.7))
    E, of_N, of_D = (draw(st.floats(low, high)) for low, high in ((0.3, 3.0), (0.1, 1.5), (0.1, 1.5)))
    return Surface(E=E, A=of_N * 1e9**alpha, B=of_D * 2e10**beta, alpha=alpha, beta=beta)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(surfaces(), st.integers(0, 2**32))
def test_every_surface_comes_back(surface: Surface, seed: int) -> None:
    rng = np.random.default_rng(seed)
    N, D = 1e9 * np.exp(rng.uniform(-4, 4, 60)), 2e10 * np.exp(rng.uniform(-4, 4, 60))
    fit = fit_parametric(N, D, surface.predict(N, D), intervals=NO_INTERVALS)
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(fit, name).value == pytest.approx(getattr(surface, name), rel=1e-5)
    assert fit.a.value == pytest.approx(surface.a, rel=1e-6)
    assert fit.status in ("converged", "bound")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(surfaces(), st.integers(0, 2**32))
def test_units_do_not_matter(surface: Surface, seed: int) -> None:
    """N counted twice, D thrice: the exponents stay, A and B take the factors up."""
    rng = np.random.default_rng(seed)
    N, D = 1e9 * np.exp(rng.uniform(-4, 4, 40)), 2e10 * np.exp(rng.uniform(-4, 4, 40))
    loss = surface.predict(N, D) * np.exp(0.01 * rng.standard_normal(40))
    try:
        one, other = (
            fit_parametric(N, D, loss, intervals=NO_INTERVALS),
            fit_parametric(2 * N, 3 * D, loss, intervals=NO_INTERVALS),
        )
    except LawError:
        assume(False)  # noise can hide a flat term
    assert other.objective == pytest.approx(one.objective, rel=1e-9)
    assert other.alpha.value == pytest.approx(one.alpha.value, rel=1e-5, abs=1e-7)
    assert other.B.value == pytest.approx(one.B.value * 3**one.beta.value, rel=1e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(surfaces(), st.floats(8, 64), st.floats(0.6, 1.6))
def test_the_corrected_parabola_finds_every_surfaces_exponent(surface: Surface, span: float, off_centre: float) -> None:
    runs = Simulator(surface=surface).isoflop(BUDGETS, sizes=9, span=span, off_centre=off_centre)
    try:
        fit = fit_isoflop(runs, intervals=NO_INTERVALS)
    except LawError:
        assume(False)  # far off centre no profile has a minimum
    assert fit.a_corrected is not None
    assert fit.a_corrected.value == pytest.approx(surface.a, abs=1e-4)


def test_runs_lie_on_the_surface_and_scatter_as_asked() -> None:
    exact = Simulator(surface=SURFACE).isoflop(BUDGETS)
    np.testing.assert_allclose(exact.loss, SURFACE.predict(exact.N, exact.D))
    np.testing.assert_allclose(exact.C, exact.budget)
    N = np.full(4000, 1e8)
    D = np.repeat([1e9, 1e11], 2000)
    even = Simulator(surface=SURFACE, noise=Noise(run=0.01)).runs(N, D)
    assert np.std(np.log(even.loss / SURFACE.predict(N, D))) == pytest.approx(0.01, rel=0.05)
    falling = Simulator(surface=SURFACE, noise=Noise(run=0.01, decay=0.25)).runs(N, D)
    scatter = np.log(falling.loss / SURFACE.predict(N, D))
    assert np.std(scatter[:2000]) / np.std(scatter[2000:]) == pytest.approx(100**0.25, rel=0.1)
    other = Simulator(surface=SURFACE, noise=Noise(run=0.01), seed=1).runs(N, D)
    assert not np.array_equal(other.loss, even.loss)


def test_curves_end_in_their_runs_and_remember() -> None:
    simulator = Simulator(surface=SURFACE, noise=Noise(run=0.01, step=0.01, memory=0.95, undecayed=0.1))
    runs = simulator.isoflop(BUDGETS)
    curves = simulator.curves(runs, points=400)
    jitter = []
    for run, curve in zip(range(len(runs)), curves, strict=True):
        assert curve.tokens[-1] == pytest.approx(runs.D[run])
        assert curve.loss[-1] == pytest.approx(runs.loss[run], rel=0.05)
        annealing = 0.05 * (1 + np.cos(np.pi * curve.tokens / runs.D[run]))
        shared = np.log(runs.loss[run] / SURFACE.predict(runs.N[run], runs.D[run]))
        jitter.append(np.log(curve.loss / (SURFACE.predict(curve.N, curve.tokens) + annealing)) - shared)
    rows = np.array(jitter)
    assert np.std(rows) == pytest.approx(0.01, rel=0.15)
    assert np.mean(rows[:, 1:] * rows[:, :-1]) / np.mean(rows**2) == pytest.approx(0.95, abs=0.03)


def test_simulated_sweeps_are_files_that_the_commands_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    surface = Surface(**{**vars(SURFACE), "compute": Compute()})
    simulator = Simulator(surface=surface, noise=Noise(run=0.003, step=0.002))
    runs = simulator.isoflop(BUDGETS)
    runs_csv, curves_parquet = write_simulated(runs, simulator.curves(runs), tmp_path)
    back = read_runs(runs_csv, COLUMNS)
    np.testing.assert_allclose(back.loss, runs.loss)
    assert len(read_curves(curves_parquet, COLUMNS, back)) == len(runs)
    assert set(pd.read_parquet(curves_parquet)) == {"run_id", "tokens", "loss"}
    code = main(["fit", f"table={runs_csv}", f"curves={curves_parquet}", f"out={tmp_path / 'fits'}", "fit.resamples=20"])
    assert code == 0
    assert "a = 0.4" in capsys.readouterr().out
