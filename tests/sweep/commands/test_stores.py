"""list and clean: what a store holds, and what may be deleted of it."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.commands.sweeps import plan_sweep
from sweep.config import compose
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store
from tests.stores import leave_status
from tests.sweep.commands.test_cli import tiny_sweep

ROOT = Path(__file__).resolve().parents[3]
FINISHED = {"val_loss": 2.0, "val_loss_se": 0.01, "elapsed_s": 3.0, "device": "cpu"}
STATES = ("done", "diverged", "failed", "running", "done")  # of the runs below; the last is dropped from the plan
CHECKPOINT = 100_000


@pytest.fixture
def store(text_file: Path, tmp_path: Path) -> Store:
    """A sweep of four runs in different states, and a fifth that is in no plan; each has a checkpoint."""
    grid = ", ".join(f"{{N: {N}, D: 2e4}}" for N in (2e3, 5e3, 8e3, 1.2e4, 2e4))
    overrides = [*tiny_sweep(text_file, tmp_path / "store"), f"grid.runs=[{grid}]", "name=mine"]
    planned = plan_sweep(compose(overrides))[0].runs
    fewer = [*overrides[:-2], f"grid.runs=[{grid.rpartition(', {')[0]}]", "name=mine"]
    plan_sweep(compose(fewer), overrides=fewer)[0].write(tmp_path / "store" / "sweeps" / "mine")
    made = Store(tmp_path / "store")
    for each, state in zip(planned, STATES, strict=True):
        _make(made.run(each.run.run_id), each.run, state)
    return made


def _make(directory: RunDirectory, run: RunConfig, state: str) -> None:
    directory.create(run)
    leave_status(directory, state, step=3, steps=run.steps, **(FINISHED if state == "done" else {}))
    directory.curve.write_text("{}\n")
    (directory.checkpoints / "step-3.pt").write_bytes(bytes(CHECKPOINT))


def checkpoints(store: Store) -> dict[str, str]:
    """The state of every run that has a checkpoint, by run_id."""
    runs = [store.run(path.parent.parent.name) for path in store.root.glob("runs/*/checkpoint/step-3.pt")]
    return {run.path.name: run.status()["state"] for run in runs}


def in_no_plan(store: Store) -> RunDirectory:
    (run,) = (
        path for path in (store.root / "runs").iterdir() if "20,000" not in path.name and path.name not in _planned(store)
    )
    return store.run(run.name)


def _planned(store: Store) -> str:
    return (store.root / "sweeps" / "mine" / "plan.json").read_text()


def test_list_shows_sweeps_and_their_sizes(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", f"store={store.root}"]) == DONE
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("mine"))
    assert re.match(r"mine +4 +1 +\d{4}-\d\d-\d\d \d\d:\d\d +4\d\d\.\d kB +4\d\d\.\d kB", row)
    assert "1 run, " in printed
    assert "in no plan" in printed
    (store.root / "sweeps" / "broken").mkdir()
    (store.root / "sweeps" / "broken" / "plan.json").write_text("{")
    assert main(["list", f"store={store.root}"]) == DONE  # a damaged plan hides no other sweep
    printed = capsys.readouterr().out
    assert "2 sweeps in" in printed
    assert "broken/plan.json is damaged" in printed
    assert "in no plan" not in printed  # nobody can tell


def test_list_of_nothing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", f"store={tmp_path}"]) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def test_clean_deletes_checkpoints_of_finished_runs_only(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = in_no_plan(store).path.name
    assert main(["clean", "mine", f"store={store.root}"]) == BAD_INPUT  # nobody to ask
    assert len(checkpoints(store)) == 5
    assert main(["clean", "mine", f"store={store.root}", "--yes"]) == DONE
    assert sorted(checkpoints(store).values()) == ["done", "failed", "running"]
    assert checkpoints(store)[orphan] == "done"
    assert len(list(store.root.glob("runs/*/curve.jsonl"))) == 5
    printed = capsys.readouterr().out
    assert "checkpoints of 2 runs of mine, 20" in printed
    assert "2 runs not finished, or in training" in printed
    assert "deleted 20" in printed
    assert main(["clean", "mine", f"store={store.root}", "--yes", "--unfinished"]) == DONE
    assert list(checkpoints(store)) == [orphan]
    assert main(["clean", "mine", f"store={store.root}"]) == DONE
    assert "nothing to delete" in capsys.readouterr().out


def test_clean_leaves_a_run_that_somebody_trains(store: Store) -> None:
    owned = next(run_id for run_id, state in checkpoints(store).items() if state == "running")
    with store.run(owned).own(), in_no_plan(store).own():
        assert main(["clean", "mine", f"store={store.root}", "--yes", "--unfinished", "--orphans"]) == DONE
        assert set(checkpoints(store)) == {owned, in_no_plan(store).path.name}


def test_what_changes_between_question_and_answer_is_left_alone(store: Store) -> None:
    from sweep.follow.disk import deletable, delete

    run = in_no_plan(store)
    found = deletable([run], store, whole=True, unfinished=False)
    told: list[str] = []
    with run.own():
        assert delete(found, told.append) == 0
    leave_status(run, "running", step=3, steps=9)
    assert delete(found, told.append) == 0
    assert told == [f"{run.path.name} is left alone: it is being trained"] * 2
    assert run.curve.exists()


def test_orphans_go_when_asked_and_never_beside_a_damaged_plan(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = in_no_plan(store)
    plan = store.root / "sweeps" / "other" / "plan.json"
    plan.parent.mkdir()
    plan.write_text("{")  # the orphan may be a run of this sweep
    assert main(["clean", "mine", f"store={store.root}", "--orphans", "--yes"]) == BAD_INPUT
    assert "nobody knows which runs belong to no plan" in capsys.readouterr().err
    assert len(checkpoints(store)) == 5
    plan.unlink()
    assert main(["clean", "mine", f"store={store.root}", "--orphans", "--yes"]) == DONE
    assert not orphan.path.exists()
    assert f"  {orphan.path.name}  done" in capsys.readouterr().out
    assert len(list(store.root.glob("runs/*/curve.jsonl"))) == 4


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", 3), (b"n\n", 5), (b"\n", 5)])
def test_clean_asks_on_a_terminal(answer: bytes, left: int, store: Store) -> None:
    keyboard, theirs = pty.openpty()
    command = [sys.executable, "-m", "sweep", "clean", "mine", f"store={store.root}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    os.write(keyboard, answer)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == DONE
    assert b"delete that? [y/N]" in shown
    assert len(checkpoints(store)) == left
