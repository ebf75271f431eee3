"""Every public fit takes a table in whatever form it has: a pandas table, columns by name, a `RunTable`."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep import fit
from sweep.fit import NO_INTERVALS, Curve, Options, runs_from_frame
from sweep.tables.curves import as_curves

C = np.repeat(np.geomspace(1e18, 1e20, 5), 7)
N = np.round(np.sqrt(C / 120) * np.tile(np.geomspace(0.25, 4, 7), 5))
D = C / (6 * N)
LOSS = 1.7 + 400 / N**0.34 + 410 / D**0.28
FRAME = pd.DataFrame({"n": N, "D": D, "Loss": LOSS, "budget": C, "run_id": [f"{i:02d}" for i in range(35)]})
SHARES = np.linspace(0.05, 1, 30)
POINTS = pd.DataFrame(
    {"Run_ID": np.repeat(FRAME["run_id"], 30), "N": np.repeat(N, 30), "tokens": np.repeat(D, 30) * np.tile(SHARES, 35)}
).assign(loss=lambda frame: 1.7 + 400 / frame["N"] ** 0.34 + 410 / frame["tokens"] ** 0.28)

SURFACE = fit.fit_parametric(runs_from_frame(FRAME), intervals=NO_INTERVALS)
RUNS: dict[str, Callable[[Any], Any]] = {
    "fit_all": lambda runs: fit.fit_all(runs, options=Options(intervals=NO_INTERVALS)).parametric,
    "fit_parametric": lambda runs: fit.fit_parametric(runs, intervals=NO_INTERVALS),
    "fit_isoflop": lambda runs: fit.fit_isoflop(runs, intervals=NO_INTERVALS),
    "fit_kaplan": lambda runs: fit.fit_kaplan(runs, intervals=NO_INTERVALS)["L_ND"],
    "sensitivity": lambda runs: fit.sensitivity(runs, intervals=NO_INTERVALS),
    "hold_out": lambda runs: fit.hold_out(runs, intervals=NO_INTERVALS),
    "rolling_hold_out": lambda runs: fit.rolling_hold_out(runs, intervals=NO_INTERVALS),
    "predict_runs": lambda runs: fit.predict_runs(SURFACE, runs, [1e9], [2e10]),
    "next_runs": lambda runs: fit.next_runs(SURFACE, runs, flops=1e20, most=2),
    "compare_conventions": lambda runs: fit.compare_conventions({"ours": runs}, intervals=NO_INTERVALS),
    "collapse": lambda runs: fit.collapse(POINTS, runs, 1.7),
}
CURVES: dict[str, Callable[[Any], Any]] = {
    "fit_envelope": lambda curves: fit.fit_envelope(curves, intervals=NO_INTERVALS),
    "fit_all": lambda curves: fit.fit_all(FRAME, curves, options=Options(intervals=NO_INTERVALS)).envelope,
    "fit_kaplan": lambda curves: fit.fit_kaplan(FRAME.assign(batch_tokens=65536), curves, intervals=NO_INTERVALS)["L_NS"],
    "compare_conventions": lambda curves: fit.compare_conventions({"ours": FRAME}, curves, intervals=NO_INTERVALS),
    "collapse": lambda curves: fit.collapse(curves, FRAME, 1.7),
    "sensitivity": lambda curves: fit.sensitivity(FRAME, curves=curves, intervals=NO_INTERVALS),
}


def takers(kind: str) -> set[str]:
    """The public functions with an argument of this kind, as they are annotated."""
    functions = {name: value for name, value in vars(fit).items() if inspect.isfunction(value)}
    return {name for name, function in functions.items() if kind in inspect.getsource(function).partition('"""')[0]}


def test_none_is_forgotten() -> None:
    assert takers("RunsLike") == set(RUNS)
    assert takers("CurvesLike") == set(CURVES)


@pytest.mark.parametrize("name", RUNS)
def test_every_fit_takes_runs_in_any_form(name: str) -> None:
    table = runs_from_frame(FRAME)
    expected = repr(RUNS[name](table))
    for runs in (FRAME, FRAME.sample(frac=1, random_state=0).sort_index(), dict(FRAME), FRAME.to_dict(orient="list")):
        assert repr(RUNS[name](runs)) == expected


@pytest.mark.parametrize("name", CURVES)
def test_every_fit_takes_curves_in_any_form(name: str) -> None:
    known = as_curves(POINTS)
    assert all(isinstance(curve, Curve) for curve in known)
    expected = repr(CURVES[name](known))
    for curves in (POINTS, POINTS.to_dict(orient="list")):
        assert repr(CURVES[name](curves)) == expected
