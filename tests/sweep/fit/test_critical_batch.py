"""The critical batch of Kaplan et al. 2020 (arXiv 2001.08361), from runs at several batch sizes."""

import math

import numpy as np
import pytest

from sweep.fit import NO_INTERVALS, LawError
from sweep.fit.kaplan.critical_batch import TooFewLevels, fit_critical_batch
from sweep.fit.kaplan.laws import (
    B_CRIT,
)
from sweep.fit.kaplan.table import BatchCurve, steps_to_loss
from tests.sweep.fit.kaplan_cases import BATCHES, LEVELS, batch_curves, measured


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
