"""What is read is checked: a finished run with one changed or damaged file is left out, by name, and no other run is."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE, SOME_RUNS_FAILED
from sweep.commands.sweeps import plan_sweep
from sweep.config import FitConfig, compose
from sweep.errors import InputError
from sweep.files import SEAL, read_json, write_atomically, write_sealed
from sweep.store import RunDirectory, Store
from sweep.store.collect import collect

Harm = Callable[[RunDirectory], None]


@pytest.fixture(scope="module")
def launched(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with three finished runs, and the overrides of their sweep."""
    root = tmp_path_factory.mktemp("damage")
    grid = "grid.runs=[" + ", ".join(f"{{N: {N}, D: 2e4}}" for N in (2000, 5000, 8000)) + "]"
    sweep = ["grid=list", grid, "model=tiny", "data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "name=s"]
    assert main(["launch", *sweep, f"store={root / 'store'}"]) == DONE
    return root / "store", sweep


@pytest.fixture
def store(launched: tuple[Path, list[str]], tmp_path: Path) -> Store:
    shutil.copytree(launched[0], tmp_path / "store")
    return Store(tmp_path / "store")


def first(store: Store) -> RunDirectory:
    return store.run(min(path.name for path in (store.root / "runs").iterdir()))


def in_json(name: str, sealed: bool, **values: object) -> Harm:
    """Change values of a JSON file; unless `sealed`, its seal is gone too, as in files of older versions."""

    def harm(run: RunDirectory) -> None:
        path = run.path / name
        written = json.loads(path.read_text()) | values
        if not sealed:
            written = {key: value for key, value in written.items() if key not in (SEAL, "curve_sha256")}
        path.write_text(json.dumps(written))

    return harm


def in_text(name: str, pattern: str, by: str, *, unsealed: bool = False) -> Harm:
    def harm(run: RunDirectory) -> None:
        path = run.path / name
        changed, count = re.subn(pattern, by, path.read_text(), count=1)
        assert count == 1
        path.write_text(changed)
        if unsealed:
            in_json("status.json", sealed=False)(run)

    return harm


def replaced(name: str, content: bytes) -> Harm:
    def harm(run: RunDirectory) -> None:
        (run.path / name).write_bytes(content)

    return harm


CHANGES: dict[str, dict[str, object]] = {
    "val_loss": {"val_loss": 3.58},
    "val_loss-0": {"val_loss": 0.0},
    "val_loss-nan": {"val_loss": float("nan")},
    "val_loss-text": {"val_loss": "3.5"},
    "val_loss_se": {"val_loss_se": 1e-9},
    "step": {"step": 50},
    "step-text": {"step": "117"},
    "state": {"state": "finished"},
    "device": {"device": None},
}
STATUS = {
    f"{what}-{'sealed' if sealed else 'unsealed'}": in_json("status.json", sealed, **values)
    for what, values in CHANGES.items()
    for sealed in (True, False)
}
OTHERS = {
    **{f"config-{name}": in_text("config.yaml", rf"{name}: .*", f"{name}: {by}")
       for name, by in {"rope_theta": "500.0", "seed": "7", "peak_lr": "0.001", "steps": "40"}.items()},
    "config-bytes": replaced("config.yaml", b"model: \xff\xfe"),
    "config-list": replaced("config.yaml", b"[]"),
    "config-empty": replaced("config.yaml", b""),
    "curve-loss": in_text("curve.jsonl", r'"loss":\d', '"loss":9'),
    "curve-loss-old": in_text("curve.jsonl", r'"val_loss":\d(?=[^\n]*\n\Z)', '"val_loss":9', unsealed=True),
    "curve-infinite-old": in_text("curve.jsonl", r'"loss":[\d.]+', '"loss":Infinity', unsealed=True),
    "curve-line": in_text("curve.jsonl", r"[^\n]*\n", "", unsealed=True),
    "curve-type": replaced("curve.jsonl", b"3\n[]\n"),
    "curve-gone": lambda run: run.curve.unlink(),
    "status-bytes": replaced("status.json", b"\xff{"),
    "status-list": replaced("status.json", b"[]"),
    "status-empty": replaced("status.json", b""),
}  # fmt: skip


@pytest.mark.parametrize("harm", [*STATUS.values(), *OTHERS.values()], ids=[*STATUS, *OTHERS])
def test_a_run_with_a_changed_file_is_left_out_and_named(
    store: Store,
    launched: tuple[Path, list[str]],
    harm: Harm,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    planned = plan_sweep(compose([*launched[1], f"store={store.root}"]))[0].runs
    harm(first(store))
    with caplog.at_level(logging.WARNING):
        found = collect(planned, store, FitConfig())
    assert found.runs.set_index("run_id")["state"].to_dict() == {
        plan.run.run_id: "damaged" if plan.run.run_id == first(store).path.name else "done" for plan in planned
    }
    assert found.curves["run_id"].nunique() == 2
    (message,) = caplog.messages
    assert str(first(store).path) in message
    assert "\n" not in message
    capsys.readouterr()
    assert main(["export", first(store).path.name, f"store={store.root}", f"out={store.root / 'out'}"]) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["status", "s", f"store={store.root}"]) == DONE


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"state": "done", "step": 5}'])
def test_a_damaged_status_stops_no_other_run(
    store: Store, content: bytes, capsys: pytest.CaptureFixture[str], launched: tuple[Path, list[str]]
) -> None:
    """A launch trains what is missing and names the damaged one, which without its status ends from its checkpoint."""
    damaged, *others = (store.run(path.name) for path in sorted((store.root / "runs").iterdir()))
    curve = damaged.curve.read_bytes()
    (damaged.path / "status.json").write_bytes(content)
    shutil.rmtree(others[0].path)
    assert main(["launch", "s", f"store={store.root}"]) == SOME_RUNS_FAILED
    printed = capsys.readouterr().out
    assert "2 done, 1 failed" in printed
    assert f"{damaged.path / 'status.json'} is damaged" in printed
    assert others[0].status()["state"] == "done"
    (damaged.path / "status.json").unlink()
    assert main(["launch", "s", f"store={store.root}"]) == DONE
    assert damaged.curve.read_bytes() == curve
    assert damaged.status() | {"updated": ""} == Store(launched[0]).run(damaged.path.name).status() | {
        name: damaged.status()[name] for name in ("elapsed_s", "training_s", "saving_s", "evaluating_s", "logging_s")
    } | {"updated": ""}


def test_a_changed_corpus_is_no_corpus(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (manifest,) = store.corpora.glob("*/manifest.json")
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(written | {"bytes_per_token": 4.0}))
    capsys.readouterr()
    assert main(["fit", "s", f"store={store.root}"]) == BAD_INPUT
    assert "was changed after it was written; delete" in capsys.readouterr().err


def test_a_changed_plan_is_no_plan(store: Store, launched: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    path = store.root / "sweeps" / "s" / "plan.json"
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"', 1))
    capsys.readouterr()
    assert main(["status", "s", f"store={store.root}"]) == BAD_INPUT
    assert "was changed after it was written; launch the sweep again" in capsys.readouterr().err
    assert main(["launch", *launched[1], f"store={store.root}"]) == DONE  # the remedy works
    assert "was changed after it was written" in capsys.readouterr().err
    assert main(["status", "s", f"store={store.root}"]) == DONE


def test_what_is_sealed_is_read_and_what_was_changed_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_sealed(path, {"b": [1, 2.5], "a": None})
    assert read_json(path, dict, "") == {"b": [1, 2.5], "a": None}
    path.write_text(path.read_text().replace("2.5", "2.6"))
    with pytest.raises(InputError, match="was changed after it was written; call us"):
        read_json(path, dict, "call us")
    path.write_text("[]")
    with pytest.raises(InputError, match="holds a list instead of a dict"):
        read_json(path, dict, "")
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is damaged"):
        read_json(path, list, "")


def test_what_killed_writers_left_long_ago_goes(tmp_path: Path) -> None:
    import os

    old, new, other = (tmp_path / f".{name}.tmp" for name in ("file.1.aaaaaaaa", "file.2.bbbbbbbb", "other.3.cccccccc"))
    for path in (old, new, other):
        path.write_text("half")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    write_atomically(tmp_path / "file", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", new.name, other.name])


def test_a_new_owner_takes_away_what_the_last_one_was_writing(store: Store) -> None:
    run = first(store)
    left = [run.path / ".status.json.1.aaaaaaaa.tmp", run.checkpoints / ".claim-00000001-step-0000000003.pt.1.aaaaaaaa.tmp"]
    for path in left:
        path.write_text("half")
    with run.own():
        assert not any(path.exists() for path in left)
