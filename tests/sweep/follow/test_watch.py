"""The live view: on a pseudo-terminal beside a real launch, off a terminal, and on files that are being written."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sweep.cli import main
from sweep.commands import DONE
from sweep.commands.sweeps import plan_sweep, sweep_folder
from sweep.config import compose
from sweep.follow.screen import BLOCKS, render, sparkline
from sweep.follow.watch import POINTS, Watcher, sample_rows
from sweep.plan.estimate import Speed
from sweep.store import Store
from tests.stores import leave_status
from tests.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).resolve().parents[3]


def sweep_of(text_file: Path, store: Path) -> list[str]:
    """Three budgets of the same four sizes, a second or more each, so that a watcher sees them run on a busy machine."""
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "data.max_epochs=20"]
    grid = ["grid.isoflop.budgets=[1.8e10,2.1e10,2.4e10]", "grid.isoflop.sizes=4", "grid.isoflop.span=6"]
    pool = ["device=cpu", "cluster.workers=1", "cluster.log_interval_s=0.02"]
    return [*data, *grid, *pool, f"store={store}", "name=watched"]


class Screen:
    """`isosweep watch` on a pseudo-terminal, and all that it has written there."""

    def __init__(self, overrides: list[str]) -> None:
        self.keyboard, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 180, 0, 0))

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is its signal

        environment = os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        often = (  # runs are short
            "import sweep.cli, sweep.follow.screen as screen; screen.LOOK_S = 0.25; raise SystemExit(sweep.cli.main())"
        )
        command = [sys.executable, "-c", often, "watch", *overrides]
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=own_terminal
        )
        self.theirs, self.written = theirs, b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while True:
                self.written += os.read(self.keyboard, 65536)

    @property
    def text(self) -> str:
        """What was written, without the colours and moves."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.written.decode(errors="replace")).replace("\r", "")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text or self.process.poll() is not None)
        assert text in self.text, self.text

    def wait_for_the_end(self, last: str) -> None:
        """That of the process, which said `last` and left the terminal as it was."""
        assert self.process.wait(timeout=PATIENCE_S) == 0
        wait_until(lambda: last in self.text)  # the thread may still be reading
        assert termios.tcgetattr(self.theirs) == self.before


def write_plan(overrides: list[str]) -> None:
    """Write the plan down as a launch does, and train nothing."""
    plan, _ = plan_sweep(compose(overrides), overrides=overrides)
    plan.write(sweep_folder(Store(Path(plan.config.store)), plan.config.name))


@contextmanager
def watching(overrides: list[str]) -> Iterator[Screen]:
    screen = Screen(overrides)
    try:
        yield screen
    finally:
        screen.process.kill()
        screen.process.wait()


@pytest.fixture(scope="module")
def watched(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """A sweep that was launched while somebody watched, and what the watcher saw until it ended by itself."""
    overrides = sweep_of(text_file, tmp_path_factory.mktemp("watched"))
    write_plan(overrides)
    with watching(overrides) as screen:
        screen.wait_for("nothing is running")
        assert main(["launch", *overrides]) == DONE
        screen.wait_for_the_end("12 done; 100% of")
        time.sleep(0.2)
        return overrides, screen.text


def test_a_running_sweep_is_shown_as_it_goes(watched: tuple[list[str], str]) -> None:
    _, text = watched
    assert "12 waiting; 0% of" in text
    rates = re.findall(r"1 running at ([\d,]+) tokens/s in all", text)
    assert re.search(r"1 running.* of a device used, .+ left; the sweep is done in \d", text)
    assert max(int(rate.replace(",", "")) for rate in rates) > 1000
    curve = max(re.findall(rf"\d+% +\d\.\d{{3}} +([{BLOCKS}]+) +[\d,]+ ", text), key=len)
    assert len(curve) > 3
    assert curve[0] == BLOCKS[-1]  # of a loss that falls
    assert BLOCKS.index(curve[-1]) < 4
    assert re.search(rf"[123]/4 +[·{BLOCKS}]{{4}} ", text)  # a valley half done
    assert "a valley needs 3 sizes" in text


def test_the_end_is_left_on_the_terminal(watched: tuple[list[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    overrides, text = watched
    last = text[text.rindex("watched in") :]
    assert "12 done; 100% of" in last
    assert re.search(rf"2.4e\+10 +4/4 +[{BLOCKS}]{{4}} ", last)
    capsys.readouterr()
    assert main(["watch", *overrides]) == DONE  # off a terminal: once, and the same
    once = capsys.readouterr().out
    assert [line.split() for line in once.splitlines()] == [line.split() for line in last.splitlines()]


def test_minima_are_those_of_the_fit(watched: tuple[list[str], str], tmp_path: Path) -> None:
    overrides, _ = watched
    config = compose(overrides)
    snapshot = Watcher(plan_sweep(config)[0], Store(Path(config.store)), config.fit).look()
    main(["fit", *overrides, f"out={tmp_path}", "fit.resamples=0"])
    isoflop = json.loads((tmp_path / "fits.json").read_text())["isoflop"]
    for valley, profile in zip(snapshot.valleys, isoflop["profiles"], strict=True):
        assert valley.profile.status == profile["status"]
        if profile["status"] == "converged":
            assert valley.profile.N_opt == pytest.approx(profile["N_opt"], rel=1e-9)
    assert (snapshot.a is None) == ("a" not in isoflop)
    if snapshot.a is not None:
        assert snapshot.a.value == pytest.approx(isoflop["a"]["value"], rel=1e-6)


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_q_and_control_c_leave_it(key: bytes, text_file: Path, tmp_path: Path) -> None:
    overrides = sweep_of(text_file, tmp_path / "none")
    write_plan(overrides)
    with watching(overrides) as screen:
        screen.wait_for("q leaves; the runs go on")
        os.write(screen.keyboard, key)
        screen.wait_for_the_end("isosweep launch trains what is not done: 12 runs")
        assert "Traceback" not in screen.text


def test_a_look_at_a_finished_sweep_reads_no_curve(watched: tuple[list[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(watched[0])
    watcher = Watcher(plan_sweep(config)[0], Store(Path(config.store)), config.fit)
    first = watcher.look()
    opened: list[str] = []
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
    opened.clear()
    assert watcher.look() == first
    assert not [path for path in opened if str(config.store) in path]


def test_files_that_are_being_written_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    path = tmp_path / "throughput.jsonl"
    assert sample_rows(path) == []
    path.write_text("")
    assert sample_rows(path) == []
    path.write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "lo')
    assert [row["step"] for row in sample_rows(path)] == [1]
    with open(path, "w") as file:
        for step in range(1, 100_001):
            file.write(json.dumps({"step": step, "loss": 10 / step**0.1, "tokens_per_s": 1000.0, "mfu": 0.1}) + "\n")
    steps = [row["step"] for row in sample_rows(path)]
    assert len(steps) > POINTS / 2
    assert steps[0] < 10
    assert steps[-1] == 100_000
    assert steps == sorted(set(steps))
    with open(path, "a") as file:  # a checkpoint was taken up: these steps are taken again
        for step in range(50_000, 60_000):
            file.write(json.dumps({"step": step, "loss": 1.0, "tokens_per_s": 1000.0}) + "\n")
        file.write('{"step": 60000, "lo')
    again = [row["step"] for row in sample_rows(path)]
    assert again[-1] == 59_999
    assert again == sorted(set(again))
    start = time.process_time()
    for _ in range(20):
        sample_rows(path)
    assert (time.process_time() - start) / 20 < 0.02  # of eight megabytes


def test_sparklines() -> None:
    assert sparkline([8, 4, 2, 1]) == "█▆▃▁"
    assert sparkline([None, 1, None]) == "·▁·"
    assert sparkline([]) == ""


def test_what_fails_and_what_waits_is_told(text_file: Path, tmp_path: Path) -> None:
    overrides = sweep_of(text_file, tmp_path / "store")
    config = compose(overrides)
    plan, store = plan_sweep(config)[0], Store(tmp_path / "store")
    planned = plan.runs
    first = store.run(planned[0].run.run_id)
    first.create(planned[0].run)
    leave_status(first, "failed", step=3, steps=39, error="ValueError: it broke")
    watcher = Watcher(plan, store, config.fit)
    snapshot = watcher.look()
    assert not snapshot.over
    assert not snapshot.going
    assert snapshot.seconds_left == pytest.approx(sum(watcher.speed.seconds(p.run) or 0 for p in planned[1:]))
    assert isinstance(watcher.speed, Speed)
    from rich.console import Console

    console = Console(width=140)
    with console.capture() as capture:
        console.print(render(snapshot, "title", 140))
    assert f"{planned[0].run.run_id} failed: ValueError: it broke" in capture.get()
    assert "0/4" in capture.get()
