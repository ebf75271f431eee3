"""Curve collapse on planted runs: exact where theory says so, off where a run or E is off, refused where it means nothing."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sweep.fit import Curve, LawError, Noise, RunTable, Simulator, Surface, collapse

SURFACE = Surface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
BUDGETS = np.geomspace(1e18, 1e21, 9)


def planted(step: float = 0.0, seed: int = 0, budgets: np.ndarray = BUDGETS) -> tuple[list[Curve], RunTable]:
    """The optimal run of each budget; the noise of its curve, but its final loss exact."""
    simulator = Simulator(surface=SURFACE, noise=Noise(step=step), seed=seed)
    runs = simulator.runs(*SURFACE.optimal(budgets))
    return simulator.curves(runs), runs


def test_optimal_runs_collapse_onto_the_curve_that_theory_gives() -> None:
    curves, runs = planted()
    found = collapse(curves, runs, SURFACE.E)
    assert len(found.run_id) == 9
    assert found.delta < 1e-3
    assert found.within
    assert not found.outliers
    # At the optimum alpha A / N^alpha = beta B / D^beta, so that the first term is beta / (alpha + beta) of the reducible loss.
    share = SURFACE.beta / (SURFACE.alpha + SURFACE.beta)
    np.testing.assert_allclose(found.curves[0], share + (1 - share) * found.x**-SURFACE.beta, rtol=2e-3)


def test_a_wrong_E_spreads_the_curves() -> None:
    curves, runs = planted()
    spread = [collapse(curves, runs, E).delta for E in (SURFACE.E, 1.6, 1.2)]
    assert spread[1] > 0.01 > 20 * spread[0]
    assert spread[2] > 1.5 * spread[1]


def test_the_spread_of_noise_is_told_from_the_curves_themselves() -> None:
    ratios = []
    for seed in range(8):
        found = collapse(*planted(step=0.004, seed=seed), SURFACE.E)
        assert found.within
        ratios.append(found.delta / found.noise)
    assert np.mean(ratios) == pytest.approx(1, abs=0.25)


def test_a_run_with_a_bump_is_named() -> None:
    curves, runs = planted(step=0.002)
    bump = 1 + 0.3 * np.exp(-(np.log(curves[4].tokens / curves[4].tokens[-1] / 0.3) ** 2) / 0.1)
    curves[4] = replace(curves[4], loss=curves[4].loss * bump)
    found = collapse(curves, runs, SURFACE.E)
    assert [one.run_id for one in found.outliers] == [curves[4].run_id]
    assert found.outliers[0].x == pytest.approx(0.3, abs=0.06)
    assert found.outliers[0].deviation > 0.3
    assert not found.within
    assert f"{curves[4].run_id} stands out" in found.summary()
    saved = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert saved["outliers"][0]["run_id"] == curves[4].run_id
    assert len(saved["spread"]) == len(saved["x"])


def test_runs_off_the_optimum_and_curves_that_end_early_are_not_compared() -> None:
    simulator = Simulator(surface=SURFACE)
    runs = simulator.isoflop(BUDGETS, sizes=7)
    runs = replace(runs, C=runs.C * (1 + 0.002 * np.sin(np.arange(len(runs)))))  # whole steps miss their budget a little
    curves = simulator.curves(runs)
    cut = runs.run_id[np.arange(len(runs)) % 7 == 3][2]
    curves = [replace(c, tokens=c.tokens[:-9], loss=c.loss[:-9]) if c.run_id == cut else c for c in curves]
    found = collapse(curves, runs, SURFACE.E)
    assert cut not in found.run_id
    assert len(found.run_id) == 8
    np.testing.assert_allclose(found.N, SURFACE.optimal(found.C)[0], rtol=0.01)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (lambda curves, runs: ([], runs, 1.8), "no_curves", "add them"),
        (lambda curves, runs: (curves, runs, None), "no_E", "Approach 3"),
        (lambda curves, runs: (curves, runs, 2.5), "bad_E", "E = 2.5 is not below the lowest loss"),
        (lambda curves, runs: ([replace(c, loss=c.loss - 0.6) for c in curves], runs, SURFACE.E), "bad_E", "fit.loss=train"),
        (lambda curves, runs: (curves[:3], runs, SURFACE.E), "too_few_runs", "3 runs near the optimum"),
        (lambda curves, runs: ([_sparse(c) for c in curves], runs, SURFACE.E), "too_few_runs", "log losses more often"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: Any, status: str, message: str) -> None:
    with pytest.raises(LawError, match=message) as caught:
        collapse(*change(*planted()))
    assert caught.value.status == status


def _sparse(curve: Curve) -> Curve:
    return replace(curve, tokens=curve.tokens[[0, 50, 90, 99]], loss=curve.loss[[0, 50, 90, 99]])
