"""N or D that hardly varies shows no exponent; and exponents that the options imply have no interval."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sweep.fit import (
    NO_INTERVALS,
    Intervals,
    LawError,
    Noise,
    Questions,
    Simulator,
    answer,
    fit_kaplan,
    fit_parametric,
    fit_scale_law,
    fit_size_data_law,
    fit_size_steps_law,
    next_runs,
)
from sweep.fit.result import attempt
from sweep.fit.span import MIN_SPAN, require_span
from sweep.fit.surface import BESIROGLU, Compute

RUNS = 60


def sweep_of(varies_little: str, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, D, loss) of runs whose N or D lies within `factor`, both ends included, and whose other variable spans 300."""
    rng = np.random.default_rng(seed)
    wide, narrow = 300 ** rng.uniform(size=RUNS), factor ** np.concatenate([[0, 1], rng.uniform(size=RUNS - 2)])
    N, D = (3e7 * wide, 1e10 * narrow) if varies_little == "D" else (1e8 * narrow, 1e9 * wide)
    return N, D, BESIROGLU.predict(N, D) * np.exp(0.001 * rng.standard_normal(RUNS))


FITS: dict[str, Callable[..., Any]] = {
    "Approach 3": fit_parametric,
    "Approach 3, tied": lambda *runs, **options: fit_parametric(*runs, tied=True, **options),
    "Approach 3, least squares": lambda *runs, **options: fit_parametric(*runs, objective="log_mse", **options),
    "L(N, D)": fit_size_data_law,
}


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("symbol", ["N", "D"])
@pytest.mark.parametrize("percent", [0.2, 1, 5, 20])
def test_what_hardly_varies_is_said(fit: str, symbol: str, percent: float) -> None:
    for seed in range(3):
        runs = sweep_of(symbol, 1 + percent / 100, seed)
        with pytest.raises(LawError, match=rf"{symbol} hardly varies: from .* by {percent:g} %.*at least 1\.5 times") as caught:
            FITS[fit](*runs, intervals=NO_INTERVALS)
        assert caught.value.status == "narrow_range"


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("symbol", ["N", "D"])
def test_a_factor_of_two_is_not_refused_for_its_span(fit: str, symbol: str) -> None:
    law = attempt(lambda: FITS[fit](*sweep_of(symbol, 2.0), intervals=NO_INTERVALS))
    assert law.fitted or law.status != "narrow_range"


def test_without_noise_a_factor_of_two_gives_the_exponents() -> None:
    for symbol in "ND":
        N, D, _ = sweep_of(symbol, 2.0)
        fit = fit_parametric(N, D, BESIROGLU.predict(N, D), intervals=NO_INTERVALS)
        assert (fit.alpha.value, fit.beta.value) == pytest.approx((BESIROGLU.alpha, BESIROGLU.beta), rel=1e-4)


def test_jitter_makes_no_levels() -> None:
    """Two horizons, each of which rounding to whole steps scatters by 1 %, are two and not sixty."""
    rng = np.random.default_rng(0)
    N = 3e7 * 300 ** rng.uniform(size=RUNS)
    D = np.where(np.arange(RUNS) % 2, 1e10, 4e10) * (1 + 0.01 * rng.uniform(size=RUNS))
    with pytest.raises(LawError, match="D has 2 levels that are 5 % or more apart"):
        fit_parametric(N, D, BESIROGLU.predict(N, D), intervals=NO_INTERVALS)
    require_span("D", np.append(D, 2e10))
    require_span("X", np.geomspace(1, MIN_SPAN, 100))  # many, each near the next


@pytest.mark.parametrize("factor", [1.002, 1.01, 1.05, 1.2])
def test_scale_laws_need_a_range_too(factor: float) -> None:
    X = np.geomspace(1e9, factor * 1e9, 8)
    with pytest.raises(LawError, match="X hardly varies"):
        fit_scale_law(X, np.linspace(3, 2.9, 8))
    with pytest.raises(LawError, match="S_min hardly varies"):
        fit_size_steps_law(np.geomspace(1e7, 1e9, 8), np.tile(X[:4], 2), np.linspace(3, 2.9, 8))


def test_every_law_of_a_table_says_what_does_not_vary() -> None:
    N, D, loss = sweep_of("D", 1.002)
    laws = fit_kaplan({"N": N, "D": D, "loss": loss}, intervals=NO_INTERVALS)
    for name in ("L_D", "L_ND"):
        assert not laws[name].fitted
        assert "hardly varies" in laws[name].summary()
    assert laws["L_N"].fitted


# ---- what the options imply ----------------------------------------------------------------------------------------------


def test_a_tied_exponent_is_by_construction() -> None:
    runs = Simulator(surface=BESIROGLU, noise=Noise(run=0.003)).isoflop([1e18, 1e19, 1e20], sizes=7)
    tied = fit_parametric(runs, tied=True, intervals=Intervals(60))
    for a in (tied.a, tied.b):
        assert (a.value, a.low, a.high) == (0.5, None, None)
        assert str(a) == "0.5 (by construction, no interval)"
    assert "a = 0.5 (by construction, no interval)" in tied.summary()
    assert tied.to_dict()["a"] == {"value": 0.5, "low": None, "high": None, "note": "by construction, no interval"}
    assert tied.alpha.low is not None
    otherwise = tied.counted(Compute(kappa=6, eta=0.8)).a  # 1 / (1 + eta), still whatever the runs say
    assert (otherwise.value, otherwise.low) == (pytest.approx(1 / 1.8), None)
    assert "N x 3.162 (by construction, no interval)" in answer([tied], Questions(), largest=1e20).summary()
    free = fit_parametric(runs, intervals=Intervals(60))
    assert free.a.low is not None
    assert free.a.note is None
    with pytest.raises(LawError, match=r"a is 0\.5 by construction"):
        next_runs(tied, runs, flops=1e20)


def test_a_given_E_has_no_interval_either() -> None:
    runs = Simulator(surface=BESIROGLU, noise=Noise(run=0.003)).isoflop([1e18, 1e19, 1e20], sizes=7)
    fixed = fit_parametric(runs, fixed_E=1.8, intervals=Intervals(60))
    assert str(fixed.E) == "1.8 (by construction, no interval)"
    assert fixed.a.low is not None
