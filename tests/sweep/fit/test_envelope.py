"""Approach 1: the envelope of planted curves, and smoothing."""

import numpy as np
import pandas as pd
import pytest

from sweep.fit import NO_INTERVALS, Curve, EnvelopeFit, Intervals, LawError, fit_envelope, smooth_curve
from sweep.fit.judge.simulate import Noise, Simulator
from sweep.fit.surface import Surface

SURFACE = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def simulated_curves(noise: float = 0.0, seed: int = 0) -> list[Curve]:
    """The curves of an IsoFLOP grid: nine budgets, nine sizes around the optimum of each."""
    simulator = Simulator(surface=SURFACE, noise=Noise(run=noise, step=noise), seed=seed)
    return simulator.curves(simulator.isoflop(np.geomspace(1e18, 1e21, 9).tolist(), sizes=9, span=16))


def planted_curves() -> list[Curve]:
    """Curves L = E + A/N^alpha + B/D^beta with alpha = beta, whose envelope follows N ∝ C^0.5."""
    curves = []
    for N in np.geomspace(1e6, 1e9, 25):
        tokens = np.geomspace(N / 10, 2000 * N, 400)
        loss = 1.7 + 400 / N**0.3 + 400 / tokens**0.3
        curves.append(Curve(run_id=f"{N:.0f}", N=N, flops_per_token=6 * N, tokens=tokens, loss=loss))
    return curves


def test_the_envelope_of_planted_curves_follows_their_law() -> None:
    fit = fit_envelope(planted_curves(), intervals=Intervals(50))
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
    fit = fit_envelope(planted_curves(), intervals=NO_INTERVALS)
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
    assert fit_envelope([*curves, longer], intervals=NO_INTERVALS).a.value == pytest.approx(
        fit_envelope(curves, intervals=NO_INTERVALS).a.value
    )


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


@pytest.mark.parametrize("method", ["interpolated", "bins", "hull"])
def test_every_way_to_draw_the_envelope_finds_the_same_law(method: str) -> None:
    fit = fit_envelope(simulated_curves(), method=method, intervals=Intervals(40))
    assert fit.a.value == pytest.approx(SURFACE.a, abs=0.02)
    assert fit.a.value + fit.b.value == pytest.approx(1, abs=1e-6)
    N, D = fit.optimal(1e20)
    assert 6 * N * D == pytest.approx(1e20, rel=1e-6)
    assert N == pytest.approx(SURFACE.optimal(1e20)[0], rel=0.15)
    assert fit.predict(N, D) == pytest.approx(SURFACE.frontier_loss(1e20), rel=0.01)
    assert (fit.a.low is None) == (method == "hull")  # few and extreme points: resampling them says nothing
    assert fit.to_dict()["method"] == method


def test_a_hull_is_convex_and_below_every_point() -> None:
    curves = planted_curves()
    fit = fit_envelope(curves, method="hull", intervals=NO_INTERVALS)
    x, y = np.log(fit.flops), np.log(fit.loss)
    assert (np.diff(np.diff(y) / np.diff(x)) > 0).all()
    for curve in curves:
        C = curve.tokens * curve.flops_per_token
        inside = (fit.flops[0] <= C) & (fit.flops[-1] >= C)
        assert fit.flops[0] > 1.0001 * min(c.tokens[-1] * c.flops_per_token for c in curves)  # the range's end is no vertex
        assert (np.log(curve.loss[inside]) >= np.interp(np.log(C[inside]), x, y) - 1e-12).all()


def test_a_bend_is_seen_where_there_is_one() -> None:
    straight = [fit_envelope(simulated_curves(noise=0.002, seed=seed), intervals=Intervals(60)).curvature for seed in range(6)]
    assert sum(bool(curvature.bends) for curvature in straight) <= 3  # 80 % intervals: one in five by chance
    bent = []
    for curve in simulated_curves():
        log_C = np.log(curve.tokens * curve.flops_per_token / 3e19)
        best = SURFACE.optimal(3e19)[0] * np.exp(SURFACE.a * log_C - 0.03 * log_C**2)
        loss = 2 + np.exp(-0.05 * log_C) + 0.02 * np.log(curve.N / best) ** 2
        bent.append(Curve(**{**vars(curve), "loss": loss}))
    curvature = fit_envelope(bent, intervals=Intervals(60)).curvature
    assert curvature.bends is True
    assert curvature.second.value == pytest.approx(-0.06, abs=0.02)
    assert curvature.thirds[0].value > curvature.thirds[1].value > curvature.thirds[2].value


def test_curves_come_as_a_pandas_table_and_raw() -> None:
    curves = planted_curves()
    rng = np.random.default_rng(0)
    frame = pd.concat(
        [pd.DataFrame({"run_id": c.run_id, "N": c.N, "tokens": c.tokens, "loss": c.loss}) for c in curves], ignore_index=True
    )
    assert fit_envelope(frame, intervals=NO_INTERVALS).a.value == fit_envelope(curves, intervals=NO_INTERVALS).a.value
    noisy = frame.assign(loss=frame["loss"] * np.exp(0.02 * rng.standard_normal(len(frame))))
    raw, smooth = (fit_envelope(noisy, smoothing=sigma, intervals=NO_INTERVALS) for sigma in (0, 10))
    truth = fit_envelope(frame, intervals=NO_INTERVALS)
    assert np.abs(smooth.loss / truth.loss - 1).max() < 0.6 * np.abs(raw.loss / truth.loss - 1).max()
    with pytest.raises(LawError, match="no column 'N'"):
        fit_envelope(frame.drop(columns="N"))
    with pytest.raises(LawError, match="none of interpolated"):
        fit_envelope(curves, method="guess")
