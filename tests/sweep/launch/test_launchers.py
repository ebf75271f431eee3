"""The interface of launchers: a new one is a class and a yaml, and what one has taken can be seen and cancelled."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from sweep.claim import Owner, _started
from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.launch import launchers
from sweep.launch.launchers import Launch, Launcher, Queued, Watch
from sweep.launch.record import RecordedStop, recorded
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from tests.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).resolve().parents[3]
LONG = [
    "grid=list",
    "grid.runs=[{N: 3000, D: 4e7}, {N: 5000, D: 4e7}, {N: 8000, D: 4e7}]",
    "model=tiny",
    "data=text",
    "name=mine",
]
LONG += ["data.validation_tokens=4096", "data.max_epochs=1000"]


class Notebook(Launcher):
    """Writes down which runs it was given."""

    name = "notebook"

    def submit(self, runs: Sequence[RunConfig], launch: Launch, watch: Watch) -> str:
        path = launch.store.root / launch.cluster.options["file"]
        with open(path, "a") as file:
            file.writelines(f"{run.run_id}\n" for run in runs)
        return f"wrote down {len(runs)} runs"

    def queued(self, store: Store) -> dict[str, Queued]:
        found = store.root.glob("notebook.txt")
        return {run_id: Queued(where="the notebook", state="open") for path in found for run_id in path.read_text().split()}

    def cancel(self, store: Store, run_ids: Collection[str]) -> str:
        (store.root / "notebook.txt").unlink()
        return f"crossed out {len(run_ids)} runs"

    def logs(self, store: Store, run_id: str) -> list[Path]:
        return [store.root / "notebook.txt"]


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[list[str]]:
    """Overrides that choose `Notebook`, from a folder like conf/; it is registered by its definition, and only for a test."""
    (tmp_path / "conf" / "cluster").mkdir(parents=True)
    (tmp_path / "conf" / "cluster" / "notebook.yaml").write_text("launcher: notebook\noptions: {file: notebook.txt}\n")
    launchers._registered["notebook"] = Notebook()
    yield ["--config-dir", str(tmp_path / "conf"), "cluster=notebook"]
    del launchers._registered["notebook"]


launchers._registered.pop("notebook")


def test_a_launcher_is_a_class_and_a_yaml(
    notebook: list[str],
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # the notes are the first column that a narrow screen leaves out
    store = f"store={tmp_path / 'store'}"
    sweep = [*LONG, f"data.paths=[{text_file}]", store]
    assert main(["launch", *sweep, *notebook]) == DONE
    assert "3 runs, 0 finished before, 0 queued or running, 3 to train on" in (told := capsys.readouterr().out)
    assert "wrote down 3 runs" in told
    assert main(["launch", *sweep, *notebook]) == DONE
    assert "3 queued or running, 0 to train" in capsys.readouterr().out
    assert main(["status", "mine", store]) == DONE
    assert (shown := capsys.readouterr().out).count("the notebook, open") == 3
    assert "3 queued" in shown
    assert main(["cancel", "mine", store]) == DONE
    assert capsys.readouterr().out == "crossed out 3 runs\n"


def test_an_unknown_launcher_is_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "cluster.launcher=pbs", f"store={tmp_path / 'store'}"]) == BAD_INPUT
    assert "cluster.launcher=pbs is none of local, slurm" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_no_launcher_imports_torch() -> None:
    code = "import sys; from sweep.launch import launchers; launchers.of('local'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_cancel_stops_a_local_launch_and_not_only_its_workers(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    sweep = [
        *LONG,
        f"data.paths=[{text_file}]",
        "cluster.workers=1",
        "cluster.log_interval_s=0.1",
        "runtime.compile=off",
        "name=mine",
    ]
    command = [sys.executable, "-m", "sweep", "launch", *sweep, f"store={store.root}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as launch:
        wait_until(lambda: launch.poll() is not None or list(store.root.glob("runs/*/throughput.jsonl")))
        (begun,) = (path.parent.name for path in store.root.glob("runs/*/throughput.jsonl"))
        assert main(["status", "mine", f"store={store.root}"]) == DONE
        assert "2 queued, 1 running" in capsys.readouterr().out
        workers = psutil.Process(launch.pid).children(recursive=True)
        assert main(["cancel", "mine", f"store={store.root}"]) == DONE
        assert f"told process {launch.pid} on" in capsys.readouterr().out
        printed, _ = launch.communicate(timeout=PATIENCE_S)
        assert launch.returncode == 1
    assert "2 waiting, 1 interrupted" in printed
    assert not psutil.wait_procs(workers, timeout=PATIENCE_S)[1]
    assert store.run(begun).status()["state"] == states.INTERRUPTED
    assert store.run(begun).status()["step"] > 0
    assert list(store.launches.iterdir()) == []
    assert main(["cancel", "mine", f"store={store.root}"]) == DONE
    assert capsys.readouterr().out == "nothing was queued or running\n"

    step = store.run(begun).status()["step"]
    alone = [sys.executable, "-m", "sweep", "train", begun, f"store={store.root}", "runtime.compile=off", "device=cpu"]
    with subprocess.Popen(alone, cwd=ROOT, stdout=subprocess.DEVNULL) as training:  # a process that trains this run only
        wait_until(lambda: training.poll() is not None or store.run(begun).status()["step"] > step)
        assert main(["cancel", "mine", f"store={store.root}"]) == DONE
        assert f"told process {training.pid} on" in capsys.readouterr().out
        assert training.wait(timeout=PATIENCE_S) == 1
    assert store.run(begun).status()["state"] == states.INTERRUPTED


def test_cancel_signals_no_process_that_a_file_names(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], notebook: list[str]
) -> None:
    """Claims of a launch and of a run that name a process of this user, which has nothing to do with isosweep."""
    store = Store(tmp_path / "store")
    assert main(["launch", *LONG, f"data.paths=[{text_file}]", f"store={store.root}", *notebook]) == DONE
    run_id, other = (store.root / "notebook.txt").read_text().split()[:2]
    with subprocess.Popen(["sleep", "600"]) as victim:
        forged = replace(Owner.here(), pid=victim.pid, started=_started(victim.pid))
        for claim in (store.launches / "forged" / "claim", store.run(other).path / "claim"):
            claim.mkdir(parents=True)
            (claim / "00000001.json").write_text(json.dumps(asdict(forged)))
        (store.launches / "forged" / "runs.json").write_text(json.dumps([run_id]))
        assert main(["cancel", "mine", f"store={store.root}"]) == DONE
        assert "1 run in training by processes that keep no record here" in capsys.readouterr().out
        with pytest.raises(subprocess.TimeoutExpired):
            victim.wait(timeout=0.5)
        victim.kill()


def test_the_record_of_a_launch_that_was_killed_is_ignored_and_removed(tiny_run: RunConfig, tmp_path: Path) -> None:
    store = Store(tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from sweep.store import Store\n"
        "from sweep.launch.record import RecordedStop, recorded\n"
        "store = Store(Path(sys.argv[1])); run = store.run(sys.argv[2]).config()\n"
        "record = recorded([run], store, RecordedStop()); record.__enter__(); os._exit(1)"
    )
    store.run(tiny_run.run_id).create(tiny_run)
    subprocess.run([sys.executable, "-c", code, str(tmp_path), tiny_run.run_id], cwd=ROOT, env=os.environ)
    assert len(list(store.launches.iterdir())) == 1
    assert launchers.queued(store) == {}
    with recorded([tiny_run], store, RecordedStop()):
        assert set(launchers.queued(store)) == {tiny_run.run_id}
        assert len(list(store.launches.iterdir())) == 1
    assert launchers.queued(store) == {}
