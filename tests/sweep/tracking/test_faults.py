"""Whatever is killed, down, slow, hanging, full or not there: training does not notice, and no step is lost or doubled."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.data import Corpus
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.tracking.mirror import Mirror
from sweep.tracking.process import is_mirrored
from sweep.train.events import Outcome
from sweep.train.loop import Runtime, train
from tests.sweep.tracking.mirrored import AUTO, OFFLINE, ONLINE, assert_mirrors, send, train_mirrored, wandb_sync
from tests.sweep.tracking.wandb_server import WandbServer
from tests.waiting import PATIENCE_S, wait_until

pytest.importorskip("wandb")

LAUNCH = """
import os, signal, sys, time
from pathlib import Path
import psutil
from sweep.data import Corpus
from sweep.train.events import Outcome
from sweep.store import Store
from sweep.tracking import Tracker
from sweep.tracking.mirror import Mirror
from sweep.train.loop import Runtime, train
store, corpus, run_id, mode, victim, step, begun = sys.argv[1:]

def kill():
    mirror_process = psutil.Process(mirror._process.pid)
    services = [child for child in mirror_process.children(recursive=True) if "wandb-core" in child.name()]
    {"launch": [psutil.Process()], "mirror": [mirror_process], "service": services}[victim][0].kill()

if __name__ == "__main__":
    directory = Store(Path(store)).run(run_id)
    tracker = Tracker(project="p", group="g", mode=mode, timeout_s=60)
    killed = False
    with Mirror(tracker, Store(Path(store))) as mirror:
        def report(progress):
            global killed
            mirror(progress)
            if progress.step >= int(step) and not killed:
                deadline = time.monotonic() + 60
                while int(begun) and not list(directory.path.glob("wandb/*run-*")) and time.monotonic() < deadline:
                    time.sleep(0.05)
                time.sleep(int(begun))
                killed = True
                kill()
        runtime = Runtime(log_interval_s=0.05, checkpoint_interval_s=0.1)
        state = train(directory.config(), Corpus.open(Path(corpus)), directory, runtime, on_progress=report)
        mirror(Outcome(run_id=run_id, state=state))
    print(mirror.warnings)
"""


def launch_and_kill(store: Store, corpus: Corpus, run: RunConfig, mode: str, victim: str, step: int, begun: int) -> str:
    """Launch a run, and kill something at a step, if `begun` only that many seconds after wandb's run has begun."""
    script = store.root / "launch.py"
    script.write_text(LAUNCH)
    arguments = [str(store.root), str(corpus.directory), run.run_id, mode, victim, str(step), str(begun)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == (-signal.SIGKILL if victim == "launch" else 0), done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_killed_at_any_point_no_step_is_lost_or_doubled(
    mode: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    run, store, tracker = replace(tiny_run, steps=1000), Store(tmp_path), replace(OFFLINE, mode=mode)
    directory = store.run(run.run_id)
    directory.create(run)
    online = int(mode == "online")
    for victim, step, begun in (("launch", 200, 0), ("launch", 400, 2 * online), ("mirror", 800, 2 * online)):
        launch_and_kill(store, corpus, run, mode, victim, step, begun)
    assert directory.status()["state"] == states.DONE  # only the mirror was killed last
    assert not is_mirrored(directory, tracker)
    assert send(directory, tracker, store).warnings == []
    assert is_mirrored(directory, tracker)
    assert server.conflicts == []
    assert_mirrors(server.history[run.run_id] if online else wandb_sync(directory), directory)


@pytest.mark.slow
def test_wandbs_own_service_is_killed(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer) -> None:
    run, store = replace(tiny_run, steps=1000), Store(tmp_path)
    directory = store.run(run.run_id)
    directory.create(run)
    assert launch_and_kill(store, corpus, run, "online", "service", 400, 1).count("[") == 1
    assert directory.status()["state"] == states.DONE
    assert not is_mirrored(directory, ONLINE)
    assert send(directory, ONLINE, store).delivered == {"online": 1}
    assert_mirrors(server.history[run.run_id], directory)
    assert server.conflicts == []


def train_through(
    fault: str, server: WandbServer, run: RunConfig, corpus: Corpus, store: Store, *, timeout_s: float, seconds: float
) -> Mirror:
    """Train a run during which the server, once it has rows, has a fault for so many seconds."""

    def trouble() -> None:
        wait_until(lambda: server.rows_received)
        server.fault = fault
        time.sleep(seconds)
        server.fault = None

    thread = threading.Thread(target=trouble, daemon=True)
    thread.start()

    def wait(step: int) -> bool:
        # A hundred steps may take less than the interval of the log: later ones take longer, until there are rows to receive.
        if step >= 100 and thread.is_alive() and not server.fault:
            time.sleep(0.03)
        if step == run.steps - 1:
            wait_until(lambda: server.fault or not thread.is_alive())
        return False

    with Mirror(replace(ONLINE, timeout_s=timeout_s), store) as mirror:
        directory = store.run(run.run_id)
        runtime = Runtime(log_interval_s=0.02, checkpoint_interval_s=0.02)
        state = train(run, corpus, directory, runtime, on_progress=mirror, should_stop=wait)
        mirror(Outcome(run_id=run.run_id, state=state))
        assert state == states.DONE
    return mirror


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["down", "hang", "slow"])
def test_a_server_that_comes_back_gets_everything(
    fault: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    run, store = replace(tiny_run, steps=400), Store(tmp_path)
    mirror = train_through(fault, server, run, corpus, store, timeout_s=PATIENCE_S, seconds=4)
    assert (mirror.warnings, mirror.delivered) == ([], {"online": 1})
    assert_mirrors(server.history[run.run_id], store.run(run.run_id))
    assert server.conflicts == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["down", "hang", "refuse"])
def test_a_server_that_does_not_come_back_is_one_line_and_gets_the_rest_later(
    fault: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    run, store = replace(tiny_run, steps=400), Store(tmp_path)
    directory = store.run(run.run_id)
    mirror = train_through(fault, server, run, corpus, store, timeout_s=8, seconds=600)
    assert len(mirror.warnings) == 1
    assert not is_mirrored(directory, ONLINE)
    server.fault = None
    assert send(directory, ONLINE, store).delivered == {"online": 1}
    assert_mirrors(server.history[run.run_id], directory)
    assert server.conflicts == []


@pytest.mark.parametrize("fault", ["down", "hang"])
def test_without_a_server_to_begin_with_a_launch_is_offline(
    fault: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    server.fault = fault
    store = Store(tmp_path)
    told: list[str] = []
    mirror = train_mirrored(tiny_run, corpus, store, AUTO, warn=told.append)
    assert mirror.delivered == {"offline": 1}
    assert len(told) == 1
    assert "mirroring offline" in told[0]
    server.fault = None
    directory = store.run(tiny_run.run_id)
    assert send(directory, ONLINE, store).delivered == {"online": 1}
    assert_mirrors(server.history[tiny_run.run_id], directory)


BROKEN = {
    "missing": ("raise ModuleNotFoundError('no module named wandb')", "ModuleNotFoundError"),
    "raises": ("Settings = dict\ndef login(**_): pass\ndef init(**_): raise ValueError('no such luck')", "no such luck"),
    "hangs": ("import time\ntime.sleep(600)", "had not taken everything after 3 s"),
    "dies": ("import os\nos._exit(7)", "exit code 7"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_wandb_neither_fails_nor_slows_a_run(
    how: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, message = BROKEN[how]
    (tmp_path / "wandb.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)  # a spawned process takes it over
    store = Store(tmp_path)
    told: list[str] = []
    directory = store.run(tiny_run.run_id)
    with Mirror(replace(ONLINE, timeout_s=3 if how == "hangs" else PATIENCE_S), store, told.append) as mirror:
        start = time.monotonic()
        assert train(tiny_run, corpus, directory, Runtime(log_interval_s=0), on_progress=mirror) == states.DONE
        assert time.monotonic() - start < 60  # nobody waited for what sleeps 600 s
        mirror(Outcome(run_id=tiny_run.run_id, state=states.DONE))
        start = time.monotonic()
    assert how != "hangs" or time.monotonic() - start < 60
    assert len(told) == 1
    assert message in told[0]
    assert not is_mirrored(directory, OFFLINE)


def test_a_mirror_that_hangs_holds_up_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
    monkeypatch.syspath_prepend(tmp_path)
    start = time.monotonic()
    with Mirror(replace(ONLINE, timeout_s=1), Store(tmp_path)) as mirror:
        for k in range(5000):  # far more than a pipe holds
            mirror._tell("end", f"{k:016x}")
        assert time.monotonic() - start < 60  # it is stopped for good
    assert time.monotonic() - start < 120
    assert "had not taken everything" in mirror.warnings[0]


def test_a_mirror_that_cannot_start_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(process: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", no_memory)
    with Mirror(OFFLINE, Store(tmp_path)) as mirror:
        mirror._tell("end", "a" * 16)
        mirror(Outcome(run_id="b" * 16, state=states.DONE))
    assert len(mirror.warnings) == 1
    assert "Cannot allocate memory" in mirror.warnings[0]


FULL = """
import sys
from pathlib import Path
from sweep.store import Store
from sweep.tracking import Tracker
from sweep.tracking.mirror import Mirror
if __name__ == "__main__":
    with Mirror(Tracker(project="p", group="g", mode="offline", timeout_s=200), Store(Path(sys.argv[1]))) as mirror:
        mirror.send([sys.argv[2]])
    print(mirror.warnings, dict(mirror.delivered))
"""


def test_a_full_disk_is_noticed(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run, disk = replace(tiny_run, steps=400), tmp_path / "disk"
    disk.mkdir()
    train(run, corpus, Store(tmp_path / "store").run(run.run_id))
    (tmp_path / "full.py").write_text(FULL)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    for size, expected in (("250k", "No space left"), ("40m", "[] {'offline': 1}")):
        shell = f"mount -t tmpfs -o size={size} tmpfs disk && cp -r store/. disk && {sys.executable} full.py disk {run.run_id}"
        command = ["unshare", "-rm", "sh", "-c", shell]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path)
        if "unshare" in done.stderr or "mount" in done.stderr:
            pytest.skip("this user may not mount a small disk")
        assert expected in done.stdout, done.stderr
