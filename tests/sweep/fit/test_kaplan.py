"""The laws of Kaplan et al. 2020 (arXiv 2001.08361): the paper's numbers, and planted constants that come back."""

import json
import math

import numpy as np
import pytest

from sweep.fit import NO_INTERVALS, Intervals, LawError
from sweep.fit.kaplan.fits import fit_size_data_law, fit_size_steps_law
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
    SizeDataLaw,
    SizeStepsLaw,
    contradiction,
    learning_rate,
    optimal_exponents,
)
from sweep.fit.kaplan.two_terms import TwoTerms
from sweep.fit.result import PowerLaw
from tests.sweep.fit.kaplan_cases import (
    PUBLISHED,
    SIZES,
    STEPS,
    D,
    N,
    S,
    fitted,
    noise,
)

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
