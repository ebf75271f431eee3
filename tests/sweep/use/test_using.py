"""The compute-optimal run: composed, predicted, trained and compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import SizeLadder, count_parameters, flops_per_token
from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.commands.sweeps import plan_sweep
from sweep.config import compose
from sweep.fit import Estimate, Intervals, Noise, Simulator, Surface, fit_parametric, predict_runs
from sweep.store import Store
from sweep.use.optimal import OptimalRun

SURFACE = Surface(E=0.5, A=40.0, B=60.0, alpha=0.4, beta=0.35)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Simulated runs of known optimum about the sizes that the tiny ladder has."""
    import pandas as pd

    runs = Simulator(surface=SURFACE, noise=Noise(run=0.003), seed=1).isoflop([1e9, 3e9, 1e10, 3e10], sizes=6, span=10)
    columns = {name: getattr(runs, name) for name in ("run_id", "N", "D", "C", "loss", "budget")}
    pd.DataFrame(columns).to_csv(tmp_path / "runs.csv", index=False)
    return tmp_path / "runs.csv"


@pytest.fixture
def sweep(text_file: Path, tmp_path: Path) -> list[str]:
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "data.max_epochs=20"]
    return [*data, "device=cpu", "cluster.workers=1", f"store={tmp_path / 'store'}", f"out={tmp_path / 'out'}", "seed=3"]


def test_the_run_is_the_ladders_nearest_on_the_tokens_that_the_budget_buys(
    sweep: list[str], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-optimal", *sweep, f"table={table}", "--budget", "6e9"]) == DONE
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "optimal-6e+09-parametric.json").read_text())
    shape = SizeLadder(vocab_size=257, context_length=128, **vars(compose(sweep).model)).nearest(
        record["optimum"]["N"]["value"]
    )
    run = record["run"]
    assert record["optimum"]["N"]["value"] == pytest.approx(SURFACE.optimal(6e9)[0], rel=0.3)
    assert run["D"] * flops_per_token(shape) == pytest.approx(6e9, rel=0.05)
    predicted = record["predicted"]
    assert predicted["low"] < predicted["value"] < predicted["high"]
    assert predicted["value"] == pytest.approx(SURFACE.predict(run["N"], run["D"]), rel=0.01)
    assert (record["measured"], record["inside"], record["was_fitted"]) == (None, None, False)
    assert "--yes trains it" in printed
    assert "extrapolation" not in printed
    assert not (tmp_path / "store").exists()

    # The recipe is the sweep's: but for the grid, the same settings give the same run.
    (same,) = plan_sweep(compose([*sweep, "grid=list", f"grid.runs=[{{N: {run['N']}, D: {run['D']}}}]"]))[0].runs
    assert same.run.run_id == run["run_id"]
    assert same.run.seed == 3


@pytest.mark.parametrize("approach", ["isoflop", "parametric"])
def test_far_from_the_fitted_budgets_it_warns(
    approach: str, sweep: list[str], table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*sweep, f"table={table}", "--approach", approach, "data.max_epochs=1000", "fit.resamples=30"]
    assert main(["train-optimal", *asked, "--budget", "6e11"]) == DONE
    assert "extrapolation   by a factor of 20: the largest C that was fitted is 3e+10" in capsys.readouterr().out
    assert main(["train-optimal", *asked, "--budget=4e8"]) == DONE
    assert "extrapolation   by a factor of 2.5 down: the smallest C fitted is 1e+09" in capsys.readouterr().out


def test_kaplans_counting_asks_for_the_size_that_its_own_law_has(sweep: list[str], tmp_path: Path) -> None:
    import pandas as pd

    ladder = SizeLadder(vocab_size=257, context_length=128, **vars(compose(sweep).model))
    rows = []
    for C in (1e9, 3e9, 1e10, 3e10):
        for N, shape in list(ladder.sized())[1:8]:
            own, D = count_parameters(shape).non_embedding, C / 6 / N
            loss = SURFACE.predict(own, D)  # so Kaplan's N is the one that the loss depends on
            rows.append({"N": N, "D": D, "C": C, "loss": loss, "N_non_embedding": own, "C_kaplan": 6 * own * D})
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    asked = [*sweep, f"table={tmp_path / 'runs.csv'}", "--budget", "1e10", "--approach", "kaplan", "fit.resamples=20"]
    assert main(["train-optimal", *asked, "data.max_epochs=1000"]) == DONE
    optimum = json.loads((tmp_path / "out" / "optimal-1e+10-kaplan.json").read_text())["optimum"]
    N, D = optimum["N"]["value"], optimum["D"]["value"]
    assert 6 * N * D == pytest.approx(1e10)
    sizes = [size for size, _ in ladder.sized()]
    shares = [count_parameters(shape).non_embedding / size for size, shape in ladder.sized()]
    share = float(np.interp(np.log(N), np.log(sizes), shares))
    assert share * N == pytest.approx(SURFACE.optimal(1e10 * share)[0], rel=0.02)


def test_it_is_trained_and_compared(sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["grid.isoflop.budgets=[2e9,5e9]", "grid.isoflop.sizes=4", "grid.isoflop.span=6", "fit.resamples=50"]
    assert main(["launch", *sweep, *grid]) == DONE
    capsys.readouterr()
    assert main(["train-optimal", *sweep, *grid, "--budget", "4e9", "--yes"]) == DONE
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "optimal-4e+09-parametric.json").read_text())
    measured = Store(tmp_path / "store").run(record["run"]["run_id"]).status()["val_loss"]
    assert record["measured"] == measured
    inside = record["predicted"]["low"] <= measured <= record["predicted"]["high"]
    assert record["inside"] is inside
    assert f"measured loss   {measured:.4f}" in printed
    assert (": inside its 80% interval" if inside else ": OUTSIDE its 80% interval") in printed
    assert (
        main(["train-optimal", *sweep, *grid, "--budget", "4e9", "--yes"]) == DONE
    )  # trained before: compared again, the same
    again = capsys.readouterr().out
    assert "1 finished before, 0 to train" in again
    assert json.loads((tmp_path / "out" / "optimal-4e+09-parametric.json").read_text()) == record

    # By another loss and another count of FLOPs it is another question, and compared with that loss.
    assert main(["train-optimal", *sweep, *grid, "--budget", "4e9", "--yes", "fit.loss=train", "fit.flops=exact"]) == DONE
    other = json.loads((tmp_path / "out" / "optimal-4e+09-parametric.json").read_text())
    status = Store(tmp_path / "store").run(other["run"]["run_id"]).status()
    assert other["measured"] != status["val_loss"]
    assert other["measured"] == pytest.approx(status["val_loss"], rel=0.3)


@pytest.mark.parametrize(("measured", "inside"), [(1.8, False), (1.9, True), (2.1, True), (2.2, False)])
def test_the_verdict_is_the_intervals(measured: float, inside: bool) -> None:
    run = OptimalRun(
        budget=1e9,
        optimum=None,  # type: ignore[arg-type]
        planned=None,  # type: ignore[arg-type]
        predicted=Estimate(2.0, 1.85, 2.15),
        fitted=(1e8, 1e9),
        known=False,
    )
    assert run.holds(measured) is inside
    assert (": inside its" in run.verdict(measured, 0.8)) is inside
    assert f"{measured - 2:+.4f} from the prediction" in run.verdict(measured, 0.8)
    assert replace(run, predicted="too few runs").holds(measured) is None
    assert "no interval" in replace(run, predicted=Estimate(2.0)).verdict(measured, 0.8)


def test_what_cannot_be_composed_is_refused(
    sweep: list[str], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.with_name("two.csv").write_text("".join(table.read_text().splitlines(keepends=True)[:3]))
    given = f"table={table}"
    for arguments, message in (
        ([given], "the following arguments are required: --budget"),
        ([given, "--budget=-1"], "--budget -1 is out of range"),
        ([given, "--budget=6e9", "--approach", "porian"], "invalid choice: 'porian' (choose from 'envelope'"),
        ([given, "--budget=6e9", "--approach", "kaplan"], "needs the columns N, C, N_non_embedding and C_kaplan"),
        ([given, "--budget=6e9", "--approach", "kaplan", "fit.flops=exact"], "C_exact"),
        ([given, "--budget=6e9", "--approach=envelope"], "--approach envelope is not fitted (no_curves)"),
        ([f"table={table.with_name('two.csv')}", "--budget=6e9"], "--approach parametric is not fitted (too_few_runs)"),
        ([given, "--budget=1e4"], "--budget 10000: no model of"),
        ([given, "--budget=6e13"], "is longer than the data"),
        (["--budget=6e9"], "which sweep of store="),
    ):
        assert main(["train-optimal", *sweep, *arguments, "fit.resamples=0"]) == BAD_INPUT
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_prediction_intervals_hold_single_runs() -> None:
    """On simulated sweeps, an 80 % interval holds about 80 % of new runs with noise of their own."""
    inside, cases = 0, 40
    for seed in range(cases):
        simulator = Simulator(surface=SURFACE, noise=Noise(run=0.005), seed=seed)
        runs = simulator.isoflop([1e9, 3e9, 1e10, 3e10], sizes=6, span=10)
        new = Simulator(surface=SURFACE, noise=Noise(run=0.005), seed=1000 + seed).isoflop([1e11], sizes=3, span=2)
        fit = fit_parametric(runs, intervals=Intervals(60, seed=seed))
        predicted = predict_runs(fit, runs, new.N, new.D, seed=seed)
        inside += sum(p.low <= loss <= p.high for p, loss in zip(predicted, new.loss, strict=True))
    assert 0.65 < inside / (3 * cases) < 0.93
