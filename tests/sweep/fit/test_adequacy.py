"""What a law is judged by: forms that are planted, the entropy that is known, choices that lack a constant, fits made once."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep.fit import NO_INTERVALS, Intervals, Options, RunTable, fit_all, fit_parametric
from sweep.fit.judge.choices import Choices
from sweep.fit.judge.form_fits import FittedForm, fit_forms
from sweep.fit.lack_of_fit import lack_of_fit, pure_noise
from sweep.fit.solver.search import Search
from sweep.fit.surface import CHINCHILLA
from sweep.tables.table import as_runs

RESULTS = Path(__file__).parents[3] / "results"
BUDGETS = np.geomspace(6e18, 3e21, 9)


def interaction(N: Any, D: Any) -> Any:
    return CHINCHILLA.predict(N, D) + 3e5 / (N**0.34 * D**0.28)


def power_of_sum(N: Any, D: Any) -> Any:
    return CHINCHILLA.E + (CHINCHILLA.predict(N, D) - CHINCHILLA.E) ** 0.6


def grid(law: Any, noise: float, budgets: np.ndarray = BUDGETS, sizes: int = 9) -> RunTable:
    """IsoFLOP profiles of a law, the optimum of Chinchilla's surface in their middle."""
    C = np.repeat(budgets, sizes)
    N = CHINCHILLA.optimal(C)[0] * np.tile(np.geomspace(0.2, 5, sizes), len(budgets))
    loss = law(N, C / (6 * N)) * np.exp(noise * np.random.default_rng(0).standard_normal(len(C)))
    return as_runs(pd.DataFrame({"N": N, "D": C / (6 * N), "loss": loss, "budget": C}))


def test_an_interaction_is_not_adequate() -> None:
    table = grid(interaction, 0.0005)
    noise = pure_noise(table)
    assert noise is not None
    fit = fit_parametric(table, intervals=NO_INTERVALS)
    judged = lack_of_fit(table, fit.predict(table.N, table.D), free=5, noise=noise)
    assert judged.to_dict()["adequate"] is False


def test_an_exponent_on_the_sum_is_found_and_its_predictions_told() -> None:
    table = grid(power_of_sum, 0.0003)
    found = fit_forms(table)["power of the sum"]
    assert isinstance(found, FittedForm)
    assert not found.set_aside
    assert float(np.exp(found.theta[5])) == pytest.approx(0.6, abs=0.15)
    largest, further = found.to_dict()["optima"]
    assert [largest["C"], further["C"]] == pytest.approx([3e21, 3e22])
    for row in (largest, further):
        N = np.geomspace(1e6, 1e14, 20001)
        losses = power_of_sum(N, row["C"] / (6 * N))
        assert row["loss"] == pytest.approx(losses.min(), rel=0.003)
        assert row["N"] == pytest.approx(N[losses.argmin()], rel=0.2)
        assert 6 * row["N"] * row["D"] == pytest.approx(row["C"])
    assert f"loss {further['loss']:.4g}" in found.line()


def test_the_known_entropy_is_inside_the_interval_of_E_or_E_is_not_identified() -> None:
    truth = 3.6407418148712964  # nats per token, corpus.json
    table = pd.read_csv(RESULTS / "known-entropy" / "runs.csv")
    fits = fit_all(table, options=Options(intervals=Intervals(resamples=100)))
    parametric: Any = fits.parametric
    forms = [form for form in fits.forms.values() if isinstance(form, FittedForm) and not form.set_aside]
    assert any(form.E is None for form in forms)  # a form without E has no say
    combined = Choices(variants=fits.sensitivity, forms=forms).spread(parametric.E, lambda law: law.E).combined
    if combined.low is None or combined.high is None:
        assert "not identified" in str(parametric.E)
        assert parametric.status == "unidentified"
    else:
        assert combined.low <= truth <= combined.high


def test_no_surface_is_searched_for_twice_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One table under two conventions that differ in C alone, fitted with and without intervals."""
    searched: Counter[Any] = Counter()
    told: list[tuple[str, int, int]] = []
    run = Search.run

    def counted(self: Search) -> Any:
        of = self.objective
        arrays = (of.x, of.y, of.z, self.weight)
        searched[*(each.tobytes() for each in arrays), of.space, self.width, self.delta, self.tied, self.fixed_E] += 1
        return run(self)

    monkeypatch.setattr(Search, "run", counted)
    table = grid(CHINCHILLA.predict, 0.00123, budgets=BUDGETS[::2], sizes=7)
    dearer = as_runs(pd.DataFrame({"N": table.N, "D": table.D, "C": 1.1 * table.C, "loss": table.loss}))
    fits = fit_all(
        table,
        conventions={"6N": table, "dearer": dearer},
        options=Options(intervals=Intervals(resamples=40)),
        tell=lambda what, done, of: told.append((what, done, of)),
    )
    assert len(fits.conventions) >= 2
    assert len(searched) > 10
    assert set(searched.values()) == {1}
    parts = {"the approaches", "forms of L(N, D)", "held-out budgets", "a under other choices", "a under other conventions"}
    assert {what for what, _, _ in told} == parts
    assert all(0 <= done < of for _, done, of in told)
