"""The verdict: which numbers to go by, both parts of their uncertainty, and what is set aside."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.fit import Estimate, Fits, Intervals, Noise, Options, Simulator, fit_all, read_curves, read_runs
from sweep.fit.approaches import parametric
from sweep.fit.judge.choices import two_parts
from sweep.fit.kaplan.laws import L_ND
from sweep.fit.solver.memory import Memory
from sweep.fit.surface import BESIROGLU

ROOT = Path(__file__).resolve().parents[3]
BUDGETS = np.geomspace(1e18, 1e21, 7)
RUNS = Simulator(surface=BESIROGLU, noise=Noise(run=0.002)).isoflop(BUDGETS, sizes=9, span=30)


@pytest.fixture(scope="module")
def sound() -> Fits:
    return fit_all(RUNS)


def test_a_sound_table_has_one_answer(sound: Fits) -> None:
    verdict = sound.verdict
    assert verdict is not None
    assert verdict.approach == "isoflop"
    assert verdict.agree == ("Approach 3",)
    assert list(verdict.set_aside) == ["Approach 1"]
    assert sound.adequacy is not None
    assert sound.adequacy.adequate
    for row in verdict.rows:
        N, _ = BESIROGLU.optimal(row.C)
        assert row.N.combined.low < N < row.N.combined.high
        assert row.loss is not None
        assert row.loss.combined.low < BESIROGLU.frontier_loss(row.C) < row.loss.combined.high
    largest, following = verdict.rows
    assert following.C == pytest.approx(10 * largest.C)
    assert (largest.loss_by, following.loss_by) == ("Approach 2", "Approach 3")  # no profile reaches the second


def test_the_first_lines_say_it(sound: Fits) -> None:
    lines = sound.summary().splitlines()
    assert sound.verdict is not None
    assert lines[:5] == sound.verdict.lines()
    assert f"a = {sound.verdict.a.combined}" in lines[0]
    for start, line in zip(("N_opt", "With", "With", "Checks", "What would help"), lines, strict=False):
        assert line.startswith(start)
    assert "held out, " in lines[3]
    assert len(sound.summary(full=False).splitlines()) < len(lines)


def test_a_surface_of_the_wrong_form_is_set_aside() -> None:
    rng = np.random.default_rng(0)
    runs = replace(RUNS, loss=L_ND.predict(RUNS.N, RUNS.D) * np.exp(0.001 * rng.standard_normal(len(RUNS))))
    verdict = fit_all(runs, options=Options(intervals=Intervals(40))).verdict
    assert verdict is not None
    assert "form does not fit" in verdict.set_aside["Approach 3"]
    assert verdict.rows[1].loss_by == "the form 'Kaplan'"
    a = 0.076 / 0.103  # N_opt of Kaplan's form: both terms fall alike
    assert verdict.a.combined.low < 1 / (1 + a) < verdict.a.combined.high  # type: ignore[operator]


def test_constants_that_are_not_identified_have_no_interval() -> None:
    """The known entropy: E was printed as 3.6469 (3.6459 to 3.6481) where the truth is 3.6407."""
    fits = fit_all(read_runs(ROOT / "results" / "known-entropy" / "runs.csv"), options=Options(intervals=Intervals(40)))
    E = fits.parametric.E  # type: ignore[union-attr]
    assert (E.low, E.note) == (None, "not identified by these runs")
    assert fits.verdict is not None
    assert "unidentified" in fits.verdict.set_aside["Approach 3"]


def test_both_parts_of_an_uncertainty() -> None:
    value = Estimate(1.0, 0.9, 1.2)
    alone = two_parts(value, [("as far as noise", Estimate(1.05, 0.93, 1.17))])
    assert (alone.highest, alone.combined.high) == (None, pytest.approx(1.2))  # what noise explains is no news
    moved = two_parts(value, [("far", Estimate(1.5)), ("near", Estimate(1.1)), ("down", Estimate(0.7, 0.5, 0.9))])
    assert (moved.lowest, moved.highest) == ("down", "far")
    assert moved.high == pytest.approx(1.5)
    assert moved.combined.high == pytest.approx(1 + np.hypot(0.2, 0.5))
    assert moved.low == pytest.approx(1 - (0.3**2 - (0.2**2 - 0.1**2)) ** 0.5)
    logs = two_parts(Estimate(100.0, 50.0, 200.0), [("ten times", Estimate(1000.0))], log=True)
    assert logs.combined.high == pytest.approx(100 * np.exp(np.hypot(np.log(2), np.log(10))))


def test_no_fit_is_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """All judgements of a table with curves and conventions: every search of a surface is of other data or other options."""
    made: list[tuple[Any, Any]] = []

    class Counting(Memory):
        def get(self, arrays, options, make):  # type: ignore[no-untyped-def]
            key = (tuple(None if each is None else each.tobytes() for each in arrays), options)

            def noted():  # type: ignore[no-untyped-def]
                made.append(key)
                return make()

            return super().get(arrays, options, noted)

    monkeypatch.setattr(parametric, "MEMORY", Counting())
    folder = ROOT / "results" / "cpu-python"
    runs = read_runs(folder / "runs.csv")
    curves = read_curves(folder / "curves.parquet", {}, runs)
    fit_all(runs, curves, conventions={"the same": runs}, options=Options(intervals=Intervals(10)))
    assert len(made) == len(set(made))
    assert sum(len(key[1]) == 4 for key in made) < 30  # searches; the rest are their resamples
