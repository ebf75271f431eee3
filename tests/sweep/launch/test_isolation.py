"""A working directory with modules of the same names as ours, or as Python's own, changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.config import ClusterConfig, SlurmConfig
from sweep.data import Corpus
from sweep.launch.launchers import Launch
from sweep.launch.slurm import script
from sweep.launch.task import Task, write_tasks
from sweep.plan.run import RunConfig
from sweep.store import Store, states

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "raise RuntimeError('imported from the working directory')\n"
GRID = ["grid=list", "grid.runs=[{N: 3000, D: 2e4}, {N: 5000, D: 2e4}]", "model=tiny", "data.validation_tokens=4096"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory whose models/, sweep.py and pickle.py must never be imported."""
    directory = tmp_path / "hostile"
    (directory / "models").mkdir(parents=True)
    (directory / "models" / "__init__.py").write_text(HOSTILE)
    for name in ("sweep.py", "pickle.py"):  # every process that multiprocessing starts imports pickle
        (directory / name).write_text(HOSTILE)
    return directory


@pytest.fixture
def isosweep(tmp_path: Path) -> Path:
    """The console script, as an installation makes it."""
    path = tmp_path / "bin" / "isosweep"
    path.parent.mkdir()
    path.write_text(
        f"#!{sys.executable}\nimport sys\nfrom sweep.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    path.chmod(0o755)
    return path


def run_in(directory: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run(
        command, cwd=directory, env=outside | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True
    )


def test_a_sweep_with_workers_goes_from_plan_to_status(hostile: Path, isosweep: Path, text_file: Path, tmp_path: Path) -> None:
    store = f"store={tmp_path / 'store'}"
    sweep = [*GRID, "data=text", f"data.paths=[{text_file}]", "cluster.workers=2", "name=mine", store]
    for command in (["plan", *sweep], ["launch", *sweep], ["status", "mine", store]):
        done = run_in(hostile, isosweep, *command)
        assert done.returncode == 0, done.stderr
    assert "2 done" in done.stdout


def test_ranks_started_by_torchrun_train_a_run(
    hostile: Path, isosweep: Path, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    directory = store.run(tiny_run.run_id)
    directory.create(tiny_run)
    store.corpora.mkdir()
    (store.corpora / corpus.fingerprint).symlink_to(corpus.directory)
    torchrun = [sys.executable, "-P", "-m", "torch.distributed.run", "--nproc-per-node=2"]
    arguments = ["train", tiny_run.run_id, f"store={store.root}", "device=cpu"]
    done = run_in(hostile, *torchrun, "--no-python", isosweep, *arguments)
    assert done.returncode == 0, done.stderr
    assert directory.status()["state"] == states.DONE
    again = run_in(hostile, *torchrun, "-m", "sweep", *arguments, PYTHONSAFEPATH="1")
    assert again.returncode == 0, again.stderr


def test_a_task_of_slurm_trains_its_runs(hostile: Path, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    cluster = ClusterConfig(launcher="slurm", slurm=SlurmConfig())
    launch = Launch(name="x", store=Store(tmp_path / "store"), corpus=corpus.directory, device="cpu", cluster=cluster)
    (tmp_path / "setup.sh").touch()
    write_tasks(tmp_path, [Task(runs=(tiny_run,), seconds=None)], launch)
    done = run_in(hostile, "bash", script(), tmp_path, sys.executable, SLURM_ARRAY_TASK_ID="0")
    assert done.returncode == 0, done.stderr
    assert launch.store.run(tiny_run.run_id).status()["state"] == states.DONE


@pytest.mark.parametrize("command", [[sys.executable, "-m", "sweep"], ["isosweep"]])
def test_another_package_models_is_one_line(hostile: Path, isosweep: Path, command: list[str]) -> None:
    for name in ("sweep.py", "pickle.py"):
        (hostile / name).unlink()
    path = os.pathsep.join([str(hostile), str(ROOT)])  # what -m does by itself
    done = run_in(hostile, *(isosweep if word == "isosweep" else word for word in command), "plan", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"isosweep: {hostile / 'models' / '__init__.py'} would be imported in place of" in done.stderr
    assert "python -P -m sweep" in done.stderr


def test_an_import_of_the_library_names_the_other_package(hostile: Path) -> None:
    (hostile / "sweep.py").unlink()
    done = run_in(hostile, sys.executable, "-c", "import sweep")
    assert f"ImportError: {hostile / 'models' / '__init__.py'} would be imported in place of" in done.stderr
