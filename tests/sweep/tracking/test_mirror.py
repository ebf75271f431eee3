"""The wandb mirror: the real client against a server of ours, and offline runs uploaded by the real `wandb sync`."""

import json
import re
import shlex
import time
from dataclasses import asdict, replace
from glob import glob
from pathlib import Path

import pytest

from sweep.claim import Claim
from sweep.cli import main, parse
from sweep.commands import BAD_INPUT, DONE, SOME_RUNS_FAILED
from sweep.commands.sweeps import open_sweep
from sweep.commands.training import planned_labels
from sweep.config import ClusterConfig, SlurmConfig, compose
from sweep.data import Corpus
from sweep.plan.grid import PlannedRun
from sweep.plan.run import RunConfig
from sweep.plan.written import CorpusFacts, SweepPlan
from sweep.store import RunDirectory, Store, states
from sweep.tracking import Tracker
from sweep.tracking.mirror import Mirror
from sweep.tracking.process import is_mirrored
from sweep.train.events import Outcome
from sweep.train.loop import Runtime, train
from tests.stores import leave_status
from tests.sweep.tracking.mirrored import AUTO, OFFLINE, ONLINE, assert_mirrors, curve_of, send, train_mirrored, wandb_sync
from tests.sweep.tracking.wandb_server import KEY, WandbServer
from tests.waiting import wait_until

pytest.importorskip("wandb")


def test_a_run_on_wandb_is_the_curve(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer) -> None:
    store, labels = Store(tmp_path), {tiny_run.run_id: {"budget": 1e15, "variant": "wide"}}
    mirror = train_mirrored(tiny_run, corpus, store, ONLINE, labels=labels)
    directory, rows = store.run(tiny_run.run_id), server.history[tiny_run.run_id]
    assert (mirror.warnings, mirror.delivered) == ([], {"online": 1})
    assert_mirrors(rows, directory)
    assert {"train/loss", "lr", "grad_norm", "tokens", "flops"} <= set(rows[0])
    assert [row["_step"] for row in rows if "eval/loss" in row] == [4, 8, 12]
    assert all(row["tokens_per_s"] > 0 for row in rows)

    made = server.created[tiny_run.run_id]
    assert (made["groupName"], made["project"], server.ended[tiny_run.run_id]) == ("g", "p", 0)
    assert made["displayName"] == f"N={tiny_run.N:,} D=1,536 seed=0"
    assert made["tags"] == ["g", "budget 1e+15", "variant wide"]
    config = {name: entry["value"] for name, entry in json.loads(made["config"]).items()}
    expected = {"N": tiny_run.N, "D": tiny_run.D, "C": 6 * tiny_run.N * tiny_run.D, "seed": 0, "batch_size": 4, "budget": 1e15}
    assert expected.items() <= config.items()
    assert config["model"]["d_model"] == 4
    assert "tokens" in [metric.get("1") for metric in config["_wandb"]["m"]]  # defined as the x axis
    assert not (directory.path / "wandb").exists()


def test_the_mirror_changes_no_byte_and_is_not_there_unless_asked_for(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    trackers = {
        "with": OFFLINE,
        "without": None,
        "none": replace(OFFLINE, kind="none"),
        "disabled": replace(OFFLINE, mode="disabled"),
    }
    for name, tracker in trackers.items():
        train_mirrored(tiny_run, corpus, Store(tmp_path / name), tracker)
    directories = [Store(tmp_path / name).run(tiny_run.run_id) for name in trackers]
    assert len({directory.curve.read_bytes() for directory in directories}) == 1
    assert [(directory.path / "wandb").exists() for directory in directories] == [True, False, False, False]


def test_an_offline_run_is_the_curve_also_after_a_resume(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    store, directory = Store(tmp_path), Store(tmp_path).run(tiny_run.run_id)
    mirror = train_mirrored(tiny_run, corpus, store, AUTO, stop_at=7)
    assert mirror.delivered == {"offline": 1}
    assert len(mirror.warnings) == 1
    assert "No API key" in mirror.warnings[0]
    assert is_mirrored(directory, OFFLINE)
    assert json.loads((directory.path / "wandb.json").read_text()) == {
        "step": 7,
        "state": "interrupted",
        "mode": "offline",
        "project": "p",
        "entity": None,
    }
    train_mirrored(tiny_run, corpus, store, OFFLINE)
    rows = wandb_sync(directory)
    assert_mirrors(rows, directory)
    assert len(rows) == 12


def test_only_steps_up_to_the_last_checkpoint_are_sent(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    """Later ones will be trained again, and on a GPU not to the last bit."""
    store, directory = Store(tmp_path), Store(tmp_path).run(tiny_run.run_id)
    train(tiny_run, corpus, directory, should_stop=lambda step: step >= 9)
    leave_status(directory, states.RUNNING, step=6)
    with open(directory.curve, "a") as file:
        file.write('{"step":10,"tok')  # a buffer ends where it likes
    assert send(directory, ONLINE, store).warnings == []
    assert [row["_step"] for row in server.history[tiny_run.run_id]] == list(range(1, 7))


def test_a_growing_curve_is_followed(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer) -> None:
    run, store = replace(tiny_run, steps=400), Store(tmp_path)
    directory, before = store.run(run.run_id), []

    def wait_for_the_server(step: int) -> bool:
        if step < 200:  # slowly enough for checkpoints
            time.sleep(0.002)
        if step in (200, 201):  # after a checkpoint; then with rows that no checkpoint vouches for yet
            wait_until(lambda: len(server.history.get(run.run_id, [])) >= directory.status()["step"])
            before.append((len(server.history[run.run_id]), directory.status()["step"]))
        return False

    with Mirror(ONLINE, store) as mirror:
        runtime = Runtime(log_interval_s=0.01, checkpoint_interval_s=0.1)
        state = train(run, corpus, directory, runtime, on_progress=mirror, should_stop=wait_for_the_server)
        mirror(Outcome(run_id=run.run_id, state=state))
    assert mirror.warnings == []
    assert before[0][0] == before[0][1] > 0
    assert_mirrors(server.history[run.run_id], directory)


def test_the_server_says_where_to_go_on(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer) -> None:
    store, directory = Store(tmp_path), Store(tmp_path).run(tiny_run.run_id)
    mirror = train_mirrored(tiny_run, corpus, store, AUTO, stop_at=5)
    assert (mirror.warnings, mirror.delivered) == ([], {"online": 1})
    assert len(server.history[tiny_run.run_id]) == 5
    assert server.ended[tiny_run.run_id] == 1  # not finished
    train_mirrored(tiny_run, corpus, store, AUTO)
    assert_mirrors(server.history[tiny_run.run_id], directory)
    assert (server.rows_received, server.ended[tiny_run.run_id]) == (12, 0)
    # wandb.json is no more than a note: without it, the server is asked and nothing is sent twice
    (directory.path / "wandb.json").unlink()
    assert send(directory, ONLINE, store).delivered == {"online": 1}
    assert server.rows_received == 12


def test_one_process_mirrors_a_run(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    directory = Store(tmp_path).run(tiny_run.run_id)
    train(tiny_run, corpus, directory)
    claim = Claim(directory.path / "wandb-claim")
    assert claim.take()
    mirror = send(directory, OFFLINE, Store(tmp_path))
    assert (len(mirror.warnings), mirror.delivered) == (1, {})
    claim.release()
    mirror = send(directory, OFFLINE, Store(tmp_path))
    assert (len(mirror.warnings), mirror.delivered) == (0, {"offline": 1})


def test_wandb_sync_sends_what_wandb_lacks(
    overrides: list[str], tmp_path: Path, server: WandbServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", *overrides, "tracker=wandb", "tracker.mode=offline"]) == DONE
    told = capfd.readouterr().out
    assert "2 runs mirrored offline in" in told
    command, sync = re.search(r"to send: isosweep (.*), or: wandb sync (\S+)$", told, re.MULTILINE).groups()  # type: ignore[union-attr]
    name, *rest = shlex.split(command)
    assert open_sweep(parse(name, rest)).store.root.samefile(tmp_path / "store")
    assert len(glob(sync)) == 2
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
        assert not (directory.path / "wandb").exists()  # or its offline run would be uploaded twice
        assert server.created[directory.path.name]["groupName"] == "mine"
    assert server.rows_received == sum(len(rows) for rows in server.history.values())
    server.fault = "refuse"
    server.history.clear()  # another project has none
    assert main(["wandb-sync", *overrides, "tracker.project=another"]) == SOME_RUNS_FAILED
    assert "the server has" in capfd.readouterr().err


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


def test_an_array_task_mirrors_its_runs(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer) -> None:
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
        "tracker": asdict(ONLINE),
        "tasks": [[tiny_run.run_id]],
    }
    (tmp_path / "tasks.json").write_text(json.dumps(manifest))
    assert main(["task", str(tmp_path), "0"]) == DONE
    assert_mirrors(server.history[tiny_run.run_id], directory)


def test_wandb_mode_decides_what_the_sweep_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tracker.of(compose(["tracker=wandb"])).mode == "auto"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Tracker.of(compose(["tracker=wandb", "name=x"])) == Tracker(group="x", mode="disabled")
    assert Tracker.of(compose(["tracker=wandb", "tracker.mode=online"])).mode == "online"
    assert Tracker.of(compose([])).kind == "none"


def test_budget_and_labels_come_from_the_plan(tiny_run: RunConfig, tmp_path: Path) -> None:
    corpus = CorpusFacts(fingerprint=tiny_run.corpus, vocab_size=257, training_tokens=1e5)
    runs = (PlannedRun(run=tiny_run, budget=1e15, labels={"variant": "wide"}),)
    SweepPlan(config=compose(["name=g"]), device="cpu", corpus=corpus, runs=runs).write(tmp_path / "sweeps" / "g")
    assert planned_labels(ONLINE, Store(tmp_path)) == {tiny_run.run_id: {"budget": 1e15, "variant": "wide"}}
    assert planned_labels(replace(ONLINE, group="another"), Store(tmp_path)) == {}


def test_curves_sent_with_an_earlier_release_are_not_sent_again(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, server: WandbServer
) -> None:
    directory = Store(tmp_path).run(tiny_run.run_id)
    train(tiny_run, corpus, directory)
    noted = '{"step": 12, "state": "done", "mode": "online", "project": "p", "entity": null}'
    (directory.path / "wandb.json").write_text(noted)
    assert send(directory, ONLINE, Store(tmp_path)).delivered == {}
    assert server.created == {}
    assert curve_of(directory)[12]["train/loss"] > 0
