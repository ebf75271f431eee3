"""Is a law adequate, which form predicts best, what other choices do, and is no fit made twice: on planted surfaces."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep.fit import NO_INTERVALS, Estimate, Intervals, Options, RunTable, fit_all, fit_parametric
from sweep.fit.judge.choices import Choices, two_parts
from sweep.fit.judge.form_fits import FittedForm, fit_forms
from sweep.fit.lack_of_fit import KNOWN, LackOfFit, lack_of_fit, pure_noise
from sweep.fit.solver.search import Search
from sweep.fit.surface import CHINCHILLA
from sweep.tables.table import as_runs

RESULTS = Path(__file__).parents[3] / "results"
BUDGETS = np.geomspace(6e18, 3e21, 9)
FEW = Intervals(resamples=40)
Law = Callable[[Any, Any], Any]


def _interaction(N: Any, D: Any) -> Any:
    return CHINCHILLA.predict(N, D) + 3e5 / (N**0.34 * D**0.28)


def _power_of_sum(N: Any, D: Any) -> Any:
    return CHINCHILLA.E + (CHINCHILLA.predict(N, D) - CHINCHILLA.E) ** 0.6


def _kaplan(N: Any, D: Any) -> Any:
    return ((6.4e13 / N) ** (0.076 / 0.103) + 1.8e13 / D) ** 0.103


def _grid(law: Law, noise: float, seed: int = 0, budgets: np.ndarray = BUDGETS, sizes: int = 9) -> RunTable:
    """IsoFLOP profiles of a law, the optimum of Chinchilla's surface in their middle."""
    C = np.repeat(budgets, sizes)
    N = CHINCHILLA.optimal(C)[0] * np.tile(np.geomspace(0.2, 5, sizes), len(budgets))
    loss = law(N, C / (6 * N)) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(C)))
    return as_runs(pd.DataFrame({"N": N, "D": C / (6 * N), "loss": loss, "budget": C}))


def _judged(table: RunTable) -> LackOfFit:
    noise = pure_noise(table)
    assert noise is not None
    fit = fit_parametric(table, intervals=NO_INTERVALS)
    return lack_of_fit(table, fit.predict(table.N, table.D), free=5, noise=noise)


@pytest.mark.parametrize("noise", [0.001, 0.01])
def test_the_true_form_is_adequate(noise: float) -> None:
    judged = [_judged(_grid(CHINCHILLA.predict, noise, seed)) for seed in range(8)]
    assert sum(not each.adequate for each in judged) <= 1  # of 8 at one per cent
    assert np.median([each.chi2 for each in judged]) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("law", [_interaction, _power_of_sum, _kaplan])
def test_another_form_is_not_adequate(law: Law) -> None:
    judged = _judged(_grid(law, 0.0005))
    assert not judged.adequate and "not adequate" in judged.line() and judged.to_dict()["adequate"] is False


def test_noise_comes_from_what_was_given_then_equal_runs_then_profiles() -> None:
    table = _grid(CHINCHILLA.predict, 0.004)
    by_profile = pure_noise(table)
    assert by_profile.source == "profiles" and by_profile.sd == pytest.approx(0.004, rel=0.3)
    given = pure_noise(table, 0.01)
    assert (given.source, given.freedom) == ("given", KNOWN) and given.sd == pytest.approx(0.01 / np.median(table.loss))
    one = _grid(CHINCHILLA.predict, 0.002, 1)
    both = as_runs(np.tile(one.N, 2), np.tile(one.D, 2), np.concatenate([one.loss, _grid(CHINCHILLA.predict, 0.002, 2).loss]))
    equal = pure_noise(both)
    assert (equal.source, equal.freedom) == ("replicates", 81) and equal.sd == pytest.approx(0.002, rel=0.25)
    assert pure_noise(as_runs(one.N[::9], one.D[::9], one.loss[::9])) is None


def test_one_outlier_does_not_decide_the_noise() -> None:
    table = _grid(CHINCHILLA.predict, 0.002)
    loss = table.loss.copy()
    loss[40] *= 1.3
    spoilt = pure_noise(as_runs(table.N, table.D, loss, table.budget))
    assert spoilt.sd == pytest.approx(pure_noise(table).sd, rel=0.35)


@pytest.mark.parametrize(
    ("law", "name"), [(_power_of_sum, "power of the sum"), (_kaplan, "Kaplan"), (CHINCHILLA.predict, "Chinchilla")]
)
def test_the_form_that_made_the_runs_predicts_larger_budgets(law: Law, name: str) -> None:
    table = _grid(law, 0.0003)
    forms = fit_forms(table)
    true = forms[name]
    assert not true.set_aside and true.held_out < 0.001
    rest = [form for form in forms.values() if form.fitted and not form.set_aside]
    C = 10 * table.C.max()
    assert true.to_dict()["optima"][1]["C"] == pytest.approx(C)
    assert any(form is true for form in rest) and true.optimal_loss(C) == pytest.approx(_least(law, C), rel=0.003)
    if law is _kaplan:
        assert forms["Chinchilla"].set_aside


def _least(law: Law, C: float) -> float:
    N = np.geomspace(1e6, 1e14, 20001)
    return float(law(N, C / (6 * N)).min())


def test_a_form_with_more_constants_than_the_runs_bear_is_refused_by_name() -> None:
    forms = fit_forms(_grid(CHINCHILLA.predict, 0.001, budgets=BUDGETS[:2], sizes=5))
    assert forms["Chinchilla"].fitted and not forms["Farseer"].fitted
    assert "10 runs for the 9 constants" in forms["Farseer"].reason


def test_choices_widen_an_interval_by_what_noise_does_not_explain() -> None:
    noise = Estimate(1.0, 0.9, 1.1)
    same = two_parts(noise, [("a subset", Estimate(1.1, 0.9586, 1.2414))])  # as far as its larger variance explains
    assert same.combined.high == pytest.approx(1.1, abs=1e-3) and same.combined.low == pytest.approx(0.9)
    apart = two_parts(noise, [("another form", Estimate(0.5)), ("another width", Estimate(0.8, 0.7, 0.9))])
    assert apart.lowest == "another form" and apart.highest is None
    assert apart.combined.low == pytest.approx(1 - np.hypot(0.1, 0.5)) and apart.combined.high == pytest.approx(1.1)


def test_the_known_entropy_is_inside_the_interval_of_E_or_E_is_not_identified() -> None:
    truth = 3.6407418148712964  # nats per token, corpus.json
    table = pd.read_csv(RESULTS / "known-entropy" / "runs.csv")
    fits = fit_all(table, options=Options(intervals=Intervals(resamples=100)))
    E = fits.parametric.E
    if E.low is None:
        assert "not identified" in str(E) and fits.parametric.status == "unidentified"
    else:
        forms = [form for form in fits.forms.values() if isinstance(form, FittedForm) and not form.set_aside]
        combined = Choices(variants=fits.sensitivity, forms=forms).spread(E, lambda law: law.E).combined
        assert combined.low <= truth <= combined.high
    assert "3.6459" not in fits.summary()


def test_no_surface_is_searched_for_twice_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: Counter[Any] = Counter()
    lines: list[tuple[str, int, int]] = []
    run = Search.run

    def counted(self: Search) -> Any:
        objective = self.objective
        parts = [objective.x, objective.y, objective.z, self.weight, np.array([self.width])]
        searched[tuple(part.tobytes() for part in parts), objective.space, self.delta, self.tied, self.fixed_E] += 1
        return run(self)

    monkeypatch.setattr(Search, "run", counted)
    fit_all(
        _grid(CHINCHILLA.predict, 0.00123, budgets=BUDGETS[::2], sizes=7),
        options=Options(intervals=FEW),
        tell=lambda what, done, of: lines.append((what, done, of)),
    )
    assert len(searched) > 10 and set(searched.values()) == {1}
    assert {what for what, _, _ in lines} >= {"the approaches", "forms of L(N, D)", "held-out budgets", "a under other choices"}
    assert all(0 <= done < of for _, done, of in lines)
