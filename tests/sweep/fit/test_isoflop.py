"""Approach 2: planted valleys come back, what is no valley is refused."""

from typing import Any

import numpy as np
import pytest

from sweep.fit import NO_INTERVALS, Intervals, IsoflopFit, LawError, RunTable, fit_isoflop
from sweep.fit.approaches.isoflop import TooFewProfiles
from sweep.fit.approaches.profile import fit_profile
from sweep.fit.judge.simulate import Noise, Simulator
from sweep.fit.result import PowerLaw
from sweep.fit.surface import Surface

BUDGETS = np.geomspace(1e18, 1e20, 5)


def valleys(a: float = 0.45, curvature: float = 0.05, noise: float = 0.0, seed: int = 0) -> RunTable:
    """Parabolas in log N whose minima follow N = 0.1 C^a exactly."""
    rng = np.random.default_rng(seed)
    C = np.repeat(BUDGETS, 7)
    x = np.tile(np.log(np.geomspace(1 / 4, 4, 7)) + 0.2, len(BUDGETS))
    N = 0.1 * C**a * np.exp(x)
    loss = 50 * C**-0.07 + curvature * x**2 + noise * rng.standard_normal(len(C))
    names = np.array([f"run-{i}" for i in range(len(C))])
    return RunTable(run_id=names, N=N, D=C / (6 * N), C=C, loss=loss, budget=C)


def test_planted_minima_come_back() -> None:
    fit = fit_isoflop(valleys(), intervals=Intervals(20))
    assert isinstance(fit, IsoflopFit)
    assert fit.a.value == pytest.approx(0.45, abs=1e-10)
    assert fit.b.value == pytest.approx(0.55, abs=1e-10)
    assert fit.N_law.coefficient == pytest.approx(0.1, rel=1e-8)
    for profile in fit.profiles:
        assert profile.status == "converged"
        assert profile.N_opt == pytest.approx(0.1 * profile.budget**0.45)
        assert 6 * profile.N_opt * profile.D_opt == pytest.approx(profile.budget)
        assert profile.loss_opt == pytest.approx(50 * profile.budget**-0.07)


def test_intervals_cover_and_shrink_with_the_noise() -> None:
    def covered(noise: float) -> tuple[float, float]:
        fits = [fit_isoflop(valleys(noise=noise, seed=seed), intervals=Intervals(60)) for seed in range(40)]
        inside = [fit.a.low <= 0.45 <= fit.a.high for fit in fits if fit.a.low is not None and fit.a.high is not None]
        width = np.mean([fit.a.high - fit.a.low for fit in fits if fit.a.low is not None and fit.a.high is not None])
        return float(np.mean(inside)), float(width)

    share, width = covered(0.005)
    assert 0.65 < share < 0.92  # an 80 % interval, from forty draws
    assert covered(0.001)[1] == pytest.approx(width / 5, rel=0.1)


@pytest.mark.parametrize(
    ("loss", "status"),
    [
        ([2.0, 2.1, 2.2, 2.1, 2.0], "concave"),
        ([2.5, 2.35, 2.22, 2.11, 2.02], "edge"),
        ([2.02, 2.11, 2.22, 2.35, 2.5], "edge"),
        ([2.04, 2.10, 2.05, 2.10, 2.25], "not_bracketed"),
        ([2.2, 2.1, 2.05, 2.1, 2.2], "converged"),
    ],
)
def test_only_a_bracketed_minimum_is_one(loss: list[float], status: str) -> None:
    N = np.geomspace(1e6, 1e7, 5)
    profile = fit_profile(1e18, N, 1e18 / (6 * N), np.full(5, 1e18), np.array(loss))
    assert profile.status == status
    assert np.isfinite(profile.N_opt) == (status == "converged")
    assert bool(profile.reason) == (status != "converged")


def test_three_runs_a_profile_give_no_interval() -> None:
    runs = valleys(noise=0.001)
    fit = fit_isoflop(runs.where(np.tile([True, False, False, True, False, False, True], len(BUDGETS))))
    assert fit.a.low is None
    assert fit.a.high is None


def test_a_refused_profile_is_reported_and_left_out() -> None:
    runs = valleys()
    loss = runs.loss.copy()
    loss[runs.budget == BUDGETS[2]] *= -1
    loss += 10
    fit = fit_isoflop(RunTable(**{**vars(runs), "loss": loss}), intervals=NO_INTERVALS)
    assert [profile.status for profile in fit.profiles] == ["converged"] * 2 + ["concave"] + ["converged"] * 2
    assert fit.a.value == pytest.approx(0.45, abs=1e-10)
    entry = fit.to_dict()["profiles"][2]
    assert entry["status"] == "concave"
    assert "N_opt" not in entry


def test_too_few_profiles_are_refused_with_each_ones_reason() -> None:
    runs = valleys()
    two = runs.where(runs.budget <= BUDGETS[1])
    with pytest.raises(TooFewProfiles, match="at least 3") as caught:
        fit_isoflop(two)
    assert len(caught.value.to_dict()["profiles"]) == 2
    with pytest.raises(LawError, match="no run names a planned budget"):
        fit_isoflop(RunTable(**{**vars(runs), "budget": np.full(len(runs), np.nan)}))


def test_profiles_group_by_plan_not_by_what_a_run_achieved() -> None:
    runs = valleys()
    C = runs.C.copy()
    C[3] *= 0.4  # a run that stopped early still belongs to its profile
    fit = fit_isoflop(RunTable(**{**vars(runs), "C": C}), intervals=NO_INTERVALS)
    assert [len(profile.N) for profile in fit.profiles] == [7] * 5


SURFACE = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def test_the_parabolas_bias_is_found_and_taken_off() -> None:
    """Without noise, on a wide grid: the parabola is some per cent off, the corrected minimum exact."""
    runs = Simulator(surface=SURFACE).isoflop(np.geomspace(1e18, 1e21, 5), sizes=9, span=64)
    for profile in fit_isoflop(runs, intervals=NO_INTERVALS).profiles:
        N_opt = SURFACE.optimal(profile.budget)[0]
        assert np.log(profile.N_opt / N_opt) == pytest.approx(0.032, abs=0.002)
        assert profile.N_bias == pytest.approx(np.log(profile.N_opt / N_opt), abs=1e-6)
        assert profile.N_corrected == pytest.approx(N_opt, rel=1e-6)
        assert profile.N_cubic == pytest.approx(N_opt, rel=1e-3)


def test_a_grid_that_drifts_off_centre_biases_the_exponent() -> None:
    """Grids laid around N ∝ C^0.7 where the truth is 0.45: the bias of a is computed, and what is left is true."""
    budgets = np.geomspace(1e18, 1e21, 5)
    drift = (budgets / 3e19) ** (0.7 - SURFACE.a)
    parts = [
        Simulator(surface=SURFACE).isoflop([C], sizes=9, span=200, off_centre=off)
        for C, off in zip(budgets, drift, strict=True)
    ]
    names = ("N", "D", "C", "loss", "budget")
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    fit = fit_isoflop(RunTable(run_id=np.array([f"run-{i}" for i in range(45)]), **columns), intervals=Intervals(20))
    assert fit.a_bias is not None
    assert fit.a_corrected is not None
    assert abs(fit.a_bias) > 1e-3
    assert fit.a.value - SURFACE.a == pytest.approx(fit.a_bias, abs=1e-5)
    assert fit.a_corrected.value == pytest.approx(SURFACE.a, abs=1e-5)
    assert fit.a_corrected.value == pytest.approx(fit.a.value - fit.a_bias)


def test_known_seed_noise_sets_the_interval() -> None:
    runs = valleys(noise=0.002)
    known, larger, estimated = (fit_isoflop(runs, seed_noise=noise) for noise in (0.002, 0.004, None))
    width = {fit.seed_noise: fit.a.high - fit.a.low for fit in (known, larger)}  # type: ignore[operator]
    assert width[0.004] == pytest.approx(2 * width[0.002], rel=0.1)
    assert estimated.seed_noise == pytest.approx(0.002, rel=0.3)
    assert larger.profiles[0].N_se == pytest.approx(2 * known.profiles[0].N_se)
    three = runs.where(np.tile([True, False, False, True, False, False, True], len(BUDGETS)))
    assert fit_isoflop(three, seed_noise=0.002).a.low is not None


def test_standard_errors_of_minima_are_what_repeats_scatter_by() -> None:
    fits = [
        fit_isoflop(valleys(noise=0.003, seed=seed), surface=SURFACE, seed_noise=0.003, intervals=NO_INTERVALS)
        for seed in range(200)
    ]
    scatter = np.std([np.log(fit.profiles[2].N_opt) for fit in fits])
    assert np.median([fit.profiles[2].N_se for fit in fits]) == pytest.approx(scatter, rel=0.2)


def test_the_laws_predict_between_the_budgets() -> None:
    simulator = Simulator(surface=SURFACE, noise=Noise(run=1e-4))
    fit = fit_isoflop(simulator.isoflop(np.geomspace(1e18, 1e20, 5)), intervals=NO_INTERVALS)
    for factor in (0.5, 1, 2):
        N = factor * SURFACE.optimal(2e19)[0]
        D = 2e19 / (6 * N)
        assert fit.predict(N, D) == pytest.approx(SURFACE.predict(N, D), rel=0.01)  # a power law without E, one curvature


def test_runs_of_different_compute_are_no_profile() -> None:
    runs = valleys()
    fit = fit_profile(1e18, runs.N[:7], runs.D[:7], runs.C[:7] * np.linspace(0.2, 1, 7), runs.loss[:7])
    assert fit.status == "not_isoflop"


def test_orthogonal_regression_treats_both_axes_alike() -> None:
    rng = np.random.default_rng(0)
    x = np.geomspace(1, 1e4, 20)
    y, weight = 3 * x**0.7 * np.exp(0.3 * rng.standard_normal(20)), rng.uniform(0.5, 2, 20)
    forward, backward = PowerLaw.fit_orthogonal(x, y, weight), PowerLaw.fit_orthogonal(y, x, weight)
    assert forward.exponent == pytest.approx(1 / backward.exponent)
    u, v = np.log(x), np.log(y)

    def distance(slope: float, intercept: float) -> float:
        return float((weight * (v - slope * u - intercept) ** 2).sum() / (1 + slope**2))

    best = distance(forward.exponent, np.log(forward.coefficient))
    for change in (-1e-3, 1e-3):
        assert distance(forward.exponent + change, np.log(forward.coefficient)) > best
        assert distance(forward.exponent, np.log(forward.coefficient) + change) > best
    falling = PowerLaw.fit_orthogonal(x, 5 * x**-0.05, weight)
    assert (falling.coefficient, falling.exponent) == pytest.approx((5, -0.05))
