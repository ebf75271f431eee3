"""Approach 1: the envelope of planted curves, and smoothing."""

import numpy as np
import pytest

from sweep.fit import Curve, EnvelopeFit, LawError, fit_envelope, smooth_curve


def planted_curves(a: float = 0.5) -> list[Curve]:
    """Curves L = E + A/N^alpha + B/D^beta with alpha = beta, whose envelope follows N ∝ C^0.5."""
    curves = []
    for N in np.geomspace(1e6, 1e9, 25):
        tokens = np.geomspace(N / 10, 2000 * N, 400)
        loss = 1.7 + 400 / N**0.3 + 400 / tokens**0.3
        curves.append(Curve(run_id=f"{N:.0f}", N=N, flops_per_token=6 * N, tokens=tokens, loss=loss))
    return curves


def test_the_envelope_of_planted_curves_follows_their_law() -> None:
    fit = fit_envelope(planted_curves(), resamples=50)
    assert isinstance(fit, EnvelopeFit)
    assert len(fit.flops) == 1500
    assert np.diff(np.log(fit.flops)) == pytest.approx(np.log(fit.flops[1] / fit.flops[0]))
    inside = (fit.N > 2e6) & (fit.N < 5e8)  # at either end there is no larger or smaller model to win
    np.testing.assert_allclose(np.sqrt(fit.flops[inside] / 6), fit.N[inside], rtol=0.35)
    assert fit.D == pytest.approx(fit.flops / (6 * fit.N))
    every = np.array([np.interp(fit.flops, c.tokens * 6 * c.N, c.loss, left=np.inf, right=np.inf) for c in planted_curves()])
    np.testing.assert_allclose(fit.loss, every.min(axis=0), rtol=1e-3)
    slope = np.polyfit(np.log(fit.flops[inside]), np.log(fit.N[inside]), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.02)


def test_a_run_is_best_up_to_its_very_end() -> None:
    fit = fit_envelope(planted_curves(), resamples=0)
    assert np.isfinite(fit.loss).all()
    ends = sorted(c.tokens[-1] * c.flops_per_token for c in planted_curves())
    assert fit.flops[0] == pytest.approx(ends[0])
    assert fit.flops[-1] == pytest.approx(ends[-3])


def test_a_lone_size_that_runs_on_does_not_bend_the_law() -> None:
    curves = planted_curves()
    small = curves[5]
    tokens = np.geomspace(small.tokens[0], 1e4 * small.tokens[-1], 2000)
    longer = Curve(
        run_id="longer",
        N=small.N,
        flops_per_token=small.flops_per_token,
        tokens=tokens,
        loss=1.7 + 400 / small.N**0.3 + 400 / tokens**0.3,
    )
    assert fit_envelope([*curves, longer], resamples=0).a.value == pytest.approx(fit_envelope(curves, resamples=0).a.value)


def test_envelopes_without_three_sizes_are_refused() -> None:
    with pytest.raises(LawError, match="no training curves"):
        fit_envelope([])
    with pytest.raises(LawError, match="fewer than 3 sizes"):
        fit_envelope(planted_curves()[:2])


def test_smoothing_keeps_lines_and_weighs_like_a_gaussian() -> None:
    flat = np.full(50, 3.0)
    np.testing.assert_allclose(smooth_curve(flat, 10), flat)
    line = np.linspace(5, 2, 400)
    np.testing.assert_allclose(smooth_curve(line, 10)[50:-50], line[50:-50])
    impulse = np.zeros(201)
    impulse[100] = 1
    weights = np.exp(-0.5 * (np.arange(-100, 101) / 10) ** 2)
    np.testing.assert_allclose(smooth_curve(impulse, 10)[60:141], (weights / weights.sum())[60:141], atol=1e-5)
    assert (smooth_curve(impulse, 0) == impulse).all()
