"""Whether the exponents of several labels are one, against intervals drawn by hand and in simulation."""

import numpy as np
import pytest

from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR
from sweep.compare.exponents import same_exponents
from sweep.compare.labels import Exponent
from sweep.fit import Estimate

NORMAL = 1.959964  # of 95 %, two-sided


def exponent(label: str, value: float, margin: float, approach: str = "isoflop") -> Exponent:
    return Exponent(label=label, approach=approach, a=Estimate(value=value, low=value - margin, high=value + margin))


def verdict(*exponents: Exponent) -> str:
    return same_exponents(exponents, "one exponent", 0.95).verdict


def test_two_labels_by_hand() -> None:
    claim = same_exponents([exponent("text", 0.5, 0.03), exponent("code", 0.4, 0.04)], "one exponent", 0.95)
    assert claim.verdict == FAILS
    assert "text less code is +0.100 (+0.050 to +0.150)" in claim.here  # 3, 4, 5
    assert verdict(exponent("text", 0.5, 0.03), exponent("code", 0.46, 0.04)) == HOLDS  # within 0.1 however it is
    assert verdict(exponent("text", 0.5, 0.03), exponent("code", 0.42, 0.08)) == UNCLEAR


def test_a_difference_that_is_known_and_small_is_none() -> None:
    assert verdict(exponent("text", 0.5, 0.003), exponent("code", 0.49, 0.003)) == HOLDS


def test_the_worst_of_three_pairs_decides() -> None:
    close = (exponent("a", 0.5, 0.02), exponent("b", 0.51, 0.02))
    assert verdict(*close, exponent("c", 0.52, 0.02)) == HOLDS
    assert verdict(*close, exponent("c", 0.6, 0.02)) == FAILS
    assert verdict(*close, exponent("c", 0.4, 0.3)) == UNCLEAR


def test_a_label_without_a_law_of_one_approach() -> None:
    lacking = Exponent(label="code", approach="isoflop", a=None, reason="too few profiles")
    both = [exponent("text", 0.5, 0.01), lacking]
    assert verdict(*both) == UNCLEAR
    by_surface = [exponent("text", 0.5, 0.01, "parametric"), exponent("code", 0.4, 0.01, "parametric")]
    claim = same_exponents([*both, *by_surface], "one exponent", 0.95)
    assert claim.verdict == FAILS
    assert "by parametric" in claim.here


def test_equal_exponents_are_called_different_no_more_often_than_said() -> None:
    rng, margin = np.random.default_rng(0), 0.05
    wrong = sum(
        verdict(*(exponent(name, 0.5 + margin / NORMAL * rng.standard_normal(), margin) for name in "abc")) == FAILS
        for _ in range(2000)
    )
    assert wrong / 2000 == pytest.approx(0.05, abs=0.02)
