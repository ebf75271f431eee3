"""A body of a user's own: run only where that is allowed, known by its source, and trained from the store's copy."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models.own import CLASSES, measured
from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.config import ClusterConfig, SlurmConfig
from sweep.data import Corpus
from sweep.launch.launchers import Launch
from sweep.launch.task import Task, write_tasks
from sweep.plan import code
from sweep.plan.run import RunConfig
from sweep.store import Store, states

BODY = """
import torch
from torch import nn

class Averages(nn.Module):
    '''Adds to each token a projection of the running mean.'''
    def __init__(self, config):
        super().__init__()
        self.mix = nn.ModuleList(nn.Linear(config.d_model, config.d_model, bias=False) for _ in range(config.n_layers))

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        for mix in self.mix:
            x = x + torch.tanh(mix(x.cumsum(dim=1) / count))
        return x

class Peeks(Averages):
    def forward(self, x):
        return x + x.mean(dim=1, keepdim=True)

class Narrow(Averages):
    def forward(self, x):
        return x[..., :2]

class Broken(Averages):
    def forward(self, x):
        return x @ torch.ones(3, 3)

class NotAModule:
    pass

text = "a string"
"""
SMALL = ["grid=list", "grid.runs=[{N: 5e3, D: 3e4}]", "device=cpu", "data.validation_tokens=4096", "cluster.workers=1"]


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setenv(code.ALLOWED, "")  # so that it is put back
    monkeypatch.delenv(code.ALLOWED)
    monkeypatch.setattr(code, "_sources", {})
    CLASSES.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(BODY)
    return path


def launch(store: Path, body: str, *more: str) -> int:
    try:
        return main(["launch", f"store={store}", f"model.body={body}", *SMALL, *more])
    finally:
        os.environ.pop(code.ALLOWED, None)


def test_it_is_planned_trained_and_evaluated(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert launch(store, f"{file}:Averages", "--allow-code") == DONE
    (run,) = json.loads((store / "sweeps/sweep/plan.json").read_text())["runs"]
    model = run["run"]["model"]
    name, _, digits = model["body"].partition("@")
    assert (name, len(digits)) == ("Averages", 16)
    assert (store / "code" / f"{digits}.py").read_text() == BODY
    d, layers = model["d_model"], model["n_layers"]
    assert (model["body_parameters"], model["body_flops"]) == (layers * d * d, layers * 2 * d * d)
    (status,) = store.glob("runs/*/status.json")
    assert json.loads(status.read_text())["state"] == "done"
    file.unlink()  # a launched sweep needs the store alone
    assert main(["status", "sweep", f"store={store}"]) == DONE
    CLASSES.clear()
    capsys.readouterr()
    assert main(["evaluate", "sweep", f"store={store}"]) == BAD_INPUT
    assert "give --allow-code to run it" in capsys.readouterr().err
    assert main(["evaluate", "sweep", f"store={store}", "--allow-code"]) == DONE


def test_a_task_of_slurm_runs_it_if_the_launch_might(
    file: Path, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    code.allow(store.root)
    body = code.adopt(f"{file}:Averages")
    shape = measured(replace(tiny_run.model, body=body))
    code.keep([shape], store.root)
    cluster = ClusterConfig(launcher="slurm", slurm=SlurmConfig())
    launch = Launch(name="x", store=store, corpus=corpus.directory, device="cpu", cluster=cluster)
    ends = []
    for place, seed in ((tmp_path / "allowed", 0), (tmp_path / "not", 1)):
        place.mkdir()
        run = replace(tiny_run, model=shape, seed=seed)
        write_tasks(place, [Task(runs=(run,), seconds=None)], launch)
        outside = {key: value for key, value in os.environ.items() if key != code.ALLOWED}  # sbatch may pass nothing on
        subprocess.run([sys.executable, "-m", "sweep", "task", str(place), "0"], env=outside, check=False)
        ends.append(store.run(run.run_id).status())
        monkeypatch.delenv(code.ALLOWED, raising=False)  # the second submission is of a launch without the flag
    assert ends[0]["state"] == states.DONE
    assert ends[1]["state"] == states.FAILED
    assert "give --allow-code to run it" in ends[1]["error"]


def test_nothing_runs_without_the_flag(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    witness = tmp_path / "ran"
    file.write_text(f"open({str(witness)!r}, 'w')\n{BODY}")
    assert launch(tmp_path / "store", f"{file}:Averages") == BAD_INPUT
    assert f"model.body={file}:Averages is code: read it, and give --allow-code to run it" in capsys.readouterr().err
    assert not witness.exists()


def test_the_source_is_part_of_the_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code.allow(tmp_path)
    name = code.adopt(f"{file}:Averages")
    monkeypatch.chdir(tmp_path)
    assert code.adopt("mine:Averages") == name  # wherever the file is
    file.write_text(BODY.replace("tanh", "sigmoid"))
    assert code.adopt(f"{file}:Averages") != name
    assert code.adopt("lstm") == "lstm"


def test_a_changed_copy_is_not_run(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert launch(store, f"{file}:Averages", "--allow-code") == DONE
    (copy,) = (store / "code").iterdir()
    copy.write_text(BODY + "\n")
    CLASSES.clear()
    assert main(["evaluate", "sweep", f"store={store}", "--allow-code"]) == BAD_INPUT
    assert f"{copy} is not what model.body=Averages@" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("mine.py:Peeks", "sees later tokens"),
        ("mine.py:Narrow", "does not return the shape of its input"),
        ("mine.py:Broken", "fails (RuntimeError: "),
        ("mine.py:NotAModule", "is not a torch.nn.Module"),
        ("mine.py:text", "is not a torch.nn.Module"),
        ("mine.py:Absent", "there is no Absent in mine.py; name FILE.py:Class"),
        ("other.py:Averages", "other.py cannot be read (No such file or directory); name FILE.py:Class"),
        ("folder.other:Averages", "folder/other.py cannot be read"),
        ("wrong.py:Averages", "wrong.py fails (ZeroDivisionError: division by zero); correct it"),
    ],
)
def test_what_is_no_body(
    body: str, message: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.py").write_text("1 / 0")
    assert launch(tmp_path / "store", body, "--allow-code") == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
