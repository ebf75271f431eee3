"""Approach 2: planted valleys come back, what is no valley is refused."""

import numpy as np
import pytest

from sweep.fit import IsoflopFit, LawError, RunTable, fit_isoflop
from sweep.fit.isoflop import TooFewProfiles, fit_profile

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
    fit = fit_isoflop(valleys(), resamples=20)
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
        fits = [fit_isoflop(valleys(noise=noise, seed=seed), resamples=60) for seed in range(40)]
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
        ([2.2, 2.1, 2.05, 2.1, 2.2], "converged"),
    ],
)
def test_only_a_bracketed_minimum_is_one(loss: list[float], status: str) -> None:
    N = np.geomspace(1e6, 1e7, 5)
    profile = fit_profile(1e18, N, 1e18 / (6 * N), np.array(loss))
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
    fit = fit_isoflop(RunTable(**{**vars(runs), "loss": loss}), resamples=0)
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
    fit = fit_isoflop(RunTable(**{**vars(runs), "C": C}), resamples=0)
    assert [len(profile.N) for profile in fit.profiles] == [7] * 5
