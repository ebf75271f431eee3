"""The law of accuracy by loss."""

import numpy as np
import pytest

from sweep.errors import LawError
from sweep.fit.questions.accuracy import AccuracyLaw, _curve, fit_accuracy

LOSS = np.linspace(1.6, 3.4, 12)


@pytest.mark.parametrize("top", [0.6, 0.95])
@pytest.mark.parametrize("k", [1.5, 8.0])
def test_it_finds_the_law_that_made_the_accuracies(top: float, k: float) -> None:
    law = AccuracyLaw(chance=0.25, top=top, k=k, L_mid=2.3)
    found = fit_accuracy(LOSS, law.predict(LOSS), 0.25)
    assert (found.top, found.k, found.L_mid) == pytest.approx((top, k, 2.3), rel=2e-2)
    np.testing.assert_allclose(found.predict(LOSS), law.predict(LOSS), atol=2e-4)


def test_its_ends_are_chance_and_top() -> None:
    law = AccuracyLaw(chance=0.25, top=0.8, k=3.0, L_mid=2.0)
    assert law.predict([100.0, 2.0, -100.0]) == pytest.approx([0.25, 0.525, 0.8])


def test_the_derivatives() -> None:
    z, step = np.array([0.7, np.log(3.0), 2.2]), 1e-6
    for place in range(3):
        ahead, behind = (_curve(z + sign * step * (np.arange(3) == place), LOSS, 0.25)[0] for sign in (1, -1))
        np.testing.assert_allclose(_curve(z, LOSS, 0.25)[1][:, place], (ahead - behind) / (2 * step), atol=1e-7)


def test_runs_that_count_more_pull_more() -> None:
    law = AccuracyLaw(chance=0.25, top=0.8, k=3.0, L_mid=2.0)
    right = law.predict(LOSS)
    right[-1] += 0.3
    weight = np.ones(len(LOSS))
    weight[-1] = 0
    np.testing.assert_allclose(fit_accuracy(LOSS, right, 0.25, weight).predict(LOSS[:-1]), right[:-1], atol=2e-4)
    assert np.abs(fit_accuracy(LOSS, right, 0.25).predict(LOSS[:-1]) - right[:-1]).max() > 0.02


def test_a_top_at_its_bound_is_said_to_be_there() -> None:
    rising = fit_accuracy(LOSS, 0.3 + 0.2 * (LOSS.max() - LOSS), 0.25)
    assert ("its bound" in str(rising)) == (rising.top > 0.999)
    assert "its bound" in str(AccuracyLaw(chance=0.25, top=1.0, k=1.0, L_mid=2.0))


def test_too_few_losses() -> None:
    with pytest.raises(LawError, match="3 different losses; a law of accuracy needs at least 4"):
        fit_accuracy(np.array([2.0, 2.1, 2.2, 2.2]), np.array([0.5, 0.4, 0.3, 0.3]), 0.25)
