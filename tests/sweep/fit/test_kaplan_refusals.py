"""What the laws of Kaplan et al. 2020 refuse, and why."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sweep.fit import NO_INTERVALS, Intervals, LawError
from sweep.fit.bootstrap import resample_counts
from sweep.fit.kaplan.critical_batch import fit_critical_batch
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.laws import (
    L_C,
    L_D,
    L_N,
    L_ND,
    L_NS,
    PF_DAY,
    ScaleLaw,
)
from sweep.fit.kaplan.two_terms import TwoTerms
from tests.sweep.fit.kaplan_cases import SIZES, D, N, S, noise

Refused = Callable[[], Any]


@pytest.mark.parametrize(
    ("fit", "status", "match"),
    [
        (lambda: fit_scale_law([1e6, 1e7, -1e8], [4, 3, 2]), "bad_input", r"X\[2\] is -1e\+08 \(1 bad in all\).*fix or drop"),
        (lambda: fit_scale_law([1e6, 1e7, 1e8], [4, math.nan, 2]), "bad_input", r"loss\[1\] is nan"),
        (lambda: fit_scale_law([1e6, 1e7, math.inf], [4, 3, 2]), "bad_input", r"X\[2\] is inf"),
        (lambda: fit_scale_law([1e6, 1e7, 1e8], [4, 3]), "bad_input", "lengths differ .X 3, loss 2"),
        (lambda: fit_scale_law([1e6, 1e7, "many"], [4, 3, 2]), "bad_input", "X is not an array of numbers"),
        (lambda: fit_scale_law(np.ones((3, 1)), [4, 3, 2]), "bad_input", r"X has shape \(3, 1\)"),
        (lambda: fit_scale_law([], []), "too_few_runs", "0 points"),
        (lambda: fit_scale_law([1e6, 1e7], [4, 3]), "too_few_runs", "at least 3"),
        (lambda: fit_scale_law([1e6] * 3, [4, 3, 2]), "one_size", "1 different X"),
        (lambda: fit_scale_law([1e6, 1e6, 1e7], [4, 3, 2]), "too_few_sizes", "2 different X"),
        (lambda: fit_scale_law(SIZES, L_N.predict(SIZES)[::-1]), "unidentified", "exponent = -0.076"),
        (lambda: fit_scale_law(SIZES, np.full(6, 3.0)), "unidentified", "scale is not finite|exponent = "),
        (lambda: fit_scale_law(SIZES, 3 * SIZES**-1e-3), "unidentified", "scale is not finite"),
        (lambda: fit_size_data_law(N[:4], D[:4], L_ND.predict(N, D)[:4]), "too_few_runs", "4 points"),
        (lambda: fit_size_data_law(N * 0 + 1e6, D, L_ND.predict(1e6, D)), "one_size", "1 different N"),
        (lambda: fit_size_data_law(N, D * 0 + 1e9, L_ND.predict(N, 1e9)), "unidentified", "1 different D"),
        (lambda: fit_size_data_law(N, 20 * N, L_ND.predict(N, 20 * N)), "unidentified", "D is a power of N"),
        (lambda: fit_size_data_law(N, D, L_N.predict(N)), "unidentified", "D"),
        (lambda: fit_size_data_law(N, D, L_D.predict(D)), "unidentified", "term of N vanishes"),
        (lambda: fit_size_data_law(N, D, L_ND.predict(N, D * 1e6)), "unidentified", "term of D vanishes|D_c is not finite"),
        (
            lambda: fit_size_data_law(N, D, L_N.predict(N) * noise(0.01)),
            "unidentified",
            "N alone fits as well|term of D vanishes",
        ),
        (lambda: fit_size_data_law(N, D, 3 + 0 * N), "unidentified", "next to zero|vanishes|fits as well"),
        (lambda: fit_size_steps_law(N[:4], S[:4], L_NS.predict(N, S)[:4]), "too_few_runs", "4 points"),
        (lambda: fit_size_steps_law(N, S * 0 + 1e4, L_NS.predict(N, 1e4)), "unidentified", "1 different S_min"),
        (lambda: fit_size_steps_law(N, S, L_N.predict(N)), "unidentified", "term of S_min vanishes"),
        (lambda: fit_size_steps_law(N, S, L_NS.predict(N, S * 1e6)), "unidentified", "term of S_min vanishes"),
        (lambda: fit_size_steps_law(N, S, L_N.predict(N) * noise(0.01)), "unidentified", "N alone fits as well"),
        (lambda: fit_size_steps_law(N, S, 2 + (2e3 / S) ** 0.76), "unidentified", "alpha_N = |N_c is not finite"),
        (lambda: fit_size_steps_law(N, S, L_NS.predict(1e15 / N, S)), "unidentified", "alpha_N = -0.07"),
        (lambda: fit_critical_batch([1e5, 0], [10, 5], [3, 3]), "bad_input", r"batch_tokens\[1\] is 0"),
        (lambda: fit_critical_batch([], [], []), "too_few_levels", "0 of 0"),
    ],
)
def test_what_is_no_law_is_refused(fit: Refused, status: str, match: str) -> None:
    with pytest.raises(LawError, match=match) as caught:
        fit()
    assert caught.value.status == status


def test_a_slope_in_the_noise_is_weak_and_has_no_interval() -> None:
    found = set()
    for seed in range(30):
        try:
            fit = fit_scale_law(SIZES, 3 * SIZES**-0.004 * noise(0.03, SIZES.shape, seed))
        except LawError:
            continue
        found.add(fit.status)
        if fit.status == "weak":
            assert fit.identified is not None
            assert fit.identified < 0.9
            assert fit.constants["exponent"].low is None
            assert "% of resamples identify it" in fit.summary()
    assert "weak" in found


def test_resamples_whose_loss_rises_do_not_identify_a_law() -> None:
    X = np.geomspace(1, 10, 8)
    loss = 1.2 * X**-0.05 * noise(0.1, X.shape, seed=3)
    counts = resample_counts(len(X), 200, seed=0)
    slopes = [np.polyfit(np.log(X), np.log(loss), 1, w=np.sqrt(count))[0] for count in counts]
    fit = fit_scale_law(X, loss)
    assert fit.identified == np.mean(np.array(slopes) < 0)
    assert fit.identified is not None
    assert 0.5 < fit.identified < 0.9
    with pytest.raises(LawError, match="only 40% of resamples identify") as caught:
        LawFit.from_resamples(L_N, np.ones((10, 2)), np.arange(10) < 4, log_residuals=np.zeros(3), level=0.8)
    assert caught.value.status == "unidentified"


def test_a_term_is_told_from_chance_by_an_f_test() -> None:
    from scipy.stats import f

    loss = L_NS.predict(N, S * 50) * noise(0.02, seed=1)
    residual = np.log(loss) - np.polyval(np.polyfit(np.log(N), np.log(loss), 1), np.log(N))
    problem = TwoTerms(x=np.log(N) - np.log(N).mean(), y=np.log(S) - np.log(S).mean(), log_loss=np.log(loss), coupled=False)
    best = np.sum((problem.predict(problem.solve()[0][None])[0] - np.log(loss)) ** 2)
    p = f.sf((np.sum(residual**2) - best) / 2 / (best / (len(N) - 4)), 2, len(N) - 4)
    with pytest.raises(LawError, match="of N alone fits as well") as caught:
        fit_size_steps_law(N, S, loss)
    assert f"(p = {p:.2g})" in str(caught.value)


def test_a_term_that_is_not_there_is_never_fitted_to_noise() -> None:
    for seed in range(20):
        with pytest.raises(LawError):
            fit_size_steps_law(N, S, L_N.predict(N) * noise(0.02, seed=seed), intervals=Intervals(20))


def test_importing_the_laws_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, sweep.fit.kaplan.critical_batch, sweep.fit.kaplan.fits; print({'torch', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_scale_law_takes_the_unit_it_is_given() -> None:
    C = np.geomspace(1e-3, 1e3, 7)
    fit = fit_scale_law(C * PF_DAY, L_C.predict(C), intervals=NO_INTERVALS)
    assert fit.law == ScaleLaw(scale=pytest.approx(3.1e8 * PF_DAY, rel=1e-6), exponent=pytest.approx(0.05, rel=1e-9))  # type: ignore[arg-type]
