"""What the laws are asked: optima, inverse questions, costs; against published tables and direct minimisation."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from sweep.fit import (
    Compute,
    LawError,
    Noise,
    ParametricFit,
    Questions,
    Refused,
    Simulator,
    Surface,
    allocate,
    allocate_sizes,
    answer,
    budget_for_loss,
    fit_envelope,
    fit_isoflop,
    fit_parametric,
    lifetime_optimum,
    size_penalty,
)
from sweep.fit.result import PowerLaw
from sweep.fit.surface import BESIROGLU, CHINCHILLA

SIMULATOR = Simulator(surface=CHINCHILLA, noise=Noise(run=0.002, step=0.002))
BUDGETS = [1e18, 3e18, 1e19, 3e19, 1e20]
# Hoffmann et al. 2022, Tables 3 and A3: N and the optimal D by Approaches 1, 2 and 3.
CHINCHILLA_ALLOCATION = (
    (400e6, 8.0e9, 7.7e9, 9.2e9),
    (1e9, 20.2e9, 20.0e9, 27.1e9),
    (10e9, 205.1e9, 219.5e9, 410.1e9),
    (67e9, 1.5e12, 1.7e12, 4.1e12),
    (175e9, 3.7e12, 4.3e12, 12.0e12),
    (280e9, 5.9e12, 7.1e12, 20.1e12),
    (520e9, 11.0e12, 13.4e12, 43.5e12),
    (1e12, 21.2e12, 26.5e12, 94.1e12),
    (10e12, 216.2e12, 292.0e12, 1425.5e12),
)


def chinchilla_law(approach: int) -> PowerLaw:
    """N_opt(C) for C = 6 N D by the paper's Approach 1, 2 or 3, as its allocation table has it.

    The paper prints the exponents to two digits and no coefficients for Approaches 1 and 2. Its table is a power law to the
    rounding, but for the 67B row, 6 to 8 % above it in all three columns, and Approach 3's 280B row, 4 % below. The law goes
    through the table's first and last rows. For Approach 3 it is not the law of `CHINCHILLA`, which asks for 6 to 19 % more
    tokens: the table and the constants of the paper are not of one fit.
    """
    (N, *first), (M, *last) = CHINCHILLA_ALLOCATION[0], CHINCHILLA_ALLOCATION[-1]
    low, high = 6 * N * first[approach - 1], 6 * M * last[approach - 1]
    a = np.log(M / N) / np.log(high / low)
    return PowerLaw(coefficient=N / low**a, exponent=float(a))


@pytest.mark.parametrize("compute", [Compute(), Compute(kappa=11.0, eta=0.9)])
def test_the_frontier_is_where_nothing_is_better(compute: Compute) -> None:
    surface = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28, compute=compute)
    for C in (1e17, 1e23):
        best = minimize_scalar(lambda x, C=C: surface.predict(np.exp(x), compute.tokens(np.exp(x), C)), bounds=(5, 35))
        N, D = surface.optimal(C)
        assert np.log(N) == pytest.approx(best.x, abs=1e-4)
        assert compute.flops(N, D) == pytest.approx(C)
        assert surface.budget_for_size(N) == pytest.approx(C)
        assert surface.budget_for_loss(surface.frontier_loss(C)) == pytest.approx(C)
    slope = np.log(surface.optimal(1e23)[0] / surface.optimal(1e17)[0]) / np.log(1e6)
    assert surface.a == pytest.approx(slope)
    assert surface.b == pytest.approx(1 - compute.eta * slope)
    assert np.isnan(surface.budget_for_loss(1.69))


@pytest.mark.parametrize("approach", [1, 2, 3])
def test_the_papers_allocation_table(approach: int) -> None:
    """Every row to the rounding it is printed with, but for the 67B row and Approach 3's 280B, which lie off any power law."""
    sizes = [row[0] for row in CHINCHILLA_ALLOCATION]
    for (N, C, D), row in zip(allocate_sizes(chinchilla_law(approach), sizes), CHINCHILLA_ALLOCATION, strict=True):
        off = 0.08 if N == 67e9 else 0.05 if (approach, N) == (3, 280e9) else 0.01
        assert row[approach] == pytest.approx(D, rel=off)
        assert 6 * N * D == pytest.approx(C)
    assert chinchilla_law(approach).exponent == pytest.approx({1: 0.50, 2: 0.49, 3: 0.46}[approach], abs=0.005)


def test_the_papers_constants_ask_for_more_tokens_than_its_table() -> None:
    assert CHINCHILLA.a == pytest.approx(0.4565, abs=1e-4)
    for N, _, D in allocate_sizes(CHINCHILLA, [row[0] for row in CHINCHILLA_ALLOCATION]):
        (printed,) = (row[3] for row in CHINCHILLA_ALLOCATION if row[0] == N)
        assert 1.06 <= D / printed < 1.19
    assert float(chinchilla_law(1)(1e21)) == pytest.approx(2.8e9, rel=0.03)  # the head-to-head's 2.80B
    assert pytest.approx(0.513, abs=1e-3) == BESIROGLU.a


def test_intervals_at_any_budget_by_every_approach() -> None:
    runs = SIMULATOR.isoflop(BUDGETS, sizes=9)
    fits = (fit_envelope(SIMULATOR.curves(runs)), fit_isoflop(runs), fit_parametric(runs))
    for fit, tolerance in zip(fits, (0.5, 0.2, 0.15), strict=True):
        near, far = allocate(fit, [1e20, 1e23])
        assert near.N.value == pytest.approx(CHINCHILLA.optimal(1e20)[0], rel=tolerance)
        assert near.tokens_per_parameter.value == pytest.approx(near.D.value / near.N.value)
        assert (far.loss is None) == (not isinstance(fit, ParametricFit))  # without an E it would fall below any
        for row in (near, far):
            for estimate in filter(None, (row.N, row.D, row.tokens_per_parameter, row.loss)):
                assert estimate.low is not None
                assert estimate.high is not None
                assert estimate.low <= estimate.value <= estimate.high
        assert far.N.high / far.N.low > near.N.high / near.N.low  # type: ignore[operator]
        assert near.loss is not None
        assert near.loss.value == pytest.approx(CHINCHILLA.frontier_loss(1e20), rel=0.02)
    with pytest.raises(LawError, match="must be positive"):
        allocate(fits[2], [-1.0])


def test_the_budget_for_a_loss() -> None:
    fit = fit_parametric(SIMULATOR.isoflop(BUDGETS, sizes=9))
    C = budget_for_loss(fit, CHINCHILLA.frontier_loss(1e21))
    assert C.low is not None
    assert C.high is not None
    assert C.low < 1e21 < C.high
    with pytest.raises(LawError, match="not above E") as caught:
        budget_for_loss(fit, 1.0)
    assert caught.value.status == "unreachable"
    hard = budget_for_loss(fit, fit.E.value + 0.01)
    assert hard.high == np.inf  # some resamples have a higher E
    assert hard.to_dict()["high"] is None


def test_the_price_of_another_size() -> None:
    fit = fit_parametric(Simulator(surface=CHINCHILLA, noise=Noise(run=1e-4)).isoflop(BUDGETS))
    surface = fit.surface
    N_opt, _ = surface.optimal(1e21)
    for factor in (0.5, 2.0):
        penalty = size_penalty(fit, 1e21, factor)
        D = penalty.compute * 1e21 / (6 * factor * N_opt)
        assert surface.predict(factor * N_opt, D) == pytest.approx(surface.frontier_loss(1e21))
        at_C = surface.predict(factor * N_opt, 1e21 / (6 * factor * N_opt))
        assert penalty.loss.value == pytest.approx(at_C - surface.frontier_loss(1e21))
        assert penalty.loss.low < CHINCHILLA.penalty(1e21, factor) < penalty.loss.high
        assert 0.01 < penalty.loss.value < 0.02
        assert 1.1 < penalty.compute < 1.25
    exact = size_penalty(fit, 1e21, 1.0)
    assert (exact.loss.value, exact.compute) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    assert size_penalty(fit, 1e21, 0.001).compute == np.inf


def test_the_profiles_say_what_another_size_costs_where_there_are_any() -> None:
    """The same runs by Approach 2; what a surface says of them stands in where no budgets are named."""
    runs = Simulator(surface=CHINCHILLA, noise=Noise(run=5e-4)).isoflop(BUDGETS, sizes=9)
    fits = fit_isoflop(runs), fit_parametric(runs)
    for chosen, expected in ((fits, "isoflop"), (fits[1:], "parametric")):
        for penalty in answer(chosen, Questions(budgets=[1e19]), largest=1e20).penalties[1e19]:
            assert penalty.approach == expected
            assert penalty.loss.low < CHINCHILLA.penalty(1e19, penalty.factor) < penalty.loss.high
            assert 1.05 < penalty.compute < 1.3


def test_use_makes_smaller_models_trained_longer_the_cheapest() -> None:
    loss = CHINCHILLA.frontier_loss(1e23)
    N_opt, D_opt = CHINCHILLA.optimal(1e23)
    unused = lifetime_optimum(CHINCHILLA, loss, 0)
    assert (unused.N, unused.D) == (pytest.approx(N_opt, rel=1e-3), pytest.approx(D_opt, rel=1e-3))
    assert unused.saving == pytest.approx(0, abs=1e-6)
    used = lifetime_optimum(CHINCHILLA, loss, 1e13)
    assert used.N < 0.7 * N_opt
    assert CHINCHILLA.predict(used.N, used.D) == pytest.approx(loss)
    grid = np.geomspace(0.2 * N_opt, N_opt, 2000)
    D = (CHINCHILLA.B / np.maximum(loss - CHINCHILLA.E - CHINCHILLA.A / grid**CHINCHILLA.alpha, 1e-9)) ** (1 / CHINCHILLA.beta)
    cost = 6 * grid * D + 2 * grid * 1e13
    assert used.training + used.inference == pytest.approx(cost.min(), rel=1e-5)
    assert used.saving == pytest.approx(1 - cost.min() / cost[-1], rel=1e-4)
    with pytest.raises(LawError, match="no budget reaches"):
        lifetime_optimum(CHINCHILLA, 1.0, 1e12)


def test_answers_cover_what_was_asked() -> None:
    runs = SIMULATOR.isoflop(BUDGETS, sizes=9)
    fits = (Refused(LawError("no_curves", "there are none")), fit_isoflop(runs), fit_parametric(runs))
    asked = Questions(budgets=[1e21], losses=[2.3, 1.0], inference_tokens=1e12, flops_per_second=1e14)
    answers = answer(fits, asked, largest=1e20)
    assert [row.approach for row in answers.allocations] == ["isoflop", "parametric"]
    reached, unreached = answers.goals
    assert reached.lifetime is not None
    assert unreached.C is None
    assert "no budget reaches" in answers.summary()
    assert "GPU-hours" in answers.summary()
    assert {penalty.factor for penalty in answers.penalties[1e21]} == {0.5, 2.0}
    assert [row.C for row in answer(fits, Questions(), largest=1e20).allocations] == [1e20] * 2 + [1e21] * 2 + [1e22] * 2
    with pytest.raises(LawError, match=r"ask\.losses=\[-1\] is out of range"):
        answer(fits, Questions(losses=[-1]), largest=1e20)
