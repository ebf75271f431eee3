"""The laws of Kaplan et al. 2020 (arXiv 2001.08361): the paper's numbers, planted constants, refusals."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sweep.fit import NO_INTERVALS, Intervals, LawError
from sweep.fit.bootstrap import resample_counts
from sweep.fit.kaplan.critical_batch import TooFewLevels, fit_critical_batch
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.laws import (
    B_CRIT,
    D_OF_C,
    L_C,
    L_D,
    L_N,
    L_ND,
    L_NS,
    N_OF_C,
    PF_DAY,
    CriticalBatch,
    ScaleLaw,
    SizeDataLaw,
    SizeStepsLaw,
    contradiction,
    learning_rate,
    optimal_exponents,
)
from sweep.fit.kaplan.table import BatchCurve, steps_to_loss
from sweep.fit.kaplan.two_terms import TwoTerms
from sweep.fit.result import PowerLaw

SIZES, TOKENS, STEPS = np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 3e10, 6), np.geomspace(3e3, 2e5, 6)
N, D = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS))
_, S = (grid.ravel() for grid in np.meshgrid(SIZES, STEPS))
BATCHES, LEVELS = np.geomspace(3e4, 8e6, 6), np.array([4.5, 4.0, 3.5, 3.0, 2.7])


def noise(sigma: float, shape: Any = N.shape, seed: int = 0) -> np.ndarray:
    return np.exp(sigma * np.random.default_rng(seed).standard_normal(shape))


def measured(law: CriticalBatch = B_CRIT, batches: np.ndarray = BATCHES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (B, S, L) of runs that obey `law`, with S_min a power of the loss."""
    B, loss = (grid.ravel() for grid in np.meshgrid(batches, LEVELS))
    return B, 3e3 * (5 / loss) ** 4 * (1 + law.predict(loss) / B), loss


def fitted(kind: str, sigma: float = 0.0, seed: int = 0, **settings: Any) -> LawFit:
    """The fit of each law to points that the published one makes, times noise."""
    if kind == "scale":
        return fit_scale_law(N, L_N.predict(N) * noise(sigma, seed=seed), **settings)
    if kind == "size_data":
        return fit_size_data_law(N, D, L_ND.predict(N, D) * noise(sigma, seed=seed), **settings)
    if kind == "size_steps":
        return fit_size_steps_law(N, S, L_NS.predict(N, S) * noise(sigma, seed=seed), **settings)
    B, steps, loss = measured()
    return fit_critical_batch(B, steps * noise(sigma, B.shape, seed), loss, **settings)


PUBLISHED = {"scale": L_N, "size_data": L_ND, "size_steps": L_NS, "critical_batch": B_CRIT}


# ---- what the paper says -------------------------------------------------------------------------------------------------


def test_published_laws_of_one_variable_by_hand() -> None:
    # 175e9 parameters, 300e9 tokens and 3640 PF-days, of GPT-3.
    assert L_N.predict(175e9) == pytest.approx(math.exp(0.076 * math.log(8.8e13 / 175e9)))
    assert L_N.predict(175e9) == pytest.approx(1.604, abs=1e-3)
    assert L_D.predict(300e9) == pytest.approx(1.638, abs=1e-3)
    assert L_C.predict(3640) == pytest.approx(1.764, abs=1e-3)
    np.testing.assert_allclose(L_N.predict([8.8e13, 8.8e12]), [1, 10**0.076])


def test_published_laws_of_two_variables_by_hand() -> None:
    size, data = (6.4e13 / 1e9) ** (0.076 / 0.103), 1.8e13 / 1e10
    assert L_ND.predict(1e9, 1e10) == pytest.approx((size + data) ** 0.103, rel=1e-12)
    assert L_ND.predict(1e9, 1e10) == pytest.approx(2.420, abs=1e-3)
    assert L_ND.predict(1e9, np.inf) == pytest.approx((6.4e13 / 1e9) ** 0.076, rel=1e-12)
    assert L_ND.overfitting(1e9, 1e10) == pytest.approx(L_ND.predict(1e9, 1e10) / L_ND.predict(1e9, np.inf) - 1, rel=1e-12)
    assert L_NS.predict(1e9, 1e5) == pytest.approx((6.5e13 / 1e9) ** 0.077 + (2.1e3 / 1e5) ** 0.76, rel=1e-12)
    assert L_NS.predict(1e9, 1e5) == pytest.approx(2.400, abs=1e-3)


def test_data_that_keeps_overfitting_down_grows_as_the_paper_says() -> None:
    for size in (1e6, 1e9, 1e12):
        bound = L_ND.data_bound(size)
        assert L_ND.overfitting(size, bound) == pytest.approx(0.02, rel=1e-12)
        assert bound == pytest.approx(5e3 * size**0.74, rel=0.1)  # equation 4.4, with its one digit
    exponent = math.log(L_ND.data_bound(1e12) / L_ND.data_bound(1e6)) / math.log(1e6)
    assert exponent == pytest.approx(0.076 / 0.103, rel=1e-12)
    assert L_ND.data_bound(1e9, overfitting=0.1) < L_ND.data_bound(1e9)
    with pytest.raises(LawError, match="overfitting = 0"):
        L_ND.data_bound(1e9, overfitting=0)


def test_early_stopping_waits_longer_the_more_data_there_is() -> None:
    excess = L_ND.predict(1e8, 1e9) - L_ND.predict(1e8, np.inf)
    assert L_NS.early_stopping_bound(1e8, 1e9, L_ND) == pytest.approx(2.1e3 / excess ** (1 / 0.76), rel=1e-9)
    bounds = L_NS.early_stopping_bound(1e8, np.array([1e8, 1e9, 1e10, np.inf]), L_ND)
    assert (np.diff(bounds) > 0).all()
    assert np.isinf(bounds[-1])


def test_critical_batch_by_hand_and_its_two_limits() -> None:
    assert B_CRIT.predict(3.0) == pytest.approx(2e8 / 3 ** (1 / 0.21), rel=1e-12)
    assert B_CRIT.predict(3.0) == pytest.approx(1.07e6, rel=1e-2)
    B_crit = B_CRIT.predict(3.0)
    assert B_CRIT.S_min(1e5, B_crit, 3.0) == pytest.approx(0.5e5)  # at B_crit both are twice their least
    assert B_CRIT.C_min(1.0, B_crit, 3.0) == pytest.approx(0.5)
    assert B_CRIT.S_min(1e5, 1e4 * B_crit, 3.0) == pytest.approx(1e5, rel=1e-3)
    assert B_CRIT.C_min(1.0, 1e-4 * B_crit, 3.0) == pytest.approx(1, rel=1e-3)
    B = np.array([1e5, 1e6, 1e7])
    steps = 4e3 * (1 + B_crit / B)  # equation 5.1, with E_min = B_crit S_min
    np.testing.assert_allclose((steps / 4e3 - 1) * (B * steps / (4e3 * B_crit) - 1), 1)
    np.testing.assert_allclose(B_CRIT.S_min(steps, B, 3.0), 4e3)
    np.testing.assert_allclose(B_CRIT.C_min(B * steps, B, 3.0), 4e3 * B_crit)


def test_exponents_of_the_frontier() -> None:
    """What the formula gives; equations 6.4 and 6.5 print 0.054 and 0.71, and the measured ones are 0.050, 0.73, 0.24, 0.03."""
    found = optimal_exponents(L_NS.alpha_N, L_NS.alpha_S, B_CRIT.alpha_B)
    assert found.alpha_C == pytest.approx(1 / (1 / 0.76 + 1 / 0.21 + 1 / 0.077), rel=1e-12)
    assert (found.alpha_C, found.N, found.B, found.S) == pytest.approx((0.052, 0.68, 0.25, 0.07), abs=5e-3)
    assert round(found.alpha_C, 3) == 0.052  # B.7
    assert found.N + found.B + found.S == pytest.approx(1)  # C = 6 N B S
    assert found.D == pytest.approx(found.B + found.S)
    with pytest.raises(LawError, match="alpha_S = -1") as caught:
        optimal_exponents(0.077, -1, 0.21)
    assert caught.value.status == "bad_input"


def test_exponents_of_the_frontier_by_minimising() -> None:
    """L(N, C) has S = C / (6 N B_crit(L)): section 6.2. Its minimum over N, found on a grid, moves with those exponents."""

    def optimum(C: float) -> tuple[float, float]:
        sizes = np.geomspace(1e6, 1e13, 70_001)
        low, high = np.zeros_like(sizes), np.full_like(sizes, 5.0)  # of log L, which appears on both sides: bisection
        for _ in range(60):
            middle = (low + high) / 2
            above = middle > np.log(L_NS.predict(sizes, C / (6 * sizes * B_CRIT.predict(np.exp(middle)))))
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        best = int(np.argmin(low))
        return float(sizes[best]), float(np.exp(low[best]))

    expected = optimal_exponents(L_NS.alpha_N, L_NS.alpha_S, B_CRIT.alpha_B)
    (N_low, L_low), (N_high, L_high) = optimum(PF_DAY), optimum(100 * PF_DAY)
    assert math.log(N_high / N_low) / math.log(100) == pytest.approx(expected.N, abs=1e-3)
    assert math.log(L_low / L_high) / math.log(100) == pytest.approx(expected.alpha_C, abs=1e-5)


def test_contradiction_is_where_both_laws_meet() -> None:
    """The paper: C about 1e4 PF-days, N 1e12, D 1e12 and L 1.7, uncertain by an order of magnitude."""
    point = contradiction()
    assert L_D.predict(point.D) == pytest.approx(L_C.predict(point.C), rel=1e-9)
    assert point.D == pytest.approx(2 * point.C * PF_DAY / (6 * point.N), rel=1e-9)
    assert (point.C, point.N, point.D) == pytest.approx((1.67e4, 1.57e12, 3.06e11), rel=0.01)
    assert point.loss == pytest.approx(1.635, abs=1e-3)
    rounded = contradiction(D_of_C=D_OF_C)  # the growth as equation 6.7 prints it
    assert (rounded.C, rounded.N, rounded.D) == pytest.approx((1.06e5, 6.08e12, 8.11e11), rel=0.01)
    assert rounded.loss == pytest.approx(1.490, abs=1e-3)
    for found in (point, rounded):
        assert abs(math.log10(found.C / 1e4)) < 1.1
        assert abs(math.log10(found.N / 1e12)) < 1
        assert abs(math.log10(found.D / 1e12)) < 1


def test_fast_growing_data_never_contradicts() -> None:
    with pytest.raises(LawError, match="never holds compute back") as caught:
        contradiction(N_of_C=PowerLaw(coefficient=1e9, exponent=0.4))
    assert caught.value.status == "never_meet"


def test_learning_rate_rule() -> None:
    assert learning_rate(1e9) == pytest.approx(0.003239 - 0.0001395 * math.log(1e9))
    assert learning_rate(1e9) == pytest.approx(3.48e-4, rel=1e-2)
    for size, status in ((2e10, "out_of_range"), (0, "bad_input"), (math.nan, "bad_input")):
        with pytest.raises(LawError) as caught:
            learning_rate(size)
        assert caught.value.status == status


def test_optimal_size_and_data_of_one_pf_day() -> None:
    assert N_OF_C(1.0) == pytest.approx(1.3e9)
    assert 2 * PF_DAY / (6 * N_OF_C(1.0)) == pytest.approx(2e10, rel=0.15)  # table 6 of the paper; 6.7 has 4e10


# ---- fits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PUBLISHED)
def test_planted_constants_come_back(kind: str) -> None:
    fit = fitted(kind, intervals=Intervals(20))
    assert fit.law.__class__ is PUBLISHED[kind].__class__
    assert fit.status == "converged"
    assert fit.rms < 1e-9
    for name, value in vars(PUBLISHED[kind]).items():
        assert getattr(fit.law, name) == fit.constants[name].value
        assert fit.constants[name].value == pytest.approx(value, rel=1e-6)
        assert (fit.constants[name].low, fit.constants[name].high) == pytest.approx((value, value), rel=1e-6)


@pytest.mark.parametrize(
    "law",
    [
        SizeDataLaw(N_c=1e12, D_c=1e24, alpha_N=0.2, alpha_D=0.06),
        SizeDataLaw(N_c=1e15, D_c=1e11, alpha_N=0.05, alpha_D=0.4),
        SizeDataLaw(N_c=1e10, D_c=1e12, alpha_N=0.5, alpha_D=0.5),
        SizeStepsLaw(N_c=1e10, S_c=1e5, alpha_N=0.3, alpha_S=0.3),
        SizeStepsLaw(N_c=1e13, S_c=1e3, alpha_N=0.05, alpha_S=1.2),
        SizeStepsLaw(N_c=1e8, S_c=1e6, alpha_N=0.9, alpha_S=0.1),
    ],
)
def test_other_planted_surfaces_come_back(law: SizeDataLaw | SizeStepsLaw) -> None:
    fit: LawFit = (
        fit_size_data_law(N, D, law.predict(N, D), intervals=NO_INTERVALS)
        if isinstance(law, SizeDataLaw)
        else fit_size_steps_law(N, S, law.predict(N, S), intervals=NO_INTERVALS)
    )
    np.testing.assert_allclose(list(vars(fit.law).values()), list(vars(law).values()), rtol=1e-6)
    assert fit.constants["alpha_N"].low is None
    assert fit.identified is None


@pytest.mark.parametrize("kind", PUBLISHED)
def test_noisy_intervals_hold_the_planted_constants(kind: str) -> None:
    held: dict[str, list[bool]] = {}
    for seed in range(40):
        fit = fitted(kind, 0.01, seed, intervals=Intervals(100))
        for name, value in vars(PUBLISHED[kind]).items():
            low, high = fit.constants[name].low, fit.constants[name].high
            assert low is not None
            assert high is not None
            held.setdefault(name, []).append(low <= value <= high)
        assert fit.rms == pytest.approx(0.01, rel=0.5) or kind == "critical_batch"
    for name, inside in held.items():
        assert 0.5 < np.mean(inside) < 0.95, name  # of 80 % intervals, from forty draws; with six batch sizes they hold 67 %


def test_intervals_are_reproducible_and_widen_with_the_level() -> None:
    fit, again = fitted("size_data", 0.01), fitted("size_data", 0.01)
    assert fit.constants == again.constants
    wide, narrow = fitted("size_data", 0.01, intervals=Intervals(level=0.95)).constants["alpha_D"], fit.constants["alpha_D"]
    assert wide.low < narrow.low < narrow.high < wide.high  # type: ignore[operator]


def test_points_of_one_run_are_resampled_together() -> None:
    """A common error of each size: taken one by one, 36 points pretend to be independent."""
    of_size = noise(0.02, SIZES.shape)
    loss = L_NS.predict(N, S) * np.tile(of_size, len(STEPS))
    apart = fit_size_steps_law(N, S, loss).constants["alpha_N"]
    together = fit_size_steps_law(N, S, loss, clusters=N).constants["alpha_N"]
    assert together.value == apart.value
    assert together.high - together.low > 1.5 * (apart.high - apart.low)  # type: ignore[operator]
    for clusters, match in ((N[:5], "one label for each"), (np.arange(len(N)) % 2, "2 different labels")):
        with pytest.raises(LawError, match=match):
            fit_size_steps_law(N, S, loss, clusters=clusters)


@pytest.mark.parametrize("coupled", [True, False])
def test_the_jacobian_is_the_derivative(coupled: bool) -> None:
    problem = TwoTerms(x=np.log(N) - 16, y=np.log(D) - 20, log_loss=np.log(L_ND.predict(N, D)), coupled=coupled)
    theta = np.array([[0.3, 0.1, 0.2, 0.15], [0.1, 0.6, 0.5, 0.4], [1.2, 0.05, -0.4, 0.9]])
    J = problem.predict(theta)[1]
    for i in range(4):
        step = 1e-6 * np.eye(4)[i]
        difference = (problem.predict(theta + step)[0] - problem.predict(theta - step)[0]) / 2e-6
        np.testing.assert_allclose(J[:, i], difference, atol=1e-8)


def test_terms_far_apart_do_not_overflow() -> None:
    problem = TwoTerms(x=np.log(N) - 16, y=np.log(D) - 20, log_loss=np.log(L_ND.predict(N, D)), coupled=True)
    prediction, J = problem.predict(np.array([[300.0, 2.0, -300.0, 0.01], [-300.0, 2.0, 300.0, 0.01]]))
    assert np.isfinite(prediction).all()
    assert np.isfinite(J).all()


@pytest.mark.parametrize("kind", PUBLISHED)
def test_results_print_save_and_predict(kind: str) -> None:
    fit = fitted(kind, 0.01)
    saved = json.loads(json.dumps(fit.to_dict(), allow_nan=False))
    assert saved["status"] == "converged"
    for name, estimate in fit.constants.items():
        assert saved[name] == estimate.to_dict()
        assert f"{name:8} = {estimate}" in fit.summary()
    assert fit.law.equation in fit.summary()
    arguments = {"scale": (1e9,), "size_data": (1e9, 1e10), "size_steps": (1e9, 1e4), "critical_batch": (3.0,)}[kind]
    assert fit.predict(*arguments) == fit.law.predict(*arguments)
    with pytest.raises(AttributeError):
        fit.status = "other"  # type: ignore[misc]


# ---- critical batch ------------------------------------------------------------------------------------------------------


def test_each_level_of_the_critical_batch() -> None:
    B, steps, loss = measured()
    shuffled = np.random.default_rng(0).permutation(len(B))
    fit = fit_critical_batch(B[shuffled], steps[shuffled], loss[shuffled], intervals=NO_INTERVALS)
    assert [level.loss for level in fit.levels] == sorted(LEVELS, reverse=True)
    for level in fit.levels:
        assert level.batches == len(BATCHES)
        assert level.S_min == pytest.approx(3e3 * (5 / level.loss) ** 4)
        assert level.B_crit == pytest.approx(B_CRIT.predict(level.loss))
        assert level.E_min == pytest.approx(level.S_min * level.B_crit)


def test_two_batch_sizes_give_a_law_without_an_interval() -> None:
    fit = fit_critical_batch(*measured(batches=BATCHES[[1, 4]]))
    assert fit.law.alpha_B == pytest.approx(0.21, rel=1e-6)
    assert fit.constants["alpha_B"].low is None
    assert fit.identified is None


def test_a_refused_level_is_reported_and_left_out() -> None:
    B, steps, loss = measured()
    steps = np.where(loss == 3.5, 1e9 / B**1.2, steps)  # falls faster than batches grow
    steps = np.where(loss == 4.0, 1e2 * B**0.1, steps)  # does not fall
    keep = (loss != 2.7) | (B == BATCHES[0])
    fit = fit_critical_batch(B[keep], steps[keep], loss[keep])
    assert [level.status for level in fit.levels] == [
        "converged",
        "large_batches",
        "small_batches",
        "converged",
        "too_few_batches",
    ]
    assert fit.law.alpha_B == pytest.approx(0.21, rel=1e-6)
    assert fit.points == 2
    refused = fit.to_dict()["levels"][2]
    assert "S_min = -" in refused["reason"]
    assert "B_crit" not in refused
    assert "add larger ones" in fit.summary()


def test_a_refused_level_stays_out_of_the_intervals() -> None:
    B, steps, loss = measured()
    odd = 1e4 * np.array([0.4, 2.2, 1.1, 0.3, 2.4, 2.0])  # refused, but a line without one of four batch sizes
    fit = fit_critical_batch(B, np.where(loss == 3.5, odd[np.searchsorted(BATCHES, B)], steps), loss)
    assert [level.status for level in fit.levels].count("large_batches") == 1
    assert (fit.constants["alpha_B"].low, fit.constants["alpha_B"].high) == pytest.approx((0.21, 0.21), rel=1e-6)


def test_draws_of_one_batch_size_say_nothing_against_the_law() -> None:
    fit = fit_critical_batch(*measured(batches=BATCHES[::2]))  # one draw in nine of three batch sizes has only one
    assert fit.identified == 1
    assert fit.status == "converged"
    assert fit.constants["alpha_B"].low == pytest.approx(0.21, rel=1e-6)


def test_too_few_levels_are_refused_with_each_ones_reason() -> None:
    B, steps, loss = measured()
    one = loss == 3.0
    with pytest.raises(TooFewLevels, match="1 of 1 losses") as caught:
        fit_critical_batch(B[one], steps[one], loss[one])
    assert caught.value.status == "too_few_levels"
    with pytest.raises(TooFewLevels, match=r"0 of 5 losses.*E_min = -.*add smaller ones") as caught:
        fit_critical_batch(B, 1e2 * B**0.1, loss)
    assert [level["status"] for level in caught.value.to_dict()["levels"]] == ["large_batches"] * 5


def test_a_critical_batch_that_shrinks_as_the_loss_falls_is_refused() -> None:
    B, loss = (grid.ravel() for grid in np.meshgrid(BATCHES, LEVELS))
    with pytest.raises(LawError, match="alpha_B = -") as caught:
        fit_critical_batch(B, 1e4 * (1 + 1e4 * loss**3 / B), loss)
    assert caught.value.status == "unidentified"
    with pytest.raises(LawError, match="alpha_B = ") as caught:
        fit_critical_batch(B, 1e4 * (1 + 3e5 / B), loss)  # and one that does not move
    assert caught.value.status == "unidentified"


def batch_curves(sigma: float = 0.0) -> list[BatchCurve]:
    """Curves on which S_min(L) is a power law, at several batch sizes."""
    loss = np.geomspace(5.5, 2.5, 400)
    return [
        BatchCurve(
            batch_tokens=float(B),
            steps=3e3 * (5 / loss) ** 4 * (1 + B_CRIT.predict(loss) / B),
            loss=loss * noise(sigma, loss.shape, seed=i),
        )
        for i, B in enumerate(BATCHES)
    ]


def test_curves_become_rows_and_the_law_comes_back() -> None:
    rows = steps_to_loss(batch_curves(), LEVELS)
    assert len(rows.steps) == len(BATCHES) * len(LEVELS)
    np.testing.assert_allclose(
        rows.steps, 3e3 * (5 / rows.loss) ** 4 * (1 + B_CRIT.predict(rows.loss) / rows.batch_tokens), rtol=1e-4
    )
    assert fit_critical_batch(*rows, intervals=NO_INTERVALS).law.alpha_B == pytest.approx(0.21, rel=1e-3)


def test_smoothing_undoes_the_early_crossings_of_noise() -> None:
    exact = steps_to_loss(batch_curves(), LEVELS).steps
    noisy = steps_to_loss(batch_curves(0.01), LEVELS).steps
    smooth = steps_to_loss(batch_curves(0.01), LEVELS, sigma=8).steps
    assert np.median(noisy / exact) < 0.95
    assert np.median(smooth / exact) == pytest.approx(1, abs=0.02)


def test_curves_give_rows_only_for_losses_they_go_through() -> None:
    steps = np.array([10.0, 100.0, 1000.0])
    curve = BatchCurve(batch_tokens=1e5, steps=steps, loss=np.array([4.0, 2.0, 1.0]))
    rows = steps_to_loss([curve], [8.0, 4.0, math.sqrt(8), 2.0, 0.5])
    np.testing.assert_allclose(rows.loss, [math.sqrt(8), 2.0])
    np.testing.assert_allclose(rows.steps, [math.sqrt(1000), 100])  # halfway in both logs
    with pytest.raises(LawError, match="goes through any") as caught:
        steps_to_loss([curve], [0.5])
    assert caught.value.status == "unreached"
    with pytest.raises(LawError, match=r"curves\[0\].steps do not ascend"):
        steps_to_loss([BatchCurve(batch_tokens=1e5, steps=steps[::-1], loss=curve.loss)], [2.0])
    with pytest.raises(LawError, match=r"curves\[0\].loss\[1\] is nan"):
        steps_to_loss([BatchCurve(batch_tokens=1e5, steps=steps, loss=np.array([4.0, np.nan, 1.0]))], [2.0])


# ---- refusals ------------------------------------------------------------------------------------------------------------

Refused = Callable[[], Any]


@pytest.mark.parametrize(
    ("fit", "status", "match"),
    [
        (lambda: fit_scale_law([1e6, 1e7, -1e8], [4, 3, 2]), "bad_input", r"X\[2\] is -1e\+08 \(1 bad in all\).*fix or drop"),
        (lambda: fit_scale_law([1e6, 1e7, 1e8], [4, math.nan, 2]), "bad_input", r"loss\[1\] is nan"),
        (lambda: fit_scale_law([1e6, 1e7, math.inf], [4, 3, 2]), "bad_input", r"X\[2\] is inf"),
        (lambda: fit_scale_law([1e6, 1e7, 1e8], [4, 3]), "bad_input", "lengths differ .X 3, loss 2"),
        (lambda: fit_scale_law([1e6, 1e7, "many"], [4, 3, 2]), "bad_input", "X is not an array of numbers"),
        (lambda: fit_scale_law(np.ones((3, 1)), [4, 3, 2]), "bad_input", r"X has shape \(3, 1\)"),
        (lambda: fit_scale_law([], []), "too_few_runs", "0 points"),
        (lambda: fit_scale_law([1e6, 1e7], [4, 3]), "too_few_runs", "at least 3"),
        (lambda: fit_scale_law([1e6] * 3, [4, 3, 2]), "one_size", "1 different X"),
        (lambda: fit_scale_law([1e6, 1e6, 1e7], [4, 3, 2]), "too_few_sizes", "2 different X"),
        (lambda: fit_scale_law(SIZES, L_N.predict(SIZES)[::-1]), "unidentified", "exponent = -0.076"),
        (lambda: fit_scale_law(SIZES, np.full(6, 3.0)), "unidentified", "scale is not finite|exponent = "),
        (lambda: fit_scale_law(SIZES, 3 * SIZES**-1e-3), "unidentified", "scale is not finite"),
        (lambda: fit_size_data_law(N[:4], D[:4], L_ND.predict(N, D)[:4]), "too_few_runs", "4 points"),
        (lambda: fit_size_data_law(N * 0 + 1e6, D, L_ND.predict(1e6, D)), "one_size", "1 different N"),
        (lambda: fit_size_data_law(N, D * 0 + 1e9, L_ND.predict(N, 1e9)), "unidentified", "1 different D"),
        (lambda: fit_size_data_law(N, 20 * N, L_ND.predict(N, 20 * N)), "unidentified", "D is a power of N"),
        (lambda: fit_size_data_law(N, D, L_N.predict(N)), "unidentified", "D"),
        (lambda: fit_size_data_law(N, D, L_D.predict(D)), "unidentified", "term of N vanishes"),
        (lambda: fit_size_data_law(N, D, L_ND.predict(N, D * 1e6)), "unidentified", "term of D vanishes|D_c is not finite"),
        (
            lambda: fit_size_data_law(N, D, L_N.predict(N) * noise(0.01)),
            "unidentified",
            "N alone fits as well|term of D vanishes",
        ),
        (lambda: fit_size_data_law(N, D, 3 + 0 * N), "unidentified", "next to zero|vanishes|fits as well"),
        (lambda: fit_size_steps_law(N[:4], S[:4], L_NS.predict(N, S)[:4]), "too_few_runs", "4 points"),
        (lambda: fit_size_steps_law(N, S * 0 + 1e4, L_NS.predict(N, 1e4)), "unidentified", "1 different S_min"),
        (lambda: fit_size_steps_law(N, S, L_N.predict(N)), "unidentified", "term of S_min vanishes"),
        (lambda: fit_size_steps_law(N, S, L_NS.predict(N, S * 1e6)), "unidentified", "term of S_min vanishes"),
        (lambda: fit_size_steps_law(N, S, L_N.predict(N) * noise(0.01)), "unidentified", "N alone fits as well"),
        (lambda: fit_size_steps_law(N, S, 2 + (2e3 / S) ** 0.76), "unidentified", "alpha_N = |N_c is not finite"),
        (lambda: fit_size_steps_law(N, S, L_NS.predict(1e15 / N, S)), "unidentified", "alpha_N = -0.07"),
        (lambda: fit_critical_batch([1e5, 0], [10, 5], [3, 3]), "bad_input", r"batch_tokens\[1\] is 0"),
        (lambda: fit_critical_batch([], [], []), "too_few_levels", "0 of 0"),
    ],
)
def test_what_is_no_law_is_refused(fit: Refused, status: str, match: str) -> None:
    with pytest.raises(LawError, match=match) as caught:
        fit()
    assert caught.value.status == status


def test_a_slope_in_the_noise_is_weak_and_has_no_interval() -> None:
    found = set()
    for seed in range(30):
        try:
            fit = fit_scale_law(SIZES, 3 * SIZES**-0.004 * noise(0.03, SIZES.shape, seed))
        except LawError:
            continue
        found.add(fit.status)
        if fit.status == "weak":
            assert fit.identified is not None
            assert fit.identified < 0.9
            assert fit.constants["exponent"].low is None
            assert "% of resamples identify it" in fit.summary()
    assert "weak" in found


def test_resamples_whose_loss_rises_do_not_identify_a_law() -> None:
    X = np.geomspace(1, 10, 8)
    loss = 1.2 * X**-0.05 * noise(0.1, X.shape, seed=3)
    counts = resample_counts(len(X), 200, seed=0)
    slopes = [np.polyfit(np.log(X), np.log(loss), 1, w=np.sqrt(count))[0] for count in counts]
    fit = fit_scale_law(X, loss)
    assert fit.identified == np.mean(np.array(slopes) < 0)
    assert fit.identified is not None
    assert 0.5 < fit.identified < 0.9
    with pytest.raises(LawError, match="only 40% of resamples identify") as caught:
        LawFit.from_resamples(L_N, np.ones((10, 2)), np.arange(10) < 4, log_residuals=np.zeros(3), level=0.8)
    assert caught.value.status == "unidentified"


def test_a_term_is_told_from_chance_by_an_f_test() -> None:
    from scipy.stats import f

    loss = L_NS.predict(N, S * 50) * noise(0.02, seed=1)
    residual = np.log(loss) - np.polyval(np.polyfit(np.log(N), np.log(loss), 1), np.log(N))
    problem = TwoTerms(x=np.log(N) - np.log(N).mean(), y=np.log(S) - np.log(S).mean(), log_loss=np.log(loss), coupled=False)
    best = np.sum((problem.predict(problem.solve()[0][None])[0] - np.log(loss)) ** 2)
    p = f.sf((np.sum(residual**2) - best) / 2 / (best / (len(N) - 4)), 2, len(N) - 4)
    with pytest.raises(LawError, match="of N alone fits as well") as caught:
        fit_size_steps_law(N, S, loss)
    assert f"(p = {p:.2g})" in str(caught.value)


def test_a_term_that_is_not_there_is_never_fitted_to_noise() -> None:
    for seed in range(20):
        with pytest.raises(LawError):
            fit_size_steps_law(N, S, L_N.predict(N) * noise(0.02, seed=seed), intervals=Intervals(20))


def test_importing_the_laws_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, sweep.fit.kaplan.critical_batch, sweep.fit.kaplan.fits; print({'torch', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_scale_law_takes_the_unit_it_is_given() -> None:
    C = np.geomspace(1e-3, 1e3, 7)
    fit = fit_scale_law(C * PF_DAY, L_C.predict(C), intervals=NO_INTERVALS)
    assert fit.law == ScaleLaw(scale=pytest.approx(3.1e8 * PF_DAY, rel=1e-6), exponent=pytest.approx(0.05, rel=1e-9))  # type: ignore[arg-type]
