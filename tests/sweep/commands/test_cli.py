"""The commands on tables, their exit codes, and what they say of bad input."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml

from sweep import __version__
from sweep.cli import COMMANDS, main
from sweep.commands import BAD_INPUT, DONE, SOME_RUNS_FAILED
from sweep.commands.sweeps import plan_sweep
from sweep.config import compose
from sweep.store import Store
from tests.stores import leave_status


def tiny_sweep(text_file: Path, store: Path) -> list[str]:
    """A sweep of the text, of the runs that a test names."""
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096"]
    return [*data, "device=cpu", f"store={store}", "grid=list"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A planted surface at five budgets of seven sizes, with a column of runs that are not done."""
    budget = np.repeat(np.geomspace(1e18, 1e20, 5), 7)
    N = 0.09 * budget**0.5 * np.tile(np.geomspace(1 / 3, 3, 7), 5)
    D = budget / (6 * N)
    loss = 1.7 + 400 / N**0.34 + 1200 / D**0.32
    runs = pd.DataFrame(
        {"run_id": [f"r{i}" for i in range(35)], "N": N, "D": D, "budget": budget, "loss": loss, "state": "done"}
    )
    runs.loc[3, ["state", "loss"]] = "failed", np.nan
    runs.to_csv(tmp_path / "runs.csv", index=False)
    return tmp_path / "runs.csv"


def test_fit_on_a_table_writes_the_promised_json(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fits"
    assert main(["fit", f"table={table}", f"out={out}", "fit.resamples=30"]) == DONE
    fits = json.loads((out / "fits.json").read_text())
    assert fits["convention"] == {"loss": "val", "N": "total", "C": "6N"}
    assert fits["runs"] == {"used": 34, "excluded": [{"run_id": "r3", "reason": "not done: failed"}], "notes": []}
    assert fits["envelope"] == {"status": "no_curves", "reason": fits["envelope"]["reason"]}
    assert len(fits["isoflop"]["profiles"]) == 5
    for profile in fits["isoflop"]["profiles"]:
        assert {"budget", "N_opt", "D_opt", "loss_opt", "status"} <= set(profile)
    for name in ("E", "A", "B", "alpha", "beta", "a", "b"):
        estimate = fits["parametric"][name]
        assert estimate["low"] <= estimate["value"] * (1 + 1e-6)
        assert estimate["high"] >= estimate["value"] * (1 - 1e-6)
    assert fits["parametric"]["a"]["value"] == pytest.approx(0.32 / 0.66, abs=1e-4)
    assert fits["isoflop"]["a"]["value"] + fits["isoflop"]["b"]["value"] == pytest.approx(1, abs=0.01)
    assert fits["parametric"]["status"] == "converged"
    summary = capsys.readouterr().out
    assert "34 runs, 1 left out" in summary
    assert "Approach 1" in summary
    assert "not fitted (no_curves)" in summary


def test_fit_on_a_table_needs_neither_torch_nor_a_store(table: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None\n")
    command = [sys.executable, "-m", "sweep", "plot", f"table={table}", "out=fits", "fit.resamples=0"]
    paths = f"{tmp_path}{os.pathsep}{Path(__file__).resolve().parents[3]}"
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, check=True, capture_output=True)
    drawn = sorted(path.name for path in (tmp_path / "fits").iterdir())
    figures = [
        f"{name}.{kind}"
        for name in ("extrapolation", "frontier", "isoflop", "kaplan", "parametric", "residuals", "sensitivity")
        for kind in ("png", "svg")
    ]
    assert drawn == sorted(["fits.json", *figures])
    assert not (tmp_path / "store").exists()


def test_fit_answers_what_is_asked(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ask.budgets=[1e21]", "ask.losses=[2.2,1.0]", "ask.inference_tokens=1e12", "ask.flops_per_second=1e14"]
    chosen = ["fit.objective=log_mse", "fit.resamples=20"]
    assert main(["fit", f"table={table}", f"out={tmp_path}", *asked, *chosen]) == DONE
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert fits["parametric"]["kind"] == "log_mse"
    answers = fits["answers"]
    assert {row["approach"] for row in answers["allocations"]} == {"isoflop", "parametric"}
    assert [goal["C"] is None for goal in answers["goals"]] == [False, True]
    assert answers["footprints"][0]["gpu_hours"] == pytest.approx(1e21 / 1e14 / 3600)
    assert len(fits["extrapolation"]) >= 3
    assert {row["group"] for row in fits["sensitivity"]} >= {"approach", "loss function", "sizes"}
    assert fits["kaplan"]["L_C"]["status"] == "converged"
    printed = capsys.readouterr().out
    assert "no budget reaches it" in printed
    assert "GPU-hours" in printed


def test_next_writes_a_grid_from_a_table(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"table={table}", f"out={tmp_path}", "next.flops=1e20", "next.max_runs=5", "fit.resamples=60"]
    assert main(["next", *arguments]) == DONE
    chosen = json.loads((tmp_path / "next.json").read_text())
    assert chosen["sd_after"] < chosen["sd_before"]
    assert sum(run["C"] for run in chosen["runs"]) <= 1e20
    assert len(chosen["runs"]) <= 5
    assert (tmp_path / "conf" / "grid" / "next.yaml").read_text().count("{N:") == len(chosen["runs"])
    assert "grid=[isoflop,next]" in capsys.readouterr().out
    for bad, message in (
        (["next.flops=1e10"], "buys no run"),
        (["next.target=loss"], "target_C is the budget"),
        (["next.target=b"], "none of a, loss"),
        (["fit.parameters=non_embedding"], "leave fit.parameters=total"),
    ):
        assert main(["next", *arguments, *bad]) == BAD_INPUT
        assert message in capsys.readouterr().err


def test_columns_are_renamed(chinchilla_csv: Path, tmp_path: Path) -> None:
    """The published points as they come: the 240 points' optimum through the command line."""
    frame = pd.read_csv(chinchilla_csv)
    frame.drop(frame["loss"].nlargest(5).index).to_csv(tmp_path / "points.csv", index=False)
    renames = ["columns.N=Model Size", "columns.C=Training FLOP"]
    assert main(["fit", f"table={tmp_path / 'points.csv'}", f"out={tmp_path}", "fit.resamples=0", *renames]) == DONE
    fit = json.loads((tmp_path / "fits.json").read_text())["parametric"]
    assert fit["objective"] == pytest.approx(1.01827401780061e-3, rel=1e-6)
    assert fit["a"]["value"] == pytest.approx(0.51390, abs=1e-4)


def test_figures_are_pictures_of_everything(table: Path, tmp_path: Path) -> None:
    runs = pd.read_csv(table).query("state == 'done'")
    rows = [
        {"run_id": run_id, "tokens": tokens, "loss": 1.7 + 400 / N**0.34 + 1200 / tokens**0.32}
        for run_id, N, D in zip(runs["run_id"], runs["N"], runs["D"], strict=True)
        for tokens in np.geomspace(D / 100, D, 50)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "curves.parquet")
    arguments = [f"table={table}", f"curves={tmp_path / 'curves.parquet'}", f"out={tmp_path}", "fit.resamples=20"]
    assert main(["plot", *arguments]) == DONE
    for name in ("envelope", "isoflop", "parametric", "sensitivity", "extrapolation"):
        pixels = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert pixels.shape[1] >= 1200
        assert 0.02 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5  # neither blank nor a blot
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "there is no command 'fly'; the commands are plan, launch"),
        (["plan", "experiment=nope"], "experiment/nope"),
        (["plan", "grid=list", "grid.runs=[{N: 1, D: 1e6}]"], "no model of 1 parameters"),
        (["plan", "data.validation_tokens=99999999"], "too few for data.validation_tokens=99,999,999"),
        (["fit", "table=nowhere.csv"], "nowhere.csv does not exist"),
        (["fit", "store={tmp}/empty", "experiment=smoke"], "no sweep smoke was launched into store="),
        (["launch", "experiment=smoke", "store=/proc/isosweep"], "store=/proc/isosweep cannot be written"),
        (["launch", "experiment=smoke", "data=text", "data.paths=[{tmp}/none.txt]"], "matches no file"),
        (["launch", "device=cuda", "store={tmp}/s"], "no CUDA device"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if "device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unwritable_out_is_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", f"table={table}", "out=/proc/fits", "fit.resamples=0"]) == BAD_INPUT
    assert "out=/proc/fits cannot be written" in capsys.readouterr().err


def test_a_table_that_fits_no_law_says_why(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.read_csv(table).head(2).to_csv(tmp_path / "two.csv", index=False)
    capsys.readouterr()
    assert main(["fit", f"table={tmp_path / 'two.csv'}", f"out={tmp_path}"]) == BAD_INPUT
    printed = capsys.readouterr()
    assert printed.err.startswith("isosweep: no law could be fitted to 2 runs: Approach 2: ")
    assert "Approach 3 needs at least 6 runs" in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert main(["fit", f"table={tmp_path / 'two.csv'}", f"out={tmp_path}", "--full"]) == BAD_INPUT
    assert "Kaplan's laws" in capsys.readouterr().out
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert fits["parametric"]["status"] == "too_few_runs"
    assert fits["isoflop"]["status"] == "too_few_profiles"
    pd.read_csv(table).head(2).drop(columns="budget").to_csv(tmp_path / "two.csv", index=False)
    assert main(["plot", f"table={tmp_path / 'two.csv'}", f"out={tmp_path}"]) == BAD_INPUT
    assert "nothing to draw" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_fields(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == DONE
    output = capsys.readouterr().out
    assert output.startswith(f"usage: isosweep {name} ")
    for field in COMMANDS[name].fields:
        assert re.search(rf"\n  {field}[.=]", output), field
    assert "Raises" not in output
    assert "a launched sweep" in output or COMMANDS[name].takes != "sweep"


@pytest.mark.parametrize("columns", [60, 80])
def test_help_names_what_one_changes_most(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each field as it is typed, with its default, in lines that fit."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["launch", "--help"]) == DONE
    output = capsys.readouterr().out
    shown = dict(re.findall(r"^  ([\w.]+)=(.*?)(?:  .*)?$", output, re.MULTILINE))
    budgets, workers, project = "grid.isoflop.budgets", "cluster.workers", "tracker.project"
    assert (shown[budgets], shown[workers], shown[project]) == ("[2.0e10, 6.0e10, 2.0e11]", "auto", "isosweep")
    groups = ("grid.", "cluster.", "tracker.", "runtime.")
    typed = {name: value for name, value in shown.items() if name.startswith(groups) and value != "[]" and "slurm" not in name}
    compose(["grid=[isoflop,horizons,around]", *(f"{name}={value}" for name, value in typed.items())])  # they exist
    assert {"data.paths", "data.tokenizer", "data.max_bytes", "cluster.slurm.partition"} <= set(shown)
    assert "cluster=local | slurm" in output
    assert "[NAME]  " in output
    assert "--retry" in output
    assert max(map(len, output.splitlines())) <= columns
    assert main(["--help"]) == DONE
    commands = capsys.readouterr().out.partition("\nEvery key=value")[0]
    assert max(map(len, commands.splitlines())) <= columns


def test_the_command_line_offers_every_approach() -> None:
    from sweep.commands import using
    from sweep.fit import APPROACHES

    assert set(using.APPROACHES) == {*APPROACHES, "kaplan"}  # by whose counting one is fitted, too


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == DONE
    usage = capsys.readouterr().out
    assert all(f"\n  {command} " in usage for command in COMMANDS)
    assert main([]) == BAD_INPUT


def test_plan_creates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert main(["plan", "experiment=smoke", f"store={store}"]) == DONE
    printed = capsys.readouterr().out
    assert "18 runs, 18 to train" in printed
    assert printed.count(" new") == 18
    assert not store.exists()


def test_a_failed_run_is_exit_code_one_and_named(tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [
        *tiny_sweep(text_file, tmp_path),
        "grid.runs=[{N: 2e3, D: 2e4}, {N: 5e3, D: 2e4}]",
    ]
    damaged, sound = (p.run.run_id for p in plan_sweep(compose(overrides))[0].runs)
    (tmp_path / "runs" / damaged).mkdir(parents=True)
    (tmp_path / "runs" / damaged / "config.yaml").write_text("not: a run")
    assert main(["launch", *overrides]) == SOME_RUNS_FAILED
    printed = capsys.readouterr().out
    assert f"{damaged} failed: InputError" in printed
    assert "1 failed, 1 done" in printed
    assert json.loads((tmp_path / "runs" / sound / "status.json").read_text())["state"] == "done"

    (tmp_path / "runs" / damaged / "config.yaml").unlink()  # the remedy
    assert main(["launch", *overrides]) == SOME_RUNS_FAILED  # it would mostly fail again
    assert "left out: 1 run that failed before" in capsys.readouterr().out
    assert main(["launch", "--retry", "failed", *overrides]) == DONE
    assert "2 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "--follow"], "unrecognized arguments: --follow"),
        (["launch", "--retry", "all"], "invalid choice: 'all'"),
        (["status", "a", "b"], "'b' is neither a flag nor an override"),
        (["status", "grid.runs"], "no sweep grid.runs was launched into store={tmp}"),
        (["logs"], "which run? isosweep logs RUN_ID"),
        (["logs", "0123456789abcdef"], "no run 0123456789abcdef is in store={tmp}"),
        (["logs", "../../etc"], "'../../etc' is neither a run_id"),
        (["task"], "the following arguments are required: submission, task"),
        (["task", "{tmp}", "0"], "no such task"),
        (["plan", "+data._target_=os.system"], "_target_"),
        (["plan", "--config-dir", "{tmp}/none"], "--config-dir {tmp}/none is not a folder"),
        (["launch", "cluster.launcher=slurm"], "choose cluster=slurm"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = [] if arguments[0] == "task" else [f"store={tmp_path}"]
    assert main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments] + store) == BAD_INPUT
    error = capsys.readouterr().err
    assert message.replace("{tmp}", str(tmp_path)) in error
    assert error.count("\n") == 1


def test_version_and_composed_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == DONE
    assert capsys.readouterr().out == f"isosweep {__version__}\n"
    mine = tmp_path / "conf" / "experiment"
    mine.mkdir(parents=True)
    (mine / "mine.yaml").write_text("# @package _global_\nname: mine\nseed: 7\n")
    assert main(["plan", "experiment=mine", "--config-dir", str(tmp_path / "conf"), "--cfg", "job"]) == DONE
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["name"], shown["seed"], shown["grid"]["isoflop"]["sizes"]) == ("mine", 7, 6)


def test_status_tells_every_run(tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [
        *tiny_sweep(text_file, tmp_path),
        "grid.runs=[{N: 2e3, D: 2e4}, {N: 5e3, D: 2e4}, {N: 8e3, D: 2e4}]",
    ]
    plan_sweep(compose(overrides), overrides=overrides)[0].write(tmp_path / "sweeps" / "sweep")
    assert main(["status", *overrides]) == DONE
    assert "3 waiting; 0% of" in capsys.readouterr().out
    assert main(["launch", *overrides]) == DONE
    directories = [Store(tmp_path).run(p.run.run_id) for p in plan_sweep(compose(overrides))[0].runs]
    leave_status(directories[0], "failed", step=3, steps=39, error="ValueError: it broke")
    leave_status(directories[1], "running", step=7, steps=39)  # and its process is gone
    (directories[1].throughput).write_text('{"step": 9, "loss": 4.5}\n{"step": 1')  # as a kill leaves it
    capsys.readouterr()
    assert main(["status", *overrides, "--watch"]) == DONE  # nothing is going on: it says so once
    shown = capsys.readouterr().out
    assert "ValueError: it broke" in shown
    assert "interrupted" in shown
    assert "9/39" in shown
    assert "4.500" in shown
    assert "1 failed, 1 interrupted, 1 done" in shown


def test_a_launch_without_a_compiler_says_so_and_trains(text_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweep", "launch", *tiny_sweep(text_file, tmp_path / "s"), "grid.runs=[{N: 3e3, D: 2e4}]"]
    environment = os.environ | {"CXX": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == DONE, done.stderr
    assert "there is no no-such-compiler: a step is torch's own" in done.stderr
    (path,) = (tmp_path / "s" / "runs").glob("*/provenance.json")
    (start,) = json.loads(path.read_text())["starts"]
    assert start["engine"] == "eager"
    assert "no-such-compiler" in start["why_not_native"]
