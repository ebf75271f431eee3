"""Estimates: when there is an interval, and what stands in its place."""

import numpy as np
import pytest

from sweep.fit import Estimate


def test_an_interval_is_the_central_part() -> None:
    estimate = Estimate.from_resamples(0.5, np.arange(101) / 100, 0.8)
    assert (estimate.low, estimate.high) == pytest.approx((0.1, 0.9))
    assert str(estimate) == "0.5 (0.1 to 0.9)"


def test_without_enough_answers_there_is_none() -> None:
    drawn = np.arange(100.0)
    for missing, known in ((9, True), (15, False), (100, False)):
        part = drawn.copy()
        part[:missing] = np.nan
        assert (Estimate.from_resamples(0.5, part, 0.8).low is not None) is known
    assert Estimate.from_resamples(0.5, np.arange(5.0), 0.8).low is None
    assert str(Estimate(0.5)) == "0.5 (no interval)"


def test_an_end_may_be_infinite_but_not_in_json() -> None:
    drawn = np.r_[np.arange(80.0), np.full(20, np.inf)]
    estimate = Estimate.from_resamples(40.0, drawn, 0.8)
    assert estimate.high == np.inf
    assert estimate.low == pytest.approx(9.9)
    assert estimate.to_dict() == {"value": 40.0, "low": estimate.low, "high": None}


def test_intervals_are_compared_where_there_are_any() -> None:
    value, bare = Estimate(1.0, 0.5, 2.0), Estimate(1.0)
    assert (value.contains(0.5), value.contains(2.1), bare.contains(1.0)) == (True, False, None)
    assert (value.overlaps(Estimate(2.5, 2.0, 3.0)), value.overlaps(Estimate(2.5, 2.1, 3.0))) == (True, False)
    assert Estimate(2.5, 2.1, 3.0).overlaps(value) is False
    assert value.overlaps(bare) is bare.overlaps(value) is None
    assert value.mapped(lambda x: 10 * x) == Estimate(10.0, 5.0, 20.0)
    assert bare.mapped(lambda x: 10 * x) == Estimate(10.0)
