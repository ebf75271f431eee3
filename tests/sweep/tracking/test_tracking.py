"""The wandb mirror: the real package, read back; kills at any point; a wandb that is down, slow, broken or not there."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE, SOME_RUNS_FAILED
from sweep.config import ClusterConfig, SlurmConfig, compose
from sweep.data import Corpus
from sweep.fit import LawError, read_curves, read_frame, runs_from_frame
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.store.claim import Claim
from sweep.tracking.mirror import Mirror, Tracker, is_mirrored
from sweep.train.events import Outcome
from sweep.train.loop import Runtime, train
from tests.sweep.tracking.wandb_server import KEY, WandbServer, wandb_server
from tests.waiting import PATIENCE_S, wait_until

pytest.importorskip("wandb")
OFFLINE = Tracker(project="p", entity=None, group="g", mode="offline", timeout_s=60)
AUTO, ONLINE = replace(OFFLINE, mode="auto"), replace(OFFLINE, mode="online")


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where nobody has logged in to wandb."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with wandb_server() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield running


def train_mirrored(
    run: RunConfig, corpus: Corpus, store: Store, tracker: Tracker | None, *, stop_at: float = float("inf")
) -> Mirror:
    runtime = Runtime(log_interval_s=0, checkpoint_interval_s=0)
    with Mirror(tracker, store) as mirror:
        directory = store.run(run.run_id)
        state = train(run, corpus, directory, runtime, on_progress=mirror, should_stop=lambda step: step >= stop_at)
        mirror(Outcome(run_id=run.run_id, state=state))
    return mirror


def curve_of(directory: RunDirectory) -> dict[int, dict[str, float]]:
    """By step, all that the curve says of it."""
    steps: dict[int, dict[str, float]] = {}
    for line in directory.curve.read_text().splitlines():
        row = json.loads(line)
        steps.setdefault(row.pop("step"), {}).update(row)
    return steps


def records(path: Path) -> Iterator[Any]:
    """The protocol buffers in a .wandb file: blocks of 32 KiB behind a header, records in parts (LevelDB's log format)."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    record = b""
    for start in range(0, len(data), 32768):
        block = memoryview(data)[start : start + 32768]
        at = 7 if start == 0 else 0
        while at + 7 <= len(block):
            length, kind = struct.unpack_from("<HB", block, at + 4)
            record += block[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                yield wandb_internal_pb2.Record.FromString(record)  # type: ignore[attr-defined]
                record = b""


def offline_history(directory: RunDirectory) -> list[dict[str, float]]:
    """All rows in all offline runs of a run, in the order of time."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for path in sorted((directory.path / "wandb").glob("offline-run-*/*.wandb"))
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]


def assert_mirrors(rows: list[dict[str, float]], directory: RunDirectory) -> None:
    """`rows` are the curve: every step once, in order, every value to the last bit."""
    curve = curve_of(directory)
    assert [row["_step"] for row in rows] == list(curve)
    for row in rows:
        expected = curve[int(row["_step"])]
        assert {name: row.get(name) for name in expected} == expected


def test_an_offline_run_is_the_curve(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    store = Store(tmp_path)
    mirror = train_mirrored(tiny_run, corpus, store, AUTO)
    directory = store.run(tiny_run.run_id)
    rows = offline_history(directory)
    assert_mirrors(rows, directory)
    assert [row["_step"] for row in rows if "val_loss" in row] == [4, 8, 12]
    assert all(row["tokens_per_s"] > 0 for row in rows)
    assert mirror.delivered == {"offline": 1}
    assert len(mirror.warnings) == 1
    assert "No API key" in mirror.warnings[0]

    (file,) = (directory.path / "wandb").glob("offline-run-*/*.wandb")
    by_kind: dict[str, list[Any]] = {}
    for record in records(file):
        by_kind.setdefault(record.WhichOneof("record_type"), []).append(record)
    (made,) = by_kind["run"]
    config = {item.key: json.loads(item.value_json) for item in made.run.config.update}
    assert (made.run.run_id, made.run.run_group, made.run.project) == (tiny_run.run_id, "g", "p")
    assert made.run.display_name == f"{tiny_run.N / 1000:.3g}k parameters, 1.54k tokens, seed 0"
    assert {"N": tiny_run.N, "D": tiny_run.D, "seed": 0, "batch_size": 4}.items() <= config.items()
    assert config["model"]["d_model"] == 4
    assert {(metric.metric.glob_name, metric.metric.step_metric) for metric in by_kind["metric"]} == {("", ""), ("*", "tokens")}
    assert by_kind["exit"][0].exit.exit_code == 0


def test_the_mirror_changes_no_byte_and_is_not_there_unless_asked_for(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, tracker in (("with", OFFLINE), ("without", None), ("disabled", replace(OFFLINE, mode="disabled"))):
        train_mirrored(tiny_run, corpus, Store(tmp_path / name), tracker)
    directories = [Store(tmp_path / name).run(tiny_run.run_id) for name in ("with", "without", "disabled")]
    assert len({directory.curve.read_bytes() for directory in directories}) == 1
    assert [(directory.path / "wandb").exists() for directory in directories] == [True, False, False]


def test_an_interrupted_run_goes_on(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    store, directory = Store(tmp_path), Store(tmp_path).run(tiny_run.run_id)
    train_mirrored(tiny_run, corpus, store, OFFLINE, stop_at=7)
    assert [row["_step"] for row in offline_history(directory)] == list(range(1, 8))
    assert is_mirrored(directory, OFFLINE)
    train_mirrored(tiny_run, corpus, store, OFFLINE)
    assert_mirrors(offline_history(directory), directory)
    assert len(offline_history(directory)) == 12


def test_only_what_no_resume_takes_back_is_sent(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    """Steps after the last checkpoint will be trained again, and on a GPU not to the last bit."""
    store, directory = Store(tmp_path), Store(tmp_path).run(tiny_run.run_id)
    train(tiny_run, corpus, directory, should_stop=lambda step: step >= 9)
    directory.write_status(states.RUNNING, step=6)
    with open(directory.curve, "a") as file:
        file.write('{"step":10,"tok')  # a buffer ends where it likes
    with Mirror(OFFLINE, store) as mirror:
        mirror.send([tiny_run.run_id])
    assert mirror.warnings == []
    assert [row["_step"] for row in offline_history(directory)] == list(range(1, 7))


def test_a_growing_curve_is_followed(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run, store = replace(tiny_run, steps=400), Store(tmp_path)
    directory = store.run(run.run_id)

    def wait_for_the_mirror(step: int) -> bool:
        if step == 200:  # the file has rows, and no checkpoint vouches for them yet
            assert directory.curve.stat().st_size > 8192
            wait_until(lambda: list((directory.path / "wandb").glob("offline-run-*")))
            time.sleep(2.5)  # it looks every second
        return False

    with Mirror(OFFLINE, store) as mirror:
        runtime = Runtime(log_interval_s=0.01)
        state = train(run, corpus, directory, runtime, on_progress=mirror, should_stop=wait_for_the_mirror)
        mirror(Outcome(run_id=run.run_id, state=state))
    assert mirror.warnings == []
    assert_mirrors(offline_history(directory), directory)


def test_one_process_mirrors_a_run(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    directory = Store(tmp_path).run(tiny_run.run_id)
    train(tiny_run, corpus, directory)
    claim = Claim(directory.path / "wandb-claim")
    assert claim.take()
    for held, delivered in ((True, {}), (False, {"offline": 1})):
        if not held:
            claim.release()
        with Mirror(OFFLINE, Store(tmp_path)) as mirror:
            mirror.send([tiny_run.run_id])
        assert mirror.delivered == delivered
        assert bool(mirror.warnings) == held


KILLED = """
import os, signal, sys
from pathlib import Path
from sweep.data import Corpus
from sweep.fit import LawError, read_curves, read_frame, runs_from_frame
from sweep.train.events import Outcome
from sweep.store import Store
from sweep.tracking.mirror import Mirror, Tracker
from sweep.train.loop import Runtime, train
store, corpus, run_id, mode, victim, step, wait = sys.argv[1:]
if __name__ == "__main__":
    import time
    store = Store(Path(store))
    run = store.run(run_id).config()
    tracker = Tracker(project="p", entity=None, group="g", mode=mode, timeout_s=60)
    with Mirror(tracker, store) as mirror:
        killed = []
        def report(progress):
            mirror(progress)
            if progress.step >= int(step) and not killed:
                killed.append(progress.step)
                time.sleep(float(wait))  # for wandb to have begun
                os.kill(os.getpid() if victim == "launch" else mirror._process.pid, signal.SIGKILL)
        runtime = Runtime(log_interval_s=0.05, checkpoint_interval_s=0.2)
        state = train(run, Corpus.open(Path(corpus)), store.run(run_id), runtime, on_progress=report)
        mirror(Outcome(run_id=run_id, state=state))
"""


def launch_and_kill(store: Store, corpus: Corpus, run: RunConfig, mode: str, victim: str, step: int, wait: float) -> None:
    script = store.root / "killed.py"
    script.write_text(KILLED)
    arguments = [str(store.root), str(corpus.directory), run.run_id, mode, victim, str(step), str(wait)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == (-signal.SIGKILL if victim == "launch" else 0), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_killed_at_any_point_no_step_is_lost_or_doubled(
    mode: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    run, store = replace(tiny_run, steps=1000), Store(tmp_path)
    directory = store.run(run.run_id)
    directory.create(run)
    for victim, step, wait in (("launch", 500, 4.0), ("mirror", 800, 4.0)):
        launch_and_kill(store, corpus, run, mode, victim, step, wait)
    assert directory.status()["state"] == states.DONE  # only the mirror was killed last
    tracker = replace(OFFLINE, mode=mode)
    assert not is_mirrored(directory, tracker)
    with Mirror(tracker, store) as mirror:
        mirror.send([run.run_id])
    assert mirror.warnings == []
    assert is_mirrored(directory, tracker)
    rows = offline_history(directory) if mode == "offline" else server.history[run.run_id]
    assert_mirrors(rows, directory)
    assert len(rows) == 1000


def test_the_server_says_where_to_go_on(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer) -> None:
    store, directory = Store(tmp_path), Store(tmp_path).run(tiny_run.run_id)
    mirror = train_mirrored(tiny_run, corpus, store, AUTO, stop_at=5)
    assert (mirror.warnings, mirror.delivered) == ([], {"online": 1})
    assert len(server.history[tiny_run.run_id]) == 5
    assert server.ended[tiny_run.run_id] == 1  # not finished
    train_mirrored(tiny_run, corpus, store, AUTO)
    assert_mirrors(server.history[tiny_run.run_id], directory)
    assert server.rows_received == 12
    assert server.ended[tiny_run.run_id] == 0
    assert server.created[tiny_run.run_id]["groupName"] == "g"
    # wandb.json is no more than a note: without it, the server is asked and nothing is sent twice
    (directory.path / "wandb.json").unlink()
    with Mirror(ONLINE, store) as mirror:
        mirror.send([tiny_run.run_id])
    assert mirror.delivered == {"online": 1}
    assert server.rows_received == 12


def test_rows_that_the_server_refuses_are_sent_later(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    server.refuse = True
    store, directory = Store(tmp_path), Store(tmp_path).run(tiny_run.run_id)
    mirror = train_mirrored(tiny_run, corpus, store, ONLINE)
    assert "refused" in mirror.warnings[0]
    assert not is_mirrored(directory, ONLINE)
    server.refuse = False
    with Mirror(ONLINE, store) as mirror:
        mirror.send([tiny_run.run_id])
    assert_mirrors(server.history[tiny_run.run_id], directory)


BROKEN = {
    "missing": ("raise ModuleNotFoundError('no module named wandb')", "ModuleNotFoundError"),
    "raises": ("Settings = dict\ndef login(**_): pass\ndef init(**_): raise ValueError('no such luck')", "no such luck"),
    "hangs": ("import time\ntime.sleep(600)", "nothing came from it for 3 s"),
    "dies": ("import os\nos._exit(7)", "exit code 7"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_wandb_neither_fails_nor_slows_a_run(
    how: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, message = BROKEN[how]
    (tmp_path / "wandb.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)  # a spawned process takes it over
    store, told = Store(tmp_path), list[str]()
    start = time.monotonic()
    with Mirror(replace(ONLINE, timeout_s=3 if how == "hangs" else 500), store, told.append) as mirror:
        directory = store.run(tiny_run.run_id)
        assert train(tiny_run, corpus, directory, Runtime(log_interval_s=0), on_progress=mirror) == states.DONE
        trained = time.monotonic() - start
        mirror(Outcome(run_id=tiny_run.run_id, state=states.DONE))
    assert trained < 60  # nobody waited for what sleeps 600 s, or until the 500 s are over
    assert time.monotonic() - start < 120
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
    assert "nothing came" in mirror.warnings[0]


def test_a_mirror_that_cannot_start_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(process: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", no_memory)
    with Mirror(OFFLINE, Store(tmp_path)) as mirror:
        mirror._tell("end", "a" * 16)
        mirror(Outcome(run_id="b" * 16, state=states.DONE))
    assert len(mirror.warnings) == 1
    assert "Cannot allocate memory" in mirror.warnings[0]


def test_a_full_disk_is_noticed(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run, store = replace(tiny_run, steps=400), Store(tmp_path)
    directory = store.run(run.run_id)
    train(run, corpus, directory)
    with Mirror(OFFLINE, store) as mirror:
        mirror._start()
        resource.prlimit(mirror._process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
        mirror.send([run.run_id])
    assert "is the disk full" in mirror.warnings[0]
    assert not is_mirrored(directory, OFFLINE)


@pytest.fixture
def overrides(text_file: Path, tmp_path: Path) -> list[str]:
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "device=cpu", "name=mine"]
    return [*data, f"store={tmp_path}/store", "grid=list", "grid.runs=[{N: 2e3, D: 2e4}, {N: 5e3, D: 2e4}]"]


def test_wandb_sync_sends_what_wandb_lacks(
    overrides: list[str], tmp_path: Path, server: WandbServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", *overrides, "tracker=wandb", "tracker.mode=offline"]) == DONE
    assert "2 runs mirrored offline" in capfd.readouterr().out
    assert main(["launch", *overrides, "tracker=wandb", "tracker.mode=offline"]) == DONE
    assert "mirrored" not in capfd.readouterr().out  # there was nothing to do
    assert server.history == {}
    for expected in ("2 runs mirrored to wandb\n", "nothing to send\n"):
        assert main(["wandb-sync", *overrides]) == DONE
        printed = capfd.readouterr()
        assert (printed.out, printed.err) == (expected, "")
    directories = [RunDirectory(path) for path in (tmp_path / "store" / "runs").iterdir()]
    assert len(directories) == 2
    for directory in directories:
        assert_mirrors(server.history[directory.path.name], directory)
        assert offline_history(directory) == []  # or they would be uploaded twice
        assert server.created[directory.path.name]["groupName"] == "mine"
    assert server.rows_received == sum(len(rows) for rows in server.history.values())
    server.refuse = True
    (directories[0].path / "wandb.json").unlink()
    assert main(["wandb-sync", *overrides, "tracker.project=another"]) == SOME_RUNS_FAILED
    assert "refused" in capfd.readouterr().err


def test_wandb_sync_without_a_key_or_a_server_says_so(
    overrides: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["launch", *overrides]) == DONE
    for key, message in (("", "No API key"), (KEY, "Failed to authenticate")):
        monkeypatch.setenv("WANDB_API_KEY", key)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        capfd.readouterr()
        start = time.monotonic()
        assert main(["wandb-sync", *overrides]) == BAD_INPUT
        assert time.monotonic() - start < 80
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["wandb-sync", *overrides, "tracker.mode=offline"]) == DONE
    assert "2 runs mirrored offline" in capfd.readouterr().out


def test_an_array_task_mirrors_its_runs(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    directory = Store(tmp_path).run(tiny_run.run_id)
    directory.create(tiny_run)
    manifest = {
        "name": "g",
        "store": str(tmp_path),
        "corpus": str(corpus.directory),
        "device": "cpu",
        "cluster": asdict(ClusterConfig(slurm=SlurmConfig())),
        "compile": "auto",
        "worth_compiling": [],
        "tracker": asdict(OFFLINE),
        "tasks": [[tiny_run.run_id]],
    }
    (tmp_path / "tasks.json").write_text(json.dumps(manifest))
    assert main(["task", str(tmp_path), "0"]) == DONE
    assert_mirrors(offline_history(directory), directory)


def test_wandb_mode_decides_what_the_sweep_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tracker.of(compose(["tracker=wandb"])).mode == "auto"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Tracker.of(compose(["tracker=wandb", "name=x"])) == replace(OFFLINE, project="isosweep", group="x", mode="disabled")
    assert Tracker.of(compose(["tracker=wandb", "tracker.mode=online"])).mode == "online"


def test_a_mirrored_project_is_read_back_as_a_table(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    """Through wandb's own API, from what wandb's own client sent."""
    store = Store(tmp_path / "store")
    assert train_mirrored(tiny_run, corpus, store, replace(ONLINE, entity="me")).delivered["online"] == 1
    address, (row,) = "wandb://me/p", read_frame("wandb://me/p").to_dict("records")
    directory = store.run(tiny_run.run_id)
    last = curve_of(directory)[tiny_run.steps]
    assert (row["run_id"], row["state"], row["group"]) == (tiny_run.run_id, "finished", "g")
    assert (row["N"], row["D"], row["model.d_model"]) == (tiny_run.N, tiny_run.D, tiny_run.model.d_model)
    assert row["val_loss"] == directory.status()["val_loss"]
    assert row["loss"] == last["loss"]

    runs = runs_from_frame(read_frame(address).assign(D=float(tiny_run.D)), {"loss": "val_loss"}, address)
    (curve,) = read_curves(address, {}, runs)
    steps = curve_of(directory)
    assert curve.tokens.tolist() == [tiny_run.batch_tokens * step for step in steps]
    assert curve.loss.tolist() == [steps[step]["loss"] for step in steps]
    assert read_frame(f"{address}?group=g")["run_id"].tolist() == [tiny_run.run_id]
    for wrong, message in (
        ("wandb://me/p?group=other", "has no runs"),
        ("wandb://me/nowhere", "Could not find project nowhere"),
        ("wandb://me", "is no project; write wandb://entity/project"),
    ):
        with pytest.raises(LawError, match=message):
            read_frame(wrong)


def test_a_project_on_wandb_is_fitted_alone(
    tmp_path: Path, server: WandbServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that another program logged, with a name of its own for everything."""
    for k, (size, ratio) in enumerate((size, ratio) for size in (20, 40, 80, 160, 320) for ratio in (10, 20, 40)):
        D = 1e6 * size * ratio
        config = {"params": {"value": f"{size}M"}, "batch_tokens": {"value": 65536}, "_wandb": {"value": {}}}
        server.created[f"id{k}"] = {"project": "laws", "displayName": f"run {k}", "config": json.dumps(config)}
        loss = 1.7 + 400 / (1e6 * size) ** 0.34
        curve = [
            {"_step": step, "train/loss": loss + 410 / (65536 * step) ** 0.28}
            for step in range(round(D / 65536 / 50), round(D / 65536), 97)
        ]
        server.history[f"id{k}"] = curve
        server.summaries[f"id{k}"] = {"seen": D, "eval/loss": loss + 410 / D**0.28, "_step": 9}
        server.ended[f"id{k}"] = 0
    named = ["columns.N=params", "columns.D=seen", "columns.loss=eval/loss", "columns.curve_loss=train/loss"]
    table = ["table=wandb://me/laws", "curves=wandb://me/laws", *named, f"out={tmp_path}", "fit.resamples=0"]
    assert main(["fit", *table]) == DONE
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert fits["runs"]["used"] == 15
    assert fits["parametric"]["a"]["value"] == pytest.approx(0.28 / 0.62, abs=1e-3)
    assert fits["envelope"]["status"] == "converged"

    server.shutdown()
    server.server_close()
    capsys.readouterr()
    monkeypatch.setattr("sweep.tables.wandb.TIMEOUT_S", 2)
    assert main(["fit", *table]) == BAD_INPUT
    error = capsys.readouterr().err
    assert "wandb://me/laws" in error
    assert error.count("isosweep: ") == 1
