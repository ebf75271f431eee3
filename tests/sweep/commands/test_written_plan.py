"""A launched sweep is written down: what comes after reads neither conf/ nor the text, and works on a copy of the store."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.commands.sweeps import find_run_id, plan_sweep
from sweep.config import compose, compose_with_choices
from sweep.errors import InputError
from sweep.files import SEAL, read_json
from sweep.plan.written import SweepPlan
from sweep.store import Store
from tests.stores import leave_status

GRID = ["grid.isoflop.budgets=[2e9,4e9,8e9]", "grid.isoflop.sizes=4", "grid.isoflop.span=6", "data.max_epochs=20"]
QUICK = ["fit.resamples=20"]


@pytest.fixture(scope="module")
def launched(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a sweep named tiny, whose text is gone."""
    root = tmp_path_factory.mktemp("written")
    text = root / "moved.txt"
    shutil.copy(text_file, text)
    data = ["data=text", f"data.paths=[{text}]", "data.validation_tokens=4096", "device=cpu", "name=tiny"]
    assert main(["launch", *data, *GRID, f"store={root / 'launched'}"]) == DONE
    text.unlink()
    return root / "launched"


@pytest.fixture
def copy(launched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store where conf/ cannot be read and nothing can be reached."""

    def unreachable(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError("conf/ or the network was used")

    shutil.copytree(launched, tmp_path / "copy")
    for user in ("sweep.config.composing", "sweep.config.overrides", "sweep.commands.helping"):
        monkeypatch.setattr(f"{user}.conf_directory", unreachable)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "copy"


def test_every_command_works_on_a_copy_of_the_store(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"store={copy}"
    out = copy / "sweeps" / "tiny"
    for arguments, printed in (
        (["status", "tiny"], "12 done; 100% of"),
        (["status", "name=tiny"], "12 done; 100% of"),
        (["watch", "tiny"], "12 done; 100% of"),
        (["plan", "tiny"], "12 runs, 0 to train"),
        (["launch", "tiny"], "12 finished before, 0 to train"),
        (["cancel", "tiny"], "nothing was queued or running"),
        (["fit", "tiny", *QUICK], f"wrote {out / 'fits.json'}"),
        (["plot", "tiny", *QUICK], "isoflop.png"),
        (["report", "tiny", *QUICK, "report.title=Mine"], "report.html"),
        (["next", "tiny", *QUICK], f"wrote {out / 'next.json'}"),
        (["evaluate", "tiny"], "evaluations.csv"),
        (["train-optimal", "tiny", "--budget", "3e9", *QUICK], "predicted loss"),
    ):
        assert main([*arguments, store]) == DONE, arguments
        assert printed in capsys.readouterr().out
    assert "Mine" in (out / "report.html").read_text()
    assert set(pd.read_csv(out / "runs.csv")["state"]) == {"done"}
    assert (out / "fits.json").exists()


def test_what_is_written_may_change_and_what_is_trained_may_not(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"store={copy}"
    assert main(["fit", "tiny", store, *QUICK, "fit.level=0.5", "ask.budgets=[1e12]", f"out={copy / 'else'}"]) == DONE
    fits = json.loads((copy / "else" / "fits.json").read_text())
    assert 1e12 in {row["C"] for row in fits["answers"]["allocations"]}
    capsys.readouterr()
    for override, message in (
        ("grid.isoflop.sizes=5", "grid.isoflop.sizes=5 would make other runs than those of tiny"),
        ("seed=3", "seed=3 would make other runs"),
        ("data=jsonl", "data=jsonl would make other runs"),
        ("evaluation.points=3", "evaluation.points=3 would make other runs"),
        ("fit.levle=0.5", "levle"),
        ("fit.level=5", "fit.level=5.0 is out of range"),
    ):
        assert main(["fit", "tiny", store, override]) == BAD_INPUT
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    # The overrides of the launch, and those that change nothing, are no other runs.
    assert main(["status", "tiny", store, *GRID, "seed=0", "data=text", "grid.isoflop.span=6.0"]) == DONE


def test_a_second_launch_says_what_is_new_kept_and_dropped(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [
        "data=text",
        f"data.paths=[{text_file}]",
        "data.validation_tokens=4096",
        "device=cpu",
        f"store={tmp_path}",
        "grid=list",
    ]
    first, second = (
        "grid.runs=[{N: 2e3, D: 2e4}, {N: 5e3, D: 2e4}]",
        "grid.runs=[{N: 5e3, D: 2e4}, {N: 8e3, D: 2e4}, {N: 2e3, D: 4e4}]",
    )
    assert main(["launch", *data, first]) == DONE
    assert "since its last launch" not in capsys.readouterr().out
    assert main(["launch", *data, second]) == DONE
    printed = capsys.readouterr().out
    assert "sweep: 2 new, 1 kept, 1 dropped since its last launch" in printed
    assert "3 runs, 1 finished before, 2 to train" in printed
    plan = SweepPlan.read(tmp_path / "sweeps" / "sweep")
    assert plan is not None
    assert len(plan.runs) == 3
    assert len(list((tmp_path / "runs").iterdir())) == 4  # a dropped run keeps its directory


def test_plan_as_json_is_what_launch_writes(launched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "tiny", f"store={launched}", "--json"]) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert [run.pop("why") for run in shown["runs"]] == ["done"] * 12
    assert shown == read_json(launched / "sweeps" / "tiny" / "plan.json", dict, "")
    run = shown["runs"][0]
    assert run["D"] == run["run"]["steps"] * run["run"]["batch_size"] * run["run"]["model"]["context_length"]
    assert run["engine"] == "native"
    assert run["expected_s"] > 0


def test_why_a_run_would_be_trained(launched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(launched, tmp_path / "copy")
    store = Store(tmp_path / "copy")
    plan = SweepPlan.read(store.root / "sweeps" / "tiny")
    assert plan is not None
    failed, partial, new, damaged = (store.run(planned.run.run_id) for planned in plan.runs[:4])
    leave_status(failed, "failed", step=3, error="ValueError: it broke")
    leave_status(partial, "interrupted", step=7)
    (new.path / "status.json").unlink()
    (damaged.path / "status.json").write_text("{")
    assert main(["plan", "tiny", f"store={store.root}"]) == DONE
    why = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert why[failed.path.name].rstrip().endswith("failed")
    assert why[partial.path.name].rstrip().endswith("partial at step 7")
    assert why[new.path.name].rstrip().endswith("new")
    assert why[damaged.path.name].rstrip().endswith("failed")
    assert main(["status", "tiny", f"store={store.root}"]) == DONE  # one damaged status hides no other run
    assert "8 done" in capsys.readouterr().out


def test_runs_go_by_the_first_digits_of_their_names(launched: Path) -> None:
    store = Store(launched)
    names = sorted(path.name for path in (launched / "runs").iterdir())
    unique = next(name[:k] for name in names for k in range(2, 16) if sum(other.startswith(name[:k]) for other in names) == 1)
    assert find_run_id(store, unique) in names
    with pytest.raises(InputError, match="is the beginning of 12 runs"):
        find_run_id(store, "")
    with pytest.raises(InputError, match="no run ffffffffffffffff"):
        find_run_id(store, "f" * 16)


def test_an_experiment_is_found_by_the_name_it_was_launched_under(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for overrides in (
        ["experiment=smoke", "scale=gpu", "device=cpu"],
        ["experiment=smoke"],
        ["experiment=smoke", "name=mine", "seed=1"],
    ):
        overrides = [*overrides, f"store={tmp_path}"]
        config, choices = compose_with_choices(overrides)
        plan_sweep(config, choices, overrides)[0].write(tmp_path / "sweeps" / config.name)
    for words, name in (
        (["experiment=smoke"], "smoke"),
        (["experiment=smoke", "scale=gpu"], "smoke-gpu"),
        (["mine"], "mine"),
        (["experiment=smoke", "name=mine"], "mine"),
    ):
        assert main(["status", *words, f"store={tmp_path}"]) == DONE
        assert f"{name} in " in capsys.readouterr().out
    assert main(["status", "other", f"store={tmp_path}"]) == BAD_INPUT
    assert "(there: mine, smoke, smoke-gpu)" in capsys.readouterr().err


def test_a_plan_survives_json_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    config = compose(["experiment=cpu", f"store={tmp_path}"])
    plan, _ = plan_sweep(config, {"experiment": "cpu"}, ["experiment=cpu"])
    plan.write(tmp_path)
    again = SweepPlan.read(tmp_path)
    assert again is not None
    assert asdict(again.config) == asdict(config)
    assert again == plan
    path = tmp_path / "plan.json"
    values = json.loads(path.read_text())
    values["runs"][0]["run"]["seed"] = 5
    unsealed = {name: value for name, value in values.items() if name != SEAL}
    for damaged, message in (
        (json.dumps(values), "was changed after it was written"),
        (json.dumps(unsealed), "it was changed by hand"),
        (json.dumps(unsealed | {"format": 2}), "its format is 2"),
        ("[]", "is damaged"),
        (path.read_text()[:-20], "is damaged"),
    ):
        path.write_text(damaged)
        with pytest.raises(InputError, match=message):
            SweepPlan.read(tmp_path)
    assert SweepPlan.read(tmp_path / "none") is None


def test_following_a_sweep_imports_no_torch(launched: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None\n")
    root = Path(__file__).resolve().parents[3]
    for command in (["status"], ["fit", *QUICK], ["report", *QUICK]):
        done = subprocess.run(
            [sys.executable, "-m", "sweep", command[0], "tiny", f"store={launched}", f"out={tmp_path / 'out'}", *command[1:]],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": f"{tmp_path}:{root}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        assert done.returncode == DONE, done.stderr
