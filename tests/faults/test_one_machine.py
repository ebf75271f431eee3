"""The one-machine Slurm does what the tests of launching rely on, and leaves nothing behind."""

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from slurm import one_machine
from slurm.one_machine import NODES, ClusterError, OneMachineCluster
from tests.waiting import PATIENCE_S, wait_until


def submit(slurm: OneMachineCluster, directory: Path, script: str, *options: str) -> str:
    """The id of a job that runs `script`. What it prints is appended to `directory`/out; Slurm's own messages go to err."""
    path = directory / "job.sh"
    path.write_text(f"#!/bin/bash\n{script}\n")
    files = (f"--output={directory}/out", f"--error={directory}/err", "--open-mode=append")
    return slurm.run("sbatch", "--parsable", *files, *options, str(path))


def printed(directory: Path) -> list[str]:
    return (directory / "out").read_text().splitlines() if (directory / "out").exists() else []


def wait_for_states(slurm: OneMachineCluster, job: str, state: str) -> None:
    wait_until(lambda: set(slurm.job_states(job)) == {state})


@pytest.fixture(scope="module", autouse=True)
def timed_job(
    slurm: OneMachineCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OneMachineCluster, str, Path]]:
    """A job that asked for a signal 20 s before its limit of a minute, the shortest, in a cluster of its own. Slurm sends it up
    to half a minute early; the other tests run meanwhile, so this one is begun first and looked at last."""
    directory = tmp_path_factory.mktemp("timed")
    with OneMachineCluster() as beside:
        script = "trap 'echo signalled after $SECONDS s; exit' USR1; sleep 300 & wait"
        yield beside, submit(beside, directory, script, "--time=1", "--signal=B:USR1@20"), directory


def test_an_array_runs_every_task_once_and_no_more_than_its_throttle_together(
    clean_slurm: OneMachineCluster, tmp_path: Path
) -> None:
    three_began = f"until [ $(grep -c begin {tmp_path}/out) -ge 3 ]; do sleep 0.1; done"  # however slowly tasks start
    script = f"echo begin $SLURM_ARRAY_TASK_ID; {three_began}; sleep 0.5; echo end $SLURM_ARRAY_TASK_ID"
    job = submit(clean_slurm, tmp_path, script, "--array=0-8%3")
    wait_for_states(clean_slurm, job, "COMPLETED")
    events = [line.split() for line in printed(tmp_path)]
    assert sorted(int(task) for event, task in events if event == "begin") == list(range(9))
    running = [0]
    for event, _ in events:
        running.append(running[-1] + (1 if event == "begin" else -1))
    assert max(running) == 3  # of the four CPUs


def test_each_task_sees_a_gpu_of_its_own(clean_slurm: OneMachineCluster, tmp_path: Path) -> None:
    all_began = f"until [ $(wc -l < {tmp_path}/out) = 4 ]; do sleep 0.1; done"  # no task inherits another's GPU
    script = f"echo $SLURMD_NODENAME ${{CUDA_VISIBLE_DEVICES-none}}; {all_began}"
    job = submit(clean_slurm, tmp_path, script, "--array=0-3", "--gres=gpu:1")
    wait_for_states(clean_slurm, job, "COMPLETED")
    assert sorted(printed(tmp_path)) == ["n1 0", "n1 1", "n2 0", "n2 1"]


RESUMES = """
echo count ${SLURM_RESTART_COUNT-none} on $SLURMD_NODENAME pid $$
trap 'echo signalled after $SECONDS' USR1
[ -n "$SLURM_RESTART_COUNT" ] || for i in {1..3000}; do sleep 0.1; done
"""  # the first time it runs five minutes, and goes on after a signal


def test_a_requeued_job_runs_again_and_can_tell(clean_slurm: OneMachineCluster, tmp_path: Path) -> None:
    job = submit(clean_slurm, tmp_path, RESUMES)
    wait_until(lambda: len(printed(tmp_path)) == 1)
    clean_slurm.run("scontrol", "requeue", job)
    wait_for_states(clean_slurm, job, "COMPLETED")
    assert [line.split()[1] for line in printed(tmp_path)] == ["none", "1"]


def test_a_job_of_higher_priority_preempts_one_which_is_warned_and_requeued(
    clean_slurm: OneMachineCluster, tmp_path: Path
) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    low.mkdir()
    high.mkdir()
    job = submit(clean_slurm, low, RESUMES, "--nodes=2", "--exclusive", "--signal=B:USR1@10")
    wait_until(lambda: len(printed(low)) == 1)
    urgent = submit(clean_slurm, high, "echo here", "--partition=high")
    wait_for_states(clean_slurm, urgent, "COMPLETED")
    wait_for_states(clean_slurm, job, "COMPLETED")
    first, warning, second = printed(low)
    assert (first.split()[1], warning.split()[0], second.split()[1]) == ("none", "signalled", "1")


def test_the_job_of_a_dead_node_runs_again_on_the_other(clean_slurm: OneMachineCluster, tmp_path: Path) -> None:
    job = submit(clean_slurm, tmp_path, RESUMES)
    wait_until(lambda: len(printed(tmp_path)) == 1)
    dead = printed(tmp_path)[0].split()[3]
    clean_slurm.kill_node(dead)
    try:
        wait_until(lambda: clean_slurm.node_state(dead) == "down*")
        wait_for_states(clean_slurm, job, "COMPLETED")
        first, second = (line.split() for line in printed(tmp_path))
        assert second[1] == "1"
        assert {first[3], second[3]} == set(NODES)
        assert psutil.pid_exists(int(first[5]))  # for a while there were two of it, and nobody had told the first
    finally:
        clean_slurm.start_node(dead)
    wait_until(lambda: clean_slurm.node_state(dead) == "idle")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_its_owner_ends(end: int, slurm: OneMachineCluster, tmp_path: Path) -> None:
    """From a shell, beside another cluster, with a job whose process has left its parents."""
    owner = subprocess.Popen([sys.executable, one_machine.__file__], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    conf = Path(owner.stdout.readline().strip().removeprefix("export SLURM_CONF="))
    (tmp_path / "job.sh").write_text("#!/bin/bash\n(setsid sleep 300 & echo $!)\nsleep 300\n")
    environment = slurm.environment | {"SLURM_CONF": str(conf)}
    subprocess.run(["sbatch", f"--output={tmp_path}/out", str(tmp_path / "job.sh")], env=environment, check=True)
    wait_until(lambda: len(printed(tmp_path)) == 1)
    (sleeper,) = map(int, printed(tmp_path))
    assert psutil.pid_exists(sleeper)
    assert len(running_from(conf.parent)) >= 5  # keeper, munged, slurmctld, two slurmds

    owner.send_signal(end)
    assert owner.wait(timeout=PATIENCE_S) == (0 if end == signal.SIGINT else -end)
    wait_until(lambda: not conf.parent.exists())
    wait_until(lambda: not running_from(conf.parent))  # the keeper removes the directory, and then ends
    assert not psutil.pid_exists(sleeper)
    wait_for_nodes(slurm)


def wait_for_nodes(cluster: OneMachineCluster) -> None:
    wait_until(lambda: {cluster.node_state(name) for name in NODES} == {"idle"})


def running_from(root: Path) -> list[str]:
    commands = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [command for command in commands if str(root) in command]


def test_a_given_directory_is_kept_and_serves_again() -> None:
    with tempfile.TemporaryDirectory(prefix="is-") as directory:
        for _ in range(2):
            with OneMachineCluster(Path(directory)) as cluster:
                wait_for_nodes(cluster)
            assert running_from(cluster.root) == []
            assert "slurmctld version" in (cluster.root / "log" / "slurmctld.log").read_text()


def test_a_daemon_that_does_not_come_up_is_one_line_with_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(one_machine, "free_ports", lambda number: [taken.getsockname()[1]] * number)
        cluster = OneMachineCluster()
        with pytest.raises(ClusterError, match=r"^slurmctld ended with exit code 1: .*Address already in use.*$"):
            cluster.start()
    assert not cluster.root.exists()
    assert running_from(cluster.root) == []


def test_what_cannot_be_done_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="not started"):
        OneMachineCluster().kill_node("n1")
    monkeypatch.setattr(one_machine, "PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="Slurm is not installed: no munged, slurmctld"):
        OneMachineCluster().start()


def test_refusals_of_a_running_cluster(slurm: OneMachineCluster) -> None:
    with pytest.raises(ClusterError, match="n1 runs already"):
        slurm.start_node("n1")
    with pytest.raises(ClusterError, match="no node is called n3; there are n1, n2"):
        slurm.kill_node("n3")
    with pytest.raises(ClusterError, match=r"sbatch --nope: .*unrecognized option"):
        slurm.run("sbatch", "--nope")
    with pytest.raises(ClusterError, match="too long for Unix sockets"):
        OneMachineCluster(Path("/tmp") / ("x" * 60)).start()


def test_the_batch_script_gets_the_signal_it_asked_for_before_its_time_is_up(
    timed_job: tuple[OneMachineCluster, str, Path],
) -> None:
    cluster, job, directory = timed_job
    wait_for_states(cluster, job, "COMPLETED")
    (line,) = printed(directory)
    assert line.startswith("signalled after")
    assert int(line.split()[2]) < 60
