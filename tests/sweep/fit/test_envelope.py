"""Approach 1: planted curves, what it leaves out and refuses, its intervals, and smoothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sweep.fit import NO_INTERVALS, Curve, EnvelopeFit, Estimate, Intervals, LawError, allocate, fit_envelope, smooth_curve
from sweep.fit.judge.simulate import Noise, Simulator
from sweep.fit.surface import BESIROGLU, CHINCHILLA, Surface

TOLERANCE = 0.01  # of a, without noise
STEEP, SHALLOW = Surface(E=1.8, A=120, B=5000, alpha=0.25, beta=0.42), Surface(E=1.8, A=2500, B=250, alpha=0.45, beta=0.26)


def simulated(N: np.ndarray, D: np.ndarray, surface: Surface, noise: Noise, seed: int) -> list[Curve]:
    simulator = Simulator(surface=surface, noise=noise, seed=seed)
    return simulator.curves(simulator.runs(N, D))


def plateau(surface: Surface = BESIROGLU, noise: Noise = Noise(), seed: int = 0) -> list[Curve]:
    """Fourteen sizes, all on the same tokens: the largest is best over half of C."""
    return simulated(np.geomspace(5e7, 2e9, 14), np.full(14, 3.5e11), surface, noise, seed)


def few_sizes(surface: Surface = BESIROGLU, noise: Noise = Noise(), seed: int = 0) -> list[Curve]:
    return simulated(np.geomspace(1e8, 3e9, 6), np.full(6, 3e11), surface, noise, seed)


def ladder(surface: Surface = BESIROGLU, noise: Noise = Noise(), seed: int = 0) -> list[Curve]:
    """One long schedule of each size."""
    N = np.geomspace(5e7, 5e9, 12)
    return simulated(N, 100 * N, surface, noise, seed)


def ragged(surface: Surface = BESIROGLU, noise: Noise = Noise(), seed: int = 0) -> list[Curve]:
    """Sizes that end anywhere between 18 and 200 tokens per parameter."""
    N = np.geomspace(5e7, 5e9, 12)
    return simulated(N, 60 * N * np.exp(np.random.default_rng(seed).uniform(-1.2, 1.2, 12)), surface, noise, seed)


def horizons(surface: Surface = BESIROGLU, noise: Noise = Noise(), seed: int = 0) -> list[Curve]:
    """The paper's design: four horizons of each size, which span a factor of 16."""
    N = np.repeat(np.geomspace(7e7, 7e9, 12), 4)
    return simulated(N, 20 * N * np.tile(np.geomspace(0.25, 4, 4), 12), surface, noise, seed)


def isoflop(surface: Surface = BESIROGLU, noise: Noise = Noise(), seed: int = 0) -> list[Curve]:
    simulator = Simulator(surface=surface, noise=noise, seed=seed)
    return simulator.curves(simulator.isoflop(np.geomspace(1e18, 1e20, 6).tolist(), sizes=7))


def long_curves(skip: Sequence[int] = ()) -> list[Curve]:
    """25 sizes, each far beyond its optimum, of a surface with a = 0.5."""
    return [
        Curve(run_id=f"{N:.0f}", N=N, flops_per_token=6 * N, tokens=tokens, loss=1.7 + 400 / N**0.3 + 400 / tokens**0.3)
        for i, N in enumerate(np.geomspace(1e6, 1e9, 25))
        if i not in skip
        for tokens in [np.geomspace(N / 10, 2000 * N, 400)]
    ]


def test_a_plateau_is_left_out_and_told() -> None:
    curves = plateau()
    fit = fit_envelope(curves, intervals=NO_INTERVALS)
    assert isinstance(fit, EnvelopeFit)
    assert fit.a.value == pytest.approx(BESIROGLU.a, abs=TOLERANCE)
    N = np.array([curve.N for curve in curves])
    # C at which the largest size is best, to the end of the longest run: a third of all, in logs.
    assert fit.largest == pytest.approx(BESIROGLU.budget_for_size(N[-1]), rel=0.2)
    assert fit.largest < 0.15 * max(curve.tokens[-1] * curve.flops_per_token for curve in curves)
    assert fit.slices.decades == pytest.approx(np.log10(fit.flops[-1] / fit.flops[0]), abs=0.05)
    assert fit.slices.decades < 0.8 * fit.slices.of_decades
    told = fit.to_dict()
    assert (told["decades"], told["of_decades"], told["loss"]) == (fit.slices.decades, fit.slices.of_decades, "train")
    assert f"{fit.slices.decades:.1f} of {fit.slices.of_decades:.1f} decades" in fit.remarks()[0]
    assert "training loss" in fit.remarks()[0]
    every = np.array([np.interp(fit.flops, c.tokens * 6 * c.N, c.loss, left=np.inf, right=np.inf) for c in curves])
    np.testing.assert_allclose(fit.loss, every.min(axis=0), rtol=3e-3)


@pytest.mark.parametrize("surface", [BESIROGLU, CHINCHILLA, STEEP, SHALLOW])
@pytest.mark.parametrize("design", [plateau, few_sizes, ladder, ragged, horizons, isoflop])
def test_every_design_finds_the_planted_law(design: Callable[..., list[Curve]], surface: Surface) -> None:
    fit = fit_envelope(design(surface), intervals=NO_INTERVALS)
    assert fit.a.value == pytest.approx(surface.a, abs=TOLERANCE)
    assert fit.b.value == pytest.approx(surface.b, abs=TOLERANCE)
    middle = np.exp(fit.slices.x[len(fit.slices.x) // 2])
    assert fit.optimal(middle)[0] == pytest.approx(surface.optimal(middle)[0], rel=0.06)
    assert fit.optimal_loss(middle) == pytest.approx(surface.frontier_loss(middle), rel=1e-3)


@pytest.mark.parametrize("undecayed", [0.1, 0.3])
@pytest.mark.parametrize("design", [ragged, horizons, isoflop])
def test_a_cosine_of_its_own_does_not_bias_a_run(design: Callable[..., list[Curve]], undecayed: float) -> None:
    fit = fit_envelope(design(noise=Noise(undecayed=undecayed), seed=1), intervals=NO_INTERVALS)
    assert fit.a.value == pytest.approx(BESIROGLU.a, abs=TOLERANCE)
    assert fit.slices.lift == pytest.approx(undecayed, rel=0.05)
    middle = np.exp(fit.slices.x[len(fit.slices.x) // 2])
    assert fit.optimal_loss(middle) == pytest.approx(BESIROGLU.frontier_loss(middle), rel=2e-3)


@pytest.mark.parametrize("design", [plateau, few_sizes, ladder])
def test_losses_in_mid_schedule_without_other_horizons_are_refused(design: Callable[..., list[Curve]]) -> None:
    for noise in (Noise(undecayed=0.1), Noise(undecayed=0.3, run=0.003, step=0.003, memory=0.9)):
        with pytest.raises(LawError, match="several horizons") as refused:
            fit_envelope(design(noise=noise))
        assert refused.value.status == "undecayed"


def test_too_little_to_fit_is_refused_with_a_remedy() -> None:
    with pytest.raises(LawError, match="no training curves"):
        fit_envelope([])
    with pytest.raises(LawError, match="sizes with curves: 3; Approach 1 needs 4 or more: add sizes"):
        fit_envelope(long_curves()[:3])
    alone = {"large": plateau()[:6], "small": few_sizes()[3:]}  # either side of the optimum at nearly all C
    for name, side in (("large", "larger than 2.07e+08"), ("small", "")):
        with pytest.raises(LawError) as refused:
            fit_envelope([replace(c, tokens=c.tokens[70:], loss=c.loss[70:]) for c in alone[name]])
        assert refused.value.status == "too_few_sizes"
        assert side in str(refused.value)
    close = Surface(E=0.5, A=60, B=20, alpha=0.25, beta=0.25)  # asks for larger sizes than there are
    with pytest.raises(LawError, match=r"best at \d+% of C, the largest at \d+%: add sizes larger than 2e\+09"):
        fit_envelope(plateau(close))


def test_neither_the_order_nor_the_names_of_the_curves_matter() -> None:
    curves = horizons(noise=Noise(run=0.005, step=0.005))
    curves += [replace(curve, run_id=f"twin of {curve.run_id}") for curve in curves[:3]]  # ties
    fit = fit_envelope(curves, intervals=Intervals(30))
    shuffled = [curves[i] for i in np.random.default_rng(0).permutation(len(curves))]
    renamed = [replace(curve, run_id=str(i)) for i, curve in enumerate(reversed(curves))]
    for others in (curves[::-1], shuffled, renamed):
        again = fit_envelope(others, intervals=Intervals(30))
        assert again.to_dict() == fit.to_dict()
        assert (again.replicates["N"].exponent == fit.replicates["N"].exponent).all()


def test_a_lone_size_that_runs_on_does_not_bend_the_law() -> None:
    curves = long_curves()
    small = curves[5]
    tokens = np.geomspace(small.tokens[0], 1e4 * small.tokens[-1], 2000)
    longer = replace(small, run_id="longer", tokens=tokens, loss=1.7 + 400 / small.N**0.3 + 400 / tokens**0.3)
    assert fit_envelope(curves, intervals=NO_INTERVALS).a.value == pytest.approx(0.5, abs=TOLERANCE)
    assert fit_envelope([*curves, longer], intervals=NO_INTERVALS).a.value == pytest.approx(0.5, abs=TOLERANCE)


def test_sizes_at_unequal_distances_do_not_bend_the_law() -> None:
    fit = fit_envelope(long_curves(skip=[3, 4, 5, 9, 12, 13, 20]), intervals=NO_INTERVALS)
    assert fit.a.value == pytest.approx(0.5, abs=TOLERANCE)


@pytest.mark.parametrize("design", [plateau, ladder, isoflop])
def test_a_run_that_diverged_does_not_count(design: Callable[..., list[Curve]]) -> None:
    curves = design(noise=Noise(run=0.001))
    bad = [replace(curve, loss=curve.loss + 0.4 * (i == 6)) for i, curve in enumerate(curves)]
    clean, found = (fit_envelope(each, intervals=NO_INTERVALS).a.value for each in (curves, bad))
    assert found == pytest.approx(clean, abs=0.015)


@pytest.mark.parametrize(
    ("design", "noise"),
    [
        (isoflop, Noise(run=0.01, step=0.003, memory=0.9)),
        (horizons, Noise(run=0.003, step=0.003, memory=0.9, undecayed=0.2)),
        (plateau, Noise(run=0.003, step=0.003, memory=0.9)),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(design: Callable[..., list[Curve]], noise: Noise) -> None:
    """`scripts/coverage.py` counts over hundreds of sweeps."""
    held = {"a": 0, "b": 0, "loss": 0}
    tried = 20
    for seed in range(tried):
        fit = fit_envelope(design(noise=noise, seed=seed), intervals=Intervals(80))
        row = allocate(fit, [float(np.sqrt(fit.flops[0] * fit.flops[-1]))])[0]
        assert row.loss is not None
        truths = {"a": (fit.a, BESIROGLU.a), "b": (fit.b, BESIROGLU.b), "loss": (row.loss, BESIROGLU.frontier_loss(row.C))}
        for name, (estimate, truth) in truths.items():
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.low < estimate.value < estimate.high
            held[name] += estimate.low <= truth <= estimate.high
    assert all(tried * 0.55 <= count for count in held.values()), held
    assert sum(held.values()) < 3 * tried, held


def test_optima_off_one_law_widen_the_interval() -> None:
    shifts = np.repeat([0.2, -0.3, 0.1, -0.1, 0.3, -0.2], 7)  # of log N_opt, from one budget to the next
    curves = isoflop(noise=Noise(run=0.0003))
    moved = [
        replace(curve, N=curve.N * np.exp(shift), flops_per_token=6 * curve.N * np.exp(shift))
        for curve, shift in zip(curves, shifts, strict=True)
    ]
    straight, bumpy = (fit_envelope(each, intervals=Intervals(60)) for each in (curves, moved))
    for fit in (straight, bumpy):
        assert fit.a.low is not None
        assert fit.a.high is not None
    assert bumpy.a.high - bumpy.a.low > 10 * (straight.a.high - straight.a.low)  # type: ignore[operator]
    wavy = []
    for curve in plateau():
        log_C = np.log(curve.tokens * curve.flops_per_token / 1e19)
        best = np.log(5e8) + 0.5 * log_C + 0.3 * np.sin(2 * log_C)
        wavy.append(replace(curve, loss=2 + np.exp(-0.05 * log_C) + 0.02 * (np.log(curve.N) - best) ** 2))
    fit = fit_envelope(wavy, intervals=Intervals(60))
    assert fit.slices.misfit > 5
    assert fit.to_dict()["misfit"] == fit.slices.misfit
    assert f"{fit.slices.misfit:.2g} times as far off one law" in fit.remarks()[-1]


def test_the_loss_ends_where_the_curves_do() -> None:
    fit = fit_envelope(horizons(noise=Noise(run=0.003)), intervals=Intervals(40))
    assert fit.reach == fit.largest == pytest.approx(np.exp(fit.slices.x[-1]))
    inside, beyond = allocate(fit, [0.99 * fit.largest, 1.01 * fit.largest])
    assert inside.loss is not None
    assert beyond.loss is None
    assert fit.optimal_loss(1.0001 * fit.largest) == pytest.approx(fit.optimal_loss(fit.largest), rel=1e-4)
    assert fit.predict(*fit.optimal(1e20)) == pytest.approx(fit.optimal_loss(1e20))


def test_the_papers_points_and_the_hull_stand_beside_a() -> None:
    fit = fit_envelope(plateau(), intervals=Intervals(20))
    for name, label in (("a_points", "as in the paper"), ("a_hull", "convex hull")):
        estimate = getattr(fit, name)
        assert estimate.value == pytest.approx(BESIROGLU.a, abs=0.03)
        assert estimate.low is None
        assert fit.to_dict()[name]["value"] == estimate.value
        assert f"{label}: {estimate.value:.4g}" in fit.summary()
        assert name in fit.variants.values()
    lucky = [replace(curve, loss=curve.loss * (0.99 if i == 5 else 1)) for i, curve in enumerate(plateau())]
    robust = fit_envelope(lucky, intervals=NO_INTERVALS)
    assert robust.a_points is not None
    assert abs(robust.a.value - BESIROGLU.a) < abs(robust.a_points.value - BESIROGLU.a)


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


@pytest.mark.parametrize("method", ["between_sizes", "interpolated", "bins", "hull"])
def test_every_way_to_draw_the_envelope_finds_the_same_law(method: str) -> None:
    simulator = Simulator(surface=CHINCHILLA)
    curves = simulator.curves(simulator.isoflop(np.geomspace(1e18, 1e21, 9).tolist(), sizes=9, span=16))
    fit = fit_envelope(curves, method=method, intervals=Intervals(40))
    assert fit.a.value == pytest.approx(CHINCHILLA.a, abs=0.01)
    assert fit.a.value + fit.b.value == pytest.approx(1, abs=1e-9)
    N, D = fit.optimal(1e20)
    assert 6 * N * D == pytest.approx(1e20, rel=1e-6)
    assert N == pytest.approx(CHINCHILLA.optimal(1e20)[0], rel=0.1)
    assert fit.predict(N, D) == pytest.approx(CHINCHILLA.frontier_loss(1e20), rel=0.001)
    assert (fit.a.low is None) == (method != "between_sizes")  # resampling a few winners says nothing
    assert fit.to_dict()["method"] == method
    for estimate, of in ((fit.a_points, "interpolated"), (fit.a_hull, "hull")):
        assert isinstance(estimate, Estimate)
        if method == of:
            assert estimate.value == fit.a.value


def test_the_papers_points_are_the_lowest_curves_where_others_compete() -> None:
    curves = long_curves()
    fit = fit_envelope(curves, method="interpolated", intervals=NO_INTERVALS)
    assert 1000 < len(fit.flops) <= 1500
    every = np.array([np.interp(fit.flops, c.tokens * 6 * c.N, c.loss, left=np.inf, right=np.inf) for c in curves])
    np.testing.assert_allclose(fit.loss, every.min(axis=0), rtol=1e-3)
    running = np.isfinite(every)
    N = np.array([curve.N for curve in curves])
    for best, there in zip(fit.N, running.T, strict=True):
        assert N[there].min() < 0.999 * best
        assert N[there].max() > 1.001 * best


def test_a_hull_is_convex_and_below_every_point() -> None:
    curves = long_curves()
    fit = fit_envelope(curves, method="hull", intervals=NO_INTERVALS)
    x, y = np.log(fit.flops), np.log(fit.loss)
    assert (np.diff(np.diff(y) / np.diff(x)) > 0).all()
    for curve in curves:
        C = curve.tokens * curve.flops_per_token
        inside = (fit.flops[0] <= C) & (fit.flops[-1] >= C)
        assert (np.log(curve.loss[inside]) >= np.interp(np.log(C[inside]), x, y) - 1e-12).all()


def test_a_bend_is_seen_where_there_is_one() -> None:
    noise = Noise(run=0.002, step=0.002)
    straight = [fit_envelope(isoflop(noise=noise, seed=seed), intervals=Intervals(60)).curvature for seed in range(6)]
    assert sum(bool(curvature.bends) for curvature in straight) <= 3  # 80 % intervals: one in five by chance
    bent = []
    for curve in isoflop():
        log_C = np.log(curve.tokens * curve.flops_per_token / 1e19)
        best = BESIROGLU.optimal(1e19)[0] * np.exp(BESIROGLU.a * log_C - 0.03 * log_C**2)
        loss = 2 + np.exp(-0.05 * log_C) + 0.02 * np.log(curve.N / best) ** 2
        bent.append(replace(curve, loss=loss))
    curvature = fit_envelope(bent, intervals=Intervals(60)).curvature
    assert curvature.bends is True
    assert curvature.second.value == pytest.approx(-0.06, abs=0.01)
    assert curvature.thirds[0].value > curvature.thirds[1].value > curvature.thirds[2].value


def test_curves_come_as_a_pandas_table_and_raw() -> None:
    curves = long_curves()
    rng = np.random.default_rng(0)
    frame = pd.concat(
        [pd.DataFrame({"run_id": c.run_id, "N": c.N, "tokens": c.tokens, "loss": c.loss}) for c in curves], ignore_index=True
    )
    assert fit_envelope(frame, intervals=NO_INTERVALS).a.value == fit_envelope(curves, intervals=NO_INTERVALS).a.value
    noisy = frame.assign(loss=frame["loss"] * np.exp(0.02 * rng.standard_normal(len(frame))))
    raw, smooth, truth = (
        fit_envelope(table, smoothing=sigma, method="interpolated", intervals=NO_INTERVALS)
        for table, sigma in ((noisy, 0), (noisy, 10), (frame, 0))
    )
    C = np.geomspace(10 * truth.flops[0], truth.flops[-1] / 10, 200)
    errors = [
        np.abs(np.interp(C, fit.flops, fit.loss) / np.interp(C, truth.flops, truth.loss) - 1).max() for fit in (raw, smooth)
    ]
    assert errors[1] < 0.6 * errors[0]
    with pytest.raises(LawError, match="no column 'N'"):
        fit_envelope(frame.drop(columns="N"))
    with pytest.raises(LawError, match="none of between_sizes, interpolated"):
        fit_envelope(curves, method="guess")
