"""Held-out budgets, what to run next, other choices and other conventions, on sweeps whose law is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from sweep.fit import (
    NO_INTERVALS,
    Compute,
    Intervals,
    LawError,
    Noise,
    Options,
    Questions,
    RunTable,
    Simulator,
    Surface,
    compare_conventions,
    fit_all,
    fit_parametric,
    hold_out,
    next_runs,
    rolling_hold_out,
    sensitivity,
    tables_by_convention,
)
from sweep.fit.design import expected_sd
from sweep.fit.judge.conventions import FIXED, MATCHED, by_protocol
from sweep.fit.kaplan.table import fit_kaplan, unbeaten
from sweep.fit.surface import CHINCHILLA
from sweep.tables.conventions import KAPLAN_COUNTING

BUDGETS = np.geomspace(1e18, 1e20, 5).tolist()


def simulated(noise: float = 0.003, seed: int = 0) -> RunTable:
    return Simulator(surface=CHINCHILLA, noise=Noise(run=noise), seed=seed).isoflop(BUDGETS, sizes=9)


def test_larger_budgets_are_predicted_within_their_intervals() -> None:
    inside, bias = [], []
    for seed in range(12):
        held = hold_out(simulated(seed=seed), last=2, intervals=Intervals(seed=seed))
        assert held.fitted == 27
        assert len(held.predictions) == 18
        assert held.factor == pytest.approx(10)
        assert held.error < 0.03
        assert held.covered is not None
        inside.append(held.covered)
        bias.append(held.bias)
    assert 0.68 < np.mean(inside) < 0.92
    assert np.mean(bias) == pytest.approx(0, abs=0.005)


def test_a_law_that_breaks_is_seen_to_break() -> None:
    runs = simulated()
    worse = np.where(runs.C > 5e19, 1.05, 1.0)
    held = hold_out(replace(runs, loss=runs.loss * worse))
    assert held.bias < -0.08
    assert held.covered == 0
    assert "0% inside" in held.summary()


def test_no_held_out_loss_is_seen_by_the_fit() -> None:
    runs = simulated()
    changed = np.where(runs.C > 5e19, 2 * runs.loss, runs.loss)
    one, other = hold_out(runs), hold_out(replace(runs, loss=changed))
    assert [p.predicted for p in one.predictions] == [p.predicted for p in other.predictions]


def test_rolling_predicts_every_budget_it_can_from_the_smaller_ones() -> None:
    rolled = rolling_hold_out(simulated(), intervals=Intervals(50)).each
    assert [held.above for held in rolled] == pytest.approx(BUDGETS[2:] if len(rolled) == 3 else BUDGETS[1:])
    assert all(len(held.predictions) == 9 for held in rolled)
    last = rolled[-1].optima[0]
    assert last.budget == pytest.approx(1e20)
    assert last.predicted.keys() == {"parametric", "isoflop"}
    assert last.predicted["parametric"] == pytest.approx(CHINCHILLA.optimal(1e20)[0], rel=0.3)
    without = hold_out(replace(simulated(), budget=np.full(45, np.nan)), intervals=NO_INTERVALS)
    assert without.optima == ()
    assert 0 < len(without.predictions) < 45
    assert without.covered is None
    with pytest.raises(LawError) as caught:
        hold_out(simulated(), last=5)
    assert caught.value.status == "too_few_budgets"


def test_next_runs_keep_to_the_allowance_and_are_new() -> None:
    runs = simulated()
    fit = fit_parametric(runs, intervals=Intervals(100))
    chosen = next_runs(fit, runs, flops=2e20, most=10)
    assert 0 < len(chosen.N) <= 10
    assert chosen.C.sum() <= 2e20
    assert (chosen.C >= 0.98 * runs.C.min()).all()
    assert chosen.sd_after < chosen.sd_before
    apart = np.abs(np.log(chosen.N[:, None] / runs.N)) + np.abs(np.log(chosen.D[:, None] / runs.D))
    assert apart.min() > 0.04
    parsed = yaml.safe_load(chosen.grid(earlier=[{"N": 1e6, "D": 2e7}]))
    assert parsed["runs"][0] == {"N": 1e6, "D": 2e7}
    np.testing.assert_allclose([run["N"] for run in parsed["runs"][1:]], chosen.N, rtol=1e-6)
    same_sizes = next_runs(fit, runs, flops=2e20, sizes=runs.N.tolist(), candidates=60)
    distance = np.abs(np.log(same_sizes.N[:, None] / runs.N)) + np.abs(np.log(same_sizes.D[:, None] / runs.D))
    assert distance.min() > 0.04
    ladder = next_runs(fit, runs, flops=2e20, sizes=[1e8, 3e8, 1e9], most_tokens=2e10)
    assert set(ladder.N) <= {1e8, 3e8, 1e9}
    assert ladder.D.max() <= 2e10
    loss = next_runs(fit, runs, flops=2e20, target="loss", target_C=1e22)
    assert loss.target == "the loss at 1e+22 FLOPs"
    for options, message in (
        ({"flops": 1.0}, "buys no run"),
        ({"flops": 1e20, "target": "b"}, "none of a, loss"),
        ({"flops": 1e20, "target": "loss"}, "target_C is the budget"),
        ({"flops": -1.0}, "must be positive"),
    ):
        with pytest.raises(LawError, match=message):
            next_runs(fit, runs, **options)


def test_chosen_runs_tell_more_than_a_uniform_grid_of_the_same_flops() -> None:
    """By the information on the true surface: 14 chosen runs against the next two budgets' grid of 14."""
    pilot = Simulator(surface=CHINCHILLA, noise=Noise(run=0.005)).isoflop([1e18, 3e18, 1e19], sizes=7)
    grid = Simulator(surface=CHINCHILLA).isoflop([3e19, 1e20], sizes=7)

    def sd(N: np.ndarray, D: np.ndarray) -> float:
        return expected_sd(CHINCHILLA, np.concatenate([pilot.N, N]), np.concatenate([pilot.D, D]), sd=0.005)

    fit = fit_parametric(pilot, intervals=Intervals(100))
    same, quarter = (next_runs(fit, pilot, flops=share * grid.C.sum(), most=14, reach=40) for share in (1, 0.25))
    assert sd(same.N, same.D) < 0.85 * sd(grid.N, grid.D)
    assert sd(quarter.N, quarter.D) < 1.1 * sd(grid.N, grid.D)


def test_the_information_predicts_how_a_scatters() -> None:
    runs = simulated()
    fits = [fit_parametric(simulated(seed=seed), objective="log_mse", intervals=NO_INTERVALS).a.value for seed in range(100)]
    assert np.std(fits) == pytest.approx(expected_sd(CHINCHILLA, runs.N, runs.D, sd=0.003), rel=0.2)


def test_sensitivity_is_one_table_of_every_choice() -> None:
    runs = simulated()
    variants = sensitivity(
        runs, conventions={"twice the tokens": replace(runs, D=2 * runs.D, C=2 * runs.C)}, intervals=Intervals(30)
    )
    groups = {variant.group for variant in variants}
    assert groups == {"approach", "loss function", "outliers", "sizes", "budgets", "convention"}
    by_label = {variant.label: variant for variant in variants}
    assert by_label["1, envelope"].a is None
    assert "no training curves" in str(by_label["1, envelope"].reason)
    for label in ("2, valleys", "3, parametric surface", "squared log residuals", "without the 5 highest losses"):
        a = by_label[label].a
        assert a is not None
        assert a.value == pytest.approx(CHINCHILLA.a, abs=0.06)
    assert by_label["without the 5 highest losses"].runs == 40
    assert by_label["without the smallest 4 of 45"].runs == 41
    assert by_label["without the largest"].runs == by_label["without the smallest"].runs == 36
    base, other = by_label["3, parametric surface"].a, by_label["twice the tokens"].a
    assert other is not None
    assert base is not None
    assert other.value == pytest.approx(base.value)  # B absorbs it


def kaplan_frame() -> pd.DataFrame:
    """A sweep whose law counts embeddings, in the range of Kaplan's sizes: N = N' + 47491 N'^(1/3) (Pearce and Song 2024)."""
    small = np.geomspace(1e3, 1.5e9, 40)
    total = small + 47491 * small ** (1 / 3)
    N = np.repeat(total, 5)
    D = N * np.tile(np.geomspace(2, 200, 5), 40)
    loss = CHINCHILLA.predict(N, D)
    without = np.repeat(small, 5)
    names = [f"run-{i}" for i in range(200)]
    return pd.DataFrame(
        {"run_id": names, "N": N, "N_non_embedding": without, "D": D, "C": 6 * N * D, "C_kaplan": 6 * without * D, "loss": loss}
    )


def test_counting_without_embeddings_turns_chinchillas_exponent_into_kaplans() -> None:
    frame = kaplan_frame()
    tables = tables_by_convention(frame)
    assert list(tables) == [KAPLAN_COUNTING, "N with embeddings, C = 6ND"]
    rows = {row.convention: row.a for row in compare_conventions(tables, intervals=NO_INTERVALS)}
    assert rows["N with embeddings, C = 6ND"].value == pytest.approx(CHINCHILLA.a, abs=1e-6)  # type: ignore[union-attr]
    assert 0.65 < rows[KAPLAN_COUNTING].value < 0.85  # type: ignore[union-attr]


def test_protocols_compare_losses_at_the_same_points() -> None:
    simulator = Simulator(surface=CHINCHILLA, noise=Noise(undecayed=0.2))
    N = np.repeat([1e7, 1e8, 1e9], 3)
    runs = simulator.runs(N, N * np.tile([5, 20, 80], 3))
    curves = simulator.curves(runs)
    both = by_protocol(runs, curves)
    assert both.keys() == {MATCHED, FIXED}
    np.testing.assert_allclose(both[MATCHED].loss, runs.loss, rtol=1e-9)
    higher = both[FIXED].loss - both[MATCHED].loss
    longest = np.tile([False, False, True], 3)
    np.testing.assert_allclose(higher[longest], 0, atol=1e-9)
    assert (higher[~longest] > 0.05).all()  # the long run's rate is not decayed there
    rows = compare_conventions({"as counted": runs}, curves, intervals=NO_INTERVALS)
    assert [row.protocol for row in rows] == ["as run", "as run", MATCHED, FIXED]
    assert by_protocol(runs.where(longest), curves) == {}


def test_kaplans_laws_from_a_table() -> None:
    """Every law by its name, or why it is not there; the scale laws go through the runs that nothing smaller beats."""
    frame = kaplan_frame()
    runs = tables_by_convention(frame)["N with embeddings, C = 6ND"]
    laws = fit_kaplan(runs, intervals=Intervals(20))
    assert set(laws) == {"L_N", "L_D", "L_C", "L_ND", "L_NS"}
    assert not laws["L_NS"].fitted
    best = unbeaten(runs.C, runs.loss)
    for i in np.flatnonzero(best):
        assert (runs.loss[runs.C < runs.C[i]] > runs.loss[i]).all()
    exact = np.array([4.0, 3.0, 3.5, 2.0]), np.array([1.0, 2.0, 3.0, 3.0])
    assert unbeaten(exact[1], exact[0]).tolist() == [True, True, False, True]
    assert unbeaten(np.array([1.0, 2.0]), np.array([3.0, 3.0])).tolist() == [True, False]  # more for the same is no gain


def test_all_laws_at_once_survive_what_cannot_be_fitted() -> None:
    runs = simulated()
    curves = Simulator(surface=CHINCHILLA, noise=Noise(run=0.003)).curves(runs)
    fits = fit_all(
        runs, curves, convention={"N": "total"}, questions=Questions(losses=[2.5]), options=Options(intervals=Intervals(20))
    )
    text = fits.summary()
    for part in ("Approach 1", "Approach 2", "Approach 3", "Compute-optimal", "held out", "other choices", "Kaplan's laws"):
        assert part in text
    few = fit_all(runs.where(np.arange(4)), (), convention={"N": "total"}, options=Options(intervals=Intervals(20)))
    assert not few.parametric.fitted
    assert not few.extrapolation.fitted
    assert few.fitted == {}
    assert few.answers.allocations == ()
    assert few.to_dict()["extrapolation"]["status"].startswith("too_few")
    assert "too_few_runs" in few.summary()


def test_compute_is_read_off_the_runs() -> None:
    runs = Simulator(surface=Surface(**{**vars(CHINCHILLA), "compute": Compute(kappa=9.0, eta=0.95)})).isoflop(BUDGETS)
    fit = fit_parametric(runs, intervals=NO_INTERVALS)
    assert vars(fit.surface.compute) == pytest.approx({"kappa": 9.0, "eta": 0.95})
    assert fit.a.value == pytest.approx(CHINCHILLA.beta / (CHINCHILLA.alpha + 0.95 * CHINCHILLA.beta), rel=1e-6)
    assert fit.counted(Compute()).a.value == pytest.approx(CHINCHILLA.a, rel=1e-6)
