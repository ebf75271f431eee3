"""Never a number that merely looks fine: what is refused, by which word, and what JSON and callers are spared."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep.fit import (
    NO_INTERVALS,
    Curve,
    Intervals,
    LawError,
    Noise,
    Options,
    Simulator,
    Surface,
    allocate,
    allocate_sizes,
    compare_conventions,
    fit_all,
    fit_envelope,
    fit_isoflop,
    fit_kaplan,
    fit_parametric,
    footprint,
    hold_out,
    lifetime_optimum,
    next_runs,
    read_curves,
    read_runs,
    size_penalty,
)

SURFACE = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
SIMULATOR = Simulator(surface=SURFACE, noise=Noise(run=0.005, step=0.002))
RUNS = SIMULATOR.isoflop(np.geomspace(1e18, 1e20, 5).tolist(), sizes=7)
CURVES = SIMULATOR.curves(RUNS)


def status(call: Callable[[], Any]) -> str:
    with pytest.raises(LawError) as caught:
        call()
    assert len(str(caught.value)) > 30  # says what is needed
    return caught.value.status


def changed(**columns: Any) -> list[Curve]:
    return [replace(curve, **{name: change(curve) for name, change in columns.items()}) for curve in CURVES]


@pytest.mark.parametrize(
    ("curves", "word"),
    [
        (changed(N=lambda c: c.N / 1e6), "wrong_unit"),
        (changed(tokens=lambda c: c.tokens / 1e9), "wrong_unit"),
        (changed(loss=lambda c: np.exp(c.loss)), "wrong_unit"),
        (changed(tokens=lambda c: c.tokens[::-1]), "bad_value"),
        (changed(loss=lambda c: np.where(c.loss == c.loss[5], np.nan, c.loss)), "bad_value"),
        (changed(loss=lambda c: c.loss[:-1]), "bad_value"),
        (changed(loss=lambda c: -c.loss), "bad_value"),
        (changed(tokens=lambda c: c.tokens[:0], loss=lambda c: c.loss[:0]), "bad_value"),
        ([*CURVES, CURVES[0]], "duplicates"),
        ([{"run_id": "a"}], "bad_value"),
        (pd.DataFrame({"run_id": ["a", "a"], "N": [1e8, 2e8], "tokens": [1e9, 2e9], "loss": [3.0, 2.9]}), "bad_value"),
    ],
)
def test_curves_that_are_none(curves: Any, word: str) -> None:
    assert status(lambda: fit_envelope(curves)) == word


def test_budgets_too_close_for_a_law() -> None:
    parts = [replace(SIMULATOR, seed=k).isoflop([1e18 * (1 + 0.01 * k)], sizes=7) for k in range(3)]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("N", "D", "loss", "budget")]
    assert status(lambda: fit_isoflop(*columns)) == "too_few_profiles"


def test_one_budget_in_rounded_numbers() -> None:
    """N to two digits, D to one, as tables print them."""
    for seed in range(5):
        runs = replace(SIMULATOR, seed=seed).isoflop([1e19], sizes=9, span=8)
        N, D = (np.array([float(f"{value:.{digits}g}") for value in column]) for column, digits in ((runs.N, 2), (runs.D, 1)))
        with pytest.raises(LawError):
            fit_parametric(N, D, runs.loss)


def test_losses_that_do_not_move() -> None:
    for level in (1.0, 2.0, 3.0):
        assert status(partial(fit_parametric, RUNS.N, RUNS.D, np.full(len(RUNS), level))) == "unidentified"
    alone = np.zeros(len(RUNS))
    alone[0] = 1
    assert status(lambda: fit_parametric(RUNS, weights=alone)) == "too_few_runs"


def test_a_cost_that_no_training_has() -> None:
    for C in (3e8 * RUNS.D, RUNS.D / RUNS.N * 1e17):
        assert status(partial(fit_parametric, replace(RUNS, C=C))) in ("mixed_counting", "wrong_unit")


@pytest.mark.parametrize(
    "options",
    [
        {"delta": np.inf},
        {"delta": "wide"},
        {"weights": "heavy"},
        {"fixed_E": "low"},
        {"fixed_E": -1.0},
        {"clusters": ["one"] * 35},
        {"clusters": [float("nan")] * 35},
        {"clusters": ["a", "b"] * 17 + ["a"]},
        {"objective": "hope"},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    status(lambda: fit_parametric(RUNS, **options))


@pytest.mark.parametrize(
    "options",
    [{"resamples": -1}, {"resamples": 2.5}, {"level": 1.5}, {"level": -1}, {"level": 0}, {"level": "high"}, {"seed": -1}],
)
def test_intervals_out_of_range(options: dict[str, Any]) -> None:
    assert status(lambda: Intervals(**options)) == "bad_option"


def test_questions_out_of_range() -> None:
    fit, laws = fit_parametric(RUNS, intervals=Intervals(20)), fit_isoflop(RUNS, intervals=Intervals(20))
    for call in (
        lambda: fit.predict(-1e9, 1e10),
        lambda: fit.predict(1e9, 0),
        lambda: fit.optimal([1e18, -1]),
        lambda: laws.predict(0, 1e10),
        lambda: allocate(fit, [0]),
        lambda: allocate_sizes(SURFACE, [-1]),
        lambda: size_penalty(fit, 1e20, 0),
        lambda: footprint(1e20, flops_per_second=0, watts=300),
        lambda: footprint(1e20, flops_per_second=1e14, watts=-1),
        lambda: lifetime_optimum(SURFACE, 2.2, -1e12),
        lambda: lifetime_optimum(SURFACE, 2.2, float("nan")),
        lambda: hold_out(RUNS, last=1.5),  # type: ignore[arg-type]
        lambda: fit_isoflop(RUNS, seed_noise=np.inf),
        lambda: next_runs(fit, RUNS, flops=1e20, most=0),
        lambda: next_runs(fit, RUNS, flops=1e20, target="loss", target_C=-1),
    ):
        status(call)
    assert fit.predict([1e9], [1e10]).shape == (1,)
    assert allocate(fit, [10**20])[0].C == 1e20  # a whole number beyond 64 bits


def test_every_result_is_json_and_a_copy() -> None:
    fits = fit_all(RUNS, CURVES, options=Options(intervals=Intervals(20)))
    text = json.dumps(fits.to_dict(), allow_nan=False)
    assert json.loads(text)["parametric"]["status"] == "converged"
    for method in ("bins", "hull"):
        json.dumps(fit_envelope(CURVES, method=method, intervals=Intervals(20)).to_dict(), allow_nan=False)
    fits.parametric.to_dict()["compute"]["kappa"] = 1.0
    assert fits.parametric.surface.compute.kappa == 6.0  # type: ignore[union-attr]
    with pytest.raises(AttributeError):
        fits.parametric.delta = 1.0  # type: ignore[misc, union-attr]


def test_every_door_takes_a_pandas_table(tmp_path: Any) -> None:
    frame = pd.DataFrame({name: getattr(RUNS, name) for name in ("run_id", "N", "D", "loss", "budget")}, index=range(100, 135))
    fit = fit_parametric(frame, intervals=Intervals(20))
    assert next_runs(fit, frame, flops=1e20, most=2).sd_after > 0
    assert set(fit_kaplan(frame, intervals=Intervals(20))) == {"L_N", "L_D", "L_C", "L_ND", "L_NS"}
    assert compare_conventions({"as it is": frame}, intervals=NO_INTERVALS)[0].a is not None
    assert fit_all(frame, options=Options(intervals=Intervals(20))).convention == {}
    frame.to_csv(tmp_path / "runs.csv", index=False)
    assert len(read_runs(str(tmp_path / "runs.csv"))) == 35
    pieces = [pd.DataFrame({"run_id": c.run_id, "tokens": c.tokens, "loss": c.loss}) for c in CURVES]
    pd.concat(pieces).to_parquet(tmp_path / "curves.parquet")  # with an index that repeats, as it comes
    assert len(read_curves(tmp_path / "curves.parquet", {}, RUNS)) == 35


def test_the_next_runs_know_what_was_free() -> None:
    bound = fit_parametric(RUNS, fixed_E=1.69, intervals=Intervals(60))
    tied = fit_parametric(RUNS, tied=True, intervals=Intervals(60))
    free = fit_parametric(RUNS, intervals=Intervals(60))
    sds = [next_runs(fit, RUNS, flops=1e20, target="loss", target_C=1e22, most=2).sd_before for fit in (bound, free)]
    assert sds[0] < sds[1]
    assert next_runs(fit_parametric(RUNS, fixed_E=0.0, intervals=Intervals(60)), RUNS, flops=1e20, most=2).sd_after > 0
    assert next_runs(tied, RUNS, flops=1e20, target="loss", target_C=1e22, most=2).sd_after > 0


def test_two_conventions_with_other_losses_are_two_fits() -> None:
    other = replace(RUNS, loss=RUNS.loss + 2000 / RUNS.D**0.5)
    one, two = compare_conventions({"one": RUNS, "two": other}, intervals=NO_INTERVALS)
    assert one.a != two.a
    assert two.a is not None
    assert two.a.value == fit_parametric(other, intervals=NO_INTERVALS).a.value


def test_an_E_of_zero_is_found_where_it_is_best() -> None:
    """Where E only crawls towards zero, the fit without E is the better one, and is taken."""
    N = [1371890, 7954660, 2487120, 73262000, 8804480, 49997400, 4522320]
    D = [29926100, 1103840000, 112609000, 2206150000, 639861000, 9704060000, 77560200]
    loss = [4.93005, 2.41931, 3.66736, 2.09318, 2.51277, 1.9389, 3.8246]
    for options in ({}, {"delta": 1e-4}, {"objective": "lad"}):
        free = fit_parametric(N, D, loss, intervals=NO_INTERVALS, **options)
        held = fit_parametric(N, D, loss, fixed_E=0.0, intervals=NO_INTERVALS, **options)
        assert free.objective <= held.objective * (1 + 1e-9)
        assert free.status == "bound"


def test_exponents_of_approach_2_add_up() -> None:
    for seed in range(5):
        fit = fit_isoflop(Simulator(surface=SURFACE, noise=Noise(run=0.02), seed=seed).isoflop([1e18, 1e19, 1e20], sizes=9))
        assert fit.a.value + fit.b.value == pytest.approx(1)
        N, D = fit.optimal(1e19)
        assert 6 * N * D == pytest.approx(1e19)
        if fit.a_cubic is not None and fit.a_cubic.low is not None and fit.a_cubic.high is not None:
            assert fit.a_cubic.low <= fit.a_cubic.value <= fit.a_cubic.high
