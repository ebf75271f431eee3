"""Sweeps on a real Slurm: every run exactly once, whatever happens to its jobs."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from slurm.one_machine import ClusterError, OneMachineCluster
from sweep.cli import main
from sweep.commands.sweeps import plan_sweep
from sweep.config import compose
from sweep.store import RunDirectory, Store, states
from tests.waiting import PATIENCE_S, wait_until

TRAINED_WITHIN_S = 1200  # some seconds of training in all, and Slurm's pauses between jobs
pytestmark = pytest.mark.timeout(1800)

GRID = ["grid.isoflop.budgets=[5e10,1e11,2e11]", "grid.isoflop.sizes=4", "grid.isoflop.span=4"]
SMALL = ["experiment=smoke", *GRID, "data.validation_tokens=8192", "optimizer.batch_tokens=512", "fit.resamples=20"]
LONG = ["experiment=smoke", "grid=list", "grid.isoflop=null", "grid.runs=[{N: 4.9e3, D: 1.2e7}]", "data.validation_tokens=8192"]
LONG += ["data.max_epochs=2", "runtime.compile=off"]  # plain torch takes over a minute
SLURM = [
    "cluster=slurm",
    "cluster.slurm.partition=main",
    "cluster.slurm.cpus_per_task=1",
    "cluster.slurm.task_minutes=0.02",
    "cluster.checkpoint_interval_s=0.5",
    "cluster.log_interval_s=0.1",
]


def isosweep(cluster: OneMachineCluster, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sweep", *arguments],
        env=cluster.environment,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def directories(overrides: list[str]) -> list[RunDirectory]:
    return _directories(tuple(overrides))


@cache  # composing costs a third of a second, and tests ask many times
def _directories(overrides: tuple[str, ...]) -> list[RunDirectory]:
    config = compose(list(overrides))
    planned = plan_sweep(config)[0].runs
    return [Store(Path(config.store)).run(p.run.run_id) for p in planned]


def states_of(overrides: list[str]) -> list[str]:
    return [directory.status()["state"] for directory in directories(overrides)]


def all_done(overrides: list[str]) -> bool:
    return set(states_of(overrides)) == {states.DONE}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sweep, trained here and left in peace."""
    overrides = [*SMALL, f"store={tmp_path_factory.mktemp('clean')}"]
    assert main(["launch", *overrides]) == 0
    return overrides


def assert_exactly_once(overrides: list[str], clean: list[str], tmp_path: Path) -> None:
    """Every run is done, with the very curve of a run that was left in peace; and the fits are the same."""
    for one, other in zip(directories(overrides), directories(clean), strict=True):
        assert one.status()["state"] == states.DONE
        assert one.curve.read_bytes() == other.curve.read_bytes()
    found = []
    for name, of in (("one", overrides), ("other", clean)):
        assert main(["fit", *of, f"out={tmp_path / name}"]) == 0
        found.append(json.loads((tmp_path / name / "fits.json").read_text()))
    assert found[0] == found[1]


def test_a_launch_returns_and_three_at_once_train_every_run_once(
    clean_slurm: OneMachineCluster, clean: list[str], tmp_path: Path
) -> None:
    overrides = [*SMALL, *SLURM, f"store={tmp_path / 'store'}"]
    command = [sys.executable, "-m", "sweep", "launch", *overrides]
    root = Path(__file__).resolve().parents[2]
    isosweep(clean_slurm, "plan", *overrides)
    launches = [subprocess.Popen(command, env=clean_slurm.environment, cwd=root, stdout=subprocess.PIPE) for _ in range(3)]
    assert [launch.wait(timeout=PATIENCE_S) for launch in launches] == [0] * 3
    assert not all_done(overrides)  # it returned before all was trained
    assert "queued or running" in isosweep(clean_slurm, "launch", *overrides)
    shown = isosweep(clean_slurm, "status", *overrides)
    assert "queued" in shown or "running" in shown
    wait_until(lambda: all_done(overrides), TRAINED_WITHIN_S)
    for directory in directories(overrides):
        starts = json.loads((directory.path / "provenance.json").read_text())["starts"]
        assert len(starts) == 1  # whoever came second found it claimed, or done
    assert_exactly_once(overrides, clean, tmp_path)
    assert "12 done" in isosweep(clean_slurm, "status", *overrides)
    run_id = directories(overrides)[0].path.name
    assert f"{run_id} done" in isosweep(clean_slurm, "logs", run_id, f"store={tmp_path / 'store'}")


def test_requeue_preemption_and_a_dead_node_in_the_middle(
    clean_slurm: OneMachineCluster, clean: list[str], tmp_path: Path
) -> None:
    overrides = [*SMALL, *SLURM, f"store={tmp_path / 'store'}"]
    isosweep(clean_slurm, "launch", *overrides)

    def running() -> list[str]:
        return clean_slurm.run("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i %N").splitlines()

    def requeued() -> bool:
        """Whether a running task was sent back; each runs for seconds only, and may end meanwhile."""
        with suppress(ClusterError, IndexError):
            clean_slurm.run("scontrol", "requeue", running()[0].split()[0])
            return True
        return False

    wait_until(lambda: states.RUNNING in states_of(overrides))
    wait_until(requeued)
    wait_until(lambda: running() or all_done(overrides))
    clean_slurm.run("sbatch", "--partition=high", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    time.sleep(4)
    clean_slurm.kill_node("n2")
    try:
        wait_until(lambda: all_done(overrides), TRAINED_WITHIN_S)
    finally:
        clean_slurm.start_node("n2")
    assert_exactly_once(overrides, clean, tmp_path)


def test_a_time_limit_shorter_than_the_run_is_normal(clean_slurm: OneMachineCluster, tmp_path: Path) -> None:
    """One run of over a minute under a limit of one: it stops in time, queues itself again, and goes on where it was."""
    limits = ["cluster.slurm.time_limit_minutes=1", "cluster.slurm.signal_s=25"]
    overrides = [*LONG, *SLURM, *limits, f"store={tmp_path / 'store'}", "name=long"]
    isosweep(clean_slurm, "launch", *overrides)
    (directory,) = directories(overrides)
    wait_until(lambda: directory.status()["state"] == states.DONE, TRAINED_WITHIN_S)
    starts = json.loads((directory.path / "provenance.json").read_text())["starts"]
    assert len(starts) > 1
    steps = [json.loads(line)["step"] for line in directory.curve.read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, directory.config().steps + 1))


def test_labels_are_trained_in_one_array_and_compared(
    clean_slurm: OneMachineCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = ["experiment=smoke", "name=labels", "grid=list", "grid.isoflop=null", "data.validation_tokens=8192"]
    points += ["grid.runs=[{N: 4.9e3, D: 1e5}, {N: 7.9e3, D: 2e5}]"]
    axis = ["axis.vary={schedule.cycle: [1, 5]}", "axis.seeds=[0, 1]"]
    overrides = [*points, *axis, *SLURM, f"store={tmp_path / 'store'}"]
    isosweep(clean_slurm, "launch", *overrides)
    wait_until(lambda: all_done(overrides), TRAINED_WITHIN_S)
    assert "schedule.cycle=5, seed 1" in isosweep(clean_slurm, "status", *overrides)
    planned = plan_sweep(compose(overrides))[0].runs
    assert len(planned) == 8
    for each, directory in zip(planned, directories(overrides), strict=True):
        assert directory.config() == each.run
        assert each.run.schedule.cycle == (5 if "cycle=5" in each.label else 1)
    here = [*points, *axis, f"store={tmp_path / 'here'}"]
    assert main(["launch", *here]) == 0
    for one, other in zip(directories(overrides), directories(here), strict=True):
        assert one.curve.read_bytes() == other.curve.read_bytes()
    capsys.readouterr()
    assert main(["compare", "labels", f"store={tmp_path / 'store'}"]) == 0
    assert "schedule.cycle=5" in capsys.readouterr().out


def test_cancelled_runs_keep_their_checkpoints(clean_slurm: OneMachineCluster, tmp_path: Path) -> None:
    overrides = [*LONG, *SLURM, f"store={tmp_path / 'store'}", "name=long"]
    isosweep(clean_slurm, "launch", *overrides)
    (directory,) = directories(overrides)
    wait_until(lambda: directory.status()["step"] > 0)
    assert "cancelled 1 task of Slurm" in isosweep(clean_slurm, "cancel", *overrides)
    wait_until(lambda: directory.status()["state"] == states.INTERRUPTED)
    wait_until(lambda: not clean_slurm.run("squeue", "--noheader"))
    assert directory.status()["step"] > 0
    assert "interrupted" in isosweep(clean_slurm, "status", *overrides)


def test_arrays_longer_than_the_cluster_allows_are_split(
    slurm: OneMachineCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweep.launch import launchers
    from sweep.launch import slurm as launcher

    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    assert launcher._max_array_tasks() == 10_000
    monkeypatch.setattr(launcher, "_max_array_tasks", lambda: 5)
    overrides = [*SMALL, *SLURM, "cluster.slurm.directives=[--hold]", f"store={tmp_path / 'store'}"]
    assert main(["launch", *overrides]) == 0
    jobs = [json.loads(path.read_text())["job"] for path in tmp_path.glob("store/submissions/*/job.json")]
    assert len(jobs) >= 2
    queue = launchers.queued(Store(tmp_path / "store"))
    assert set(queue) == {directory.path.name for directory in directories(overrides)}
    slurm.run("scancel", *jobs)


def test_what_slurm_refuses_is_one_line(
    slurm: OneMachineCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    overrides = [*SMALL, *SLURM, "cluster.slurm.partition=nowhere", f"store={tmp_path / 'store'}"]
    assert main(["launch", *overrides]) == 2
    assert "sbatch refused" in capsys.readouterr().err
