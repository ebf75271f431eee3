"""Labels beside each other: planted factors in N and C, exponents, and the score of comparing against ranking."""

import numpy as np
import pandas as pd
import pytest

from sweep.compare.differences import EVERYWHERE
from sweep.compare.equivalent import Law, factor_C, factor_N
from sweep.compare.labels import compare_labels
from sweep.compare.score import score
from sweep.fit import Intervals, Surface

SURFACE = Surface(E=1.0, A=30.0, B=60.0, alpha=0.4, beta=0.35)


def grid(worth: dict[str, float], noise: float = 0.0, seeds: int = 2) -> pd.DataFrame:
    """Profiles of three budgets. A label that is worth m has the loss of the baseline with m times the compute, spent as
    N m^a and D m^b."""
    rng = np.random.default_rng(0)
    rows = []
    for label, m in worth.items():
        cell = 0
        for budget in (1e10, 1e11, 1e12):
            for factor in (0.3, 0.55, 1, 1.8, 3.3):
                N = factor * SURFACE.optimal(budget)[0]
                D = budget / (6 * N)
                loss = SURFACE.predict(N * m**SURFACE.a, D * m**SURFACE.b)
                rows += [
                    {"cell": cell, "label": label, "seed": seed, "N": N, "D": D, "C": budget, "budget": budget, "loss": loss}
                    for seed in range(seeds)
                ]
                cell += 1
    return pd.DataFrame(rows).assign(loss=lambda runs: runs["loss"] + rng.normal(0, noise, len(runs)))


def test_factors_solve_the_law() -> None:
    N, D, worse = 1e4, 1e6, np.array([0.1])
    f, m = factor_N(SURFACE, N, worse)[0], factor_C(SURFACE, N, D, worse)[0]
    loss = SURFACE.predict(N, D) + 0.1
    assert SURFACE.predict(f * N, D) == pytest.approx(loss, rel=1e-12)
    assert SURFACE.predict(m**SURFACE.a * N, m**SURFACE.b * D) == pytest.approx(loss, rel=1e-12)
    assert np.isnan(factor_N(SURFACE, N, -2 * worse * SURFACE.A)).all()  # no N is so good


def test_planted_factors_in_compute_are_found() -> None:
    runs = grid({"a": 1, "half": 0.5, "thrice": 3}, noise=0.002)
    found = compare_labels(runs, baseline="a", intervals=Intervals(50))
    shared = {each.label: each.C for each in found.factors if each.cell == EVERYWHERE and each.C is not None}
    for label, planted in (("half", 0.5), ("thrice", 3.0)):
        assert shared[label].value == pytest.approx(planted, rel=0.05)
        assert shared[label].contains(planted)
        assert [each.value for each in found.free[label]] == pytest.approx([planted, planted], rel=0.05)
    assert {(each.label, each.approach) for each in found.exponents if each.a and each.a.contains(SURFACE.a)} == {
        (label, approach) for label in ("a", "half", "thrice") for approach in ("isoflop", "parametric")
    }


def test_a_label_that_takes_more_compute_is_worth_less_per_flop() -> None:
    """Twice the worth at three times the FLOPs per token."""
    runs = grid({"a": 1, "twice": 2}, noise=0.001)
    costs = runs.assign(C_exact=runs["C"] * np.where(runs["label"] == "twice", 3.0, 1.0))
    (found,) = [each for each in compare_labels(costs, baseline="a").factors if each.cell == EVERYWHERE]
    assert found.cost == pytest.approx(3)
    assert found.per_flop is not None
    assert found.per_flop.value == pytest.approx(2 / 3, rel=0.05)
    assert found.per_flop.contains(2 / 3)
    assert all(each.cost == 1 for each in compare_labels(runs, baseline="a").factors)


def test_a_law_from_elsewhere_stands_in_for_the_baselines() -> None:
    runs = grid({"a": 1, "half": 0.5}, noise=0.001)
    one = runs[runs["cell"] == 7]
    without = compare_labels(one, baseline="a")
    assert without.factors == ()
    assert any("compare.law=NAME" in note for note in without.notes)
    law = Law(surface=SURFACE, replicas=None, source="planted")
    (factor,) = compare_labels(one, baseline="a", law=law).factors
    assert factor.C is not None
    assert factor.C.value == pytest.approx(0.5, rel=0.05)


def test_comparing_over_cells_is_scored_against_ranking_at_one_size() -> None:
    truth = {"a": 0.0, "b": 0.01, "c": 0.02}
    misleading = {"a": 0.05, "b": 0.0, "c": 0.02}  # at the smallest size only
    rows = [
        {"cell": cell, "label": label, "C": 10.0**cell, "loss": 3 - 0.1 * cell + (misleading if cell == 0 else truth)[label]}
        for cell in range(8)
        for label in truth
    ]
    found = score(pd.DataFrame(rows))
    assert found is not None
    assert (found.pairs, found.compared, found.ranked) == (3, 3, 1)
    assert score(pd.DataFrame(rows).query("cell < 2")) is None
