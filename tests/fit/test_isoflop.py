"""Approach 2: planted valleys come back, what is no valley is refused."""

import numpy as np
import pytest

from sweep.fit import Curve, EnvelopeFit, IsoflopFit, LawError, RunTable, fit_envelope, fit_isoflop, smooth_curve
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
        fits = [fit_isoflop(valleys(noise=noise, seed=seed), resamples=200) for seed in range(60)]
        inside = [fit.a.low <= 0.45 <= fit.a.high for fit in fits if fit.a.low is not None and fit.a.high is not None]
        width = np.mean([fit.a.high - fit.a.low for fit in fits if fit.a.low is not None and fit.a.high is not None])
        return float(np.mean(inside)), float(width)

    share, width = covered(0.005)
    assert 0.65 < share < 0.92  # an 80 % interval, from sixty draws
    assert covered(0.001)[1] == pytest.approx(width / 5, rel=0.1)


@pytest.mark.parametrize(
    ("loss", "status"),
    [
        ([2.0, 2.1, 2.2, 2.1, 2.0], "concave"),
        ([2.5, 2.3, 2.2, 2.13, 2.1], "edge"),
        ([2.1, 2.13, 2.2, 2.3, 2.5], "edge"),
        ([2.2, 2.1, 2.05, 2.1, 2.2], "converged"),
    ],
)
def test_only_a_bracketed_minimum_is_one(loss: list[float], status: str) -> None:
    N = np.geomspace(1e6, 1e7, 5)
    profile = fit_profile(1e18, N, 1e18 / (6 * N), np.array(loss))
    assert profile.status == status
    assert np.isfinite(profile.N_opt) == (status == "converged")
    assert bool(profile.reason) == (status != "converged")


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


def planted_curves(a: float = 0.5) -> list[Curve]:
    """Curves L = E + A/N^alpha + B/D^beta with alpha = beta, whose envelope follows N ∝ C^0.5."""
    curves = []
    for N in np.geomspace(1e6, 1e9, 25):
        tokens = np.geomspace(N / 10, 2000 * N, 400)
        loss = 1.7 + 400 / N**0.3 + 400 / tokens**0.3
        curves.append(Curve(run_id=f"{N:.0f}", N=N, flops_per_token=6 * N, tokens=tokens, loss=loss))
    return curves


def test_the_envelope_of_planted_curves_follows_their_law() -> None:
    fit = fit_envelope(planted_curves(), resamples=50)
    assert isinstance(fit, EnvelopeFit)
    assert len(fit.flops) == 1500
    assert np.diff(np.log(fit.flops)) == pytest.approx(np.log(fit.flops[1] / fit.flops[0]))
    inside = (fit.N > 2e6) & (fit.N < 5e8)  # at either end there is no larger or smaller model to win
    np.testing.assert_allclose(np.sqrt(fit.flops[inside] / 6), fit.N[inside], rtol=0.35)
    assert fit.D == pytest.approx(fit.flops / (6 * fit.N))
    every = np.array([np.interp(fit.flops, c.tokens * 6 * c.N, c.loss, right=np.inf) for c in planted_curves()])
    np.testing.assert_allclose(fit.loss, every.min(axis=0), rtol=1e-3)
    slope = np.polyfit(np.log(fit.flops[inside]), np.log(fit.N[inside]), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.02)


def test_a_run_is_best_up_to_its_very_end() -> None:
    fit = fit_envelope(planted_curves(), resamples=0)
    assert np.isfinite(fit.loss).all()
    assert fit.flops[-1] == pytest.approx(max(c.tokens[-1] * c.flops_per_token for c in planted_curves()))


def test_envelopes_without_three_sizes_are_refused() -> None:
    with pytest.raises(LawError, match="no training curves"):
        fit_envelope([])
    with pytest.raises(LawError, match="sizes are ever best"):
        fit_envelope(planted_curves()[:2])


def test_smoothing_keeps_lines_and_weighs_like_a_gaussian() -> None:
    flat = np.full(50, 3.0)
    np.testing.assert_allclose(smooth_curve(flat, 10), flat)
    line = np.linspace(5, 2, 400)
    np.testing.assert_allclose(smooth_curve(line, 10)[50:-50], line[50:-50])
    impulse = np.zeros(201)
    impulse[100] = 1
    weights = np.exp(-0.5 * (np.arange(-100, 101) / 10) ** 2)
    np.testing.assert_allclose(smooth_curve(impulse, 10)[60:141], (weights / weights.sum())[60:141], atol=1e-5)
    assert (smooth_curve(impulse, 0) == impulse).all()
