"""Other forms of L(N, D): a planted one is found, the held-out budgets decide, and none is fitted to too few runs."""

from dataclasses import replace

import numpy as np
import pytest

from sweep.fit import Noise, Refused, RunTable, Simulator
from sweep.fit.judge.form_fits import FittedForm, fit_forms
from sweep.fit.judge.forms import FORMS
from sweep.fit.kaplan.laws import L_ND
from sweep.fit.surface import BESIROGLU

BUDGETS = np.geomspace(1e18, 1e21, 7)
RUNS = Simulator(surface=BESIROGLU, noise=Noise(run=0.002)).isoflop(BUDGETS, sizes=9, span=30)


@pytest.fixture(scope="module")
def forms() -> dict[str, FittedForm | Refused]:
    return fit_forms(RUNS)


def test_the_planted_form_is_not_set_aside(forms: dict[str, FittedForm | Refused]) -> None:
    assert set(forms) == set(FORMS)
    chinchilla = forms["Chinchilla"]
    assert isinstance(chinchilla, FittedForm)
    assert not chinchilla.set_aside
    assert chinchilla.held_out == pytest.approx(0.002, rel=0.5)
    assert chinchilla.a == pytest.approx(BESIROGLU.a, abs=0.02)
    assert pytest.approx(BESIROGLU.E, abs=0.03) == chinchilla.E
    kaplan = forms["Kaplan"]
    assert isinstance(kaplan, FittedForm)
    assert kaplan.set_aside
    assert "standard errors" in kaplan.line()


def test_forms_that_hold_the_planted_one_agree_with_it(forms: dict[str, FittedForm | Refused]) -> None:
    """Each optimum and loss, found by minimisation, against the closed ones of the planted surface."""
    for name in ("Chinchilla", "interaction", "power of the sum", "Farseer"):
        form = forms[name]
        assert isinstance(form, FittedForm)
        assert form.rms < 0.003
        for C in (1e19, 1e21):
            assert form.optimal(C)[0] == pytest.approx(BESIROGLU.optimal(C)[0], rel=0.15)
            assert form.optimal_loss(C) == pytest.approx(BESIROGLU.frontier_loss(C), rel=0.003)


def test_another_planted_form_wins() -> None:
    rng = np.random.default_rng(0)
    runs = replace(RUNS, loss=L_ND.predict(RUNS.N, RUNS.D) * np.exp(0.001 * rng.standard_normal(len(RUNS))))
    forms = fit_forms(runs)
    kaplan, chinchilla = forms["Kaplan"], forms["Chinchilla"]
    assert isinstance(kaplan, FittedForm)
    assert isinstance(chinchilla, FittedForm)
    assert not kaplan.set_aside
    assert chinchilla.set_aside
    assert kaplan.held_out == pytest.approx(0.001, rel=0.5)


def test_a_form_with_more_constants_than_the_runs_bear_is_refused() -> None:
    few: RunTable = RUNS.where(np.arange(len(RUNS)) % 7 == 0)
    forms = fit_forms(few)
    assert len(few) == 9
    assert isinstance(forms["Farseer"], Refused)
    assert "9 constants" in str(forms["Farseer"])
    assert isinstance(forms["tied"], FittedForm)
