"""Whether a law is adequate: planted laws are, other forms are not, and the noise is found without any law."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sweep.fit import NO_INTERVALS, Noise, RunTable, Simulator, fit_parametric
from sweep.fit.kaplan.laws import L_ND
from sweep.fit.lack_of_fit import LackOfFit, lack_of_fit, pure_noise
from sweep.fit.surface import BESIROGLU

BUDGETS = np.geomspace(1e18, 1e21, 7)


def planted(noise: float, seed: int) -> RunTable:
    return Simulator(surface=BESIROGLU, noise=Noise(run=noise), seed=seed).isoflop(BUDGETS, sizes=9, span=30)


def of_kaplans_form(noise: float, seed: int) -> RunTable:
    runs = planted(0.0, seed)
    loss = L_ND.predict(runs.N, runs.D)
    return replace(runs, loss=loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss))))


def with_the_sum_bent(noise: float, seed: int) -> RunTable:
    runs = planted(0.0, seed)
    loss = 1.8 + (964 / runs.N**0.3478 + 2085 / runs.D**0.3658) ** 0.7
    return replace(runs, loss=loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss))))


def judged(runs: RunTable) -> LackOfFit:
    noise = pure_noise(runs)
    assert noise is not None
    fit = fit_parametric(runs, objective="log_mse", intervals=NO_INTERVALS)
    return lack_of_fit(runs, fit.predict(runs.N, runs.D), free=5, noise=noise)


@pytest.mark.parametrize("noise", [0.001, 0.01])
def test_a_law_that_holds_is_adequate(noise: float) -> None:
    """At one per cent: of twenty tables, more than two rejected would happen once in a thousand times."""
    assert sum(not judged(planted(noise, seed)).adequate for seed in range(20)) <= 2


@pytest.mark.parametrize("table", [of_kaplans_form, with_the_sum_bent])
def test_a_law_of_another_form_is_not(table: Callable[[float, int], RunTable]) -> None:
    for seed in range(3):
        found = judged(table(0.001, seed))
        assert not found.adequate
        assert found.chi2 > 5
        assert found.p_along_N < 0.01  # bulges along the profiles
        assert "not adequate" in found.line()


@pytest.mark.parametrize("noise", [0.001, 0.005])
def test_the_noise_is_found_without_a_law(noise: float) -> None:
    found = [pure_noise(planted(noise, seed)) for seed in range(20)]
    assert all(each is not None and each.source == "profiles" for each in found)
    assert np.median([each.sd for each in found if each]) == pytest.approx(noise, rel=0.15)
    # a wall at one end and a broken run are no noise
    runs = planted(noise, 0)
    loss = runs.loss + 0.3 * np.maximum(np.log(runs.N / BESIROGLU.optimal(runs.C)[0] / 3), 0) ** 2
    loss[20] *= 1.1
    walled = pure_noise(replace(runs, loss=loss))
    assert walled is not None
    assert walled.sd < 2.5 * noise


def test_replicates_come_before_profiles() -> None:
    runs = planted(0.002, 1)
    columns: dict[str, Any] = {name: np.concatenate([getattr(runs, name)] * 2) for name in ("N", "D", "C", "budget")}
    loss = np.concatenate([planted(0.002, seed).loss for seed in (1, 2)])
    both = RunTable(run_id=np.arange(len(loss)).astype(str), loss=loss, **columns)
    found = pure_noise(both)
    assert found is not None
    assert (found.source, found.freedom) == ("replicates", len(runs))
    assert found.sd == pytest.approx(0.002, rel=0.3)
    given = pure_noise(both, 0.01)
    assert given is not None
    assert given.sd * np.median(loss) == pytest.approx(0.01)
    assert pure_noise(runs.where(np.arange(len(runs)) % 9 < 3)) is None  # three sizes a budget tell nothing
