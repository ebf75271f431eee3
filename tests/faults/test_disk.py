"""A disk that fills up: a run stops with a clear message, loses nothing, and goes on when there is room."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweep.config import ClusterConfig, CorpusSpec
from sweep.data import Corpus, CorpusRecipe, tokenise
from sweep.errors import InputError
from sweep.launch.launchers import Launch
from sweep.launch.pool import Pool
from sweep.launch.worker import train_safely
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.store.runs import disk_bytes
from sweep.train.events import Event
from sweep.train.loop import Runtime, train
from tests.waiting import wait_until

SIZE_KB = 700


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, smaller than what a few runs write."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("left_kb", [0, 4, 12, 20, 40, 60])
def test_a_full_disk_costs_no_step(tiny_run: RunConfig, corpus: Corpus, tiny_disk: Path, tmp_path: Path, left_kb: int) -> None:
    """Space runs out at one write or another: of the curve, a checkpoint, its manifest or the status."""
    run = replace(tiny_run, steps=200)
    clean = Store(tmp_path / "clean").run(run.run_id)
    train(run, corpus, clean)
    store, runtime = Store(tiny_disk), Runtime(checkpoint_interval_s=0, log_interval_s=0)
    filler = tiny_disk / "filler"

    def fill(step: int) -> bool:
        if step == 50 and not filler.exists():
            usage = os.statvfs(tiny_disk)
            with open(filler, "wb") as file:
                file.write(b"x" * max(0, usage.f_bavail * usage.f_frsize - left_kb * 1024))
        return False

    outcome = train_safely(run, corpus, store, runtime, should_stop=fill)
    assert (outcome.state, outcome.disk_full) == (states.INTERRUPTED, True)
    assert "No space left on device" in outcome.error
    assert not store.run(run.run_id).claim.held()
    filler.unlink()
    assert train(run, corpus, store.run(run.run_id), runtime) == states.DONE
    assert store.run(run.run_id).curve.read_bytes() == clean.curve.read_bytes()


def test_a_launch_waits_for_room_and_loses_nothing(
    tiny_run: RunConfig,
    corpus: Corpus,
    tiny_disk: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runs are in training when the disk is full; a third could not even begin."""
    subprocess.run(["mount", "-o", f"remount,size={8 * SIZE_KB}k", str(tiny_disk)], check=True)
    monkeypatch.setattr("sweep.launch.room.RETRY_S", 0.2)
    runs = [replace(tiny_run, steps=300, seed=seed) for seed in range(3)]
    cluster = ClusterConfig(log_interval_s=0, checkpoint_interval_s=0.02)
    filler, events = tiny_disk / "filler", []

    def fill_once(event: Event) -> None:
        events.append(event)
        if len(events) == 30:
            with suppress(OSError), open(filler, "wb") as file:
                file.write(b"x" * 8 * SIZE_KB * 1024)

    def make_room() -> None:
        wait_until(filler.exists)
        time.sleep(3)
        filler.unlink()

    freeing = threading.Thread(target=make_room)
    freeing.start()
    launch = Launch(name="x", store=Store(tiny_disk), corpus=corpus.directory, device="cpu", cluster=cluster)
    outcomes = Pool(launch=launch, workers=2).run(runs, fill_once)
    freeing.join()
    assert [outcome.state for outcome in outcomes] == [states.DONE] * 3
    assert capfd.readouterr().err.count("Training pauses and goes on when there is room") == 1
    for run in runs:
        clean = Store(tmp_path / "clean").run(run.run_id)
        train(run, corpus, clean)
        assert Store(tiny_disk).run(run.run_id).curve.read_bytes() == clean.curve.read_bytes()
    assert not list(tiny_disk.rglob(".*.tmp"))


def test_a_run_that_would_not_fit_does_not_begin(tiny_run: RunConfig, corpus: Corpus, tiny_disk: Path) -> None:
    run = replace(tiny_run, steps=10_000)
    assert disk_bytes(run) > SIZE_KB * 1024
    with pytest.raises(InputError, match="MB are free; make room"):
        train(run, corpus, Store(tiny_disk).run(run.run_id))
    assert not Store(tiny_disk).run(run.run_id).curve.exists()


@pytest.mark.parametrize("name", ["../../etc", "..", "0123456789abcdeg", "0123456789abcdef/..", "", "/etc"])
def test_no_run_id_leads_out_of_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no run's name"):
        Store(tmp_path).run(name)


@pytest.mark.parametrize("part_bytes", [1 << 26, 1 << 16])
def test_a_disk_that_fills_up_while_text_is_tokenised(
    tiny_disk: Path, tmp_path: Path, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenise, "PART_BYTES", part_bytes)
    monkeypatch.setattr(tokenise, "ENCODE_BYTES", 1 << 14)
    lines = np.random.default_rng(0).bytes(SIZE_KB * 300).hex()
    (tmp_path / "a.txt").write_text("\n".join(lines[i : i + 50] for i in range(0, len(lines), 50)))
    recipe = CorpusRecipe.read(CorpusSpec(source="text", paths=[str(tmp_path / "a.txt")], validation_tokens=2000))
    with pytest.raises(InputError, match=r"^store: the disk of .* is full, .*; make room and launch again.*store=…$") as caught:
        recipe.build(tiny_disk / "corpora", workers=1)
    left = [path for path in (tiny_disk / "corpora").rglob("*") if path.is_file()]
    if part_bytes == 1 << 26:
        assert list((tiny_disk / "corpora").iterdir()) == []  # nothing was finished, nothing is left
        return
    assert "the launch goes on from the" in str(caught.value)
    parts = [path.name.split(".")[:2] for path in left if path.name.endswith(".index.npy")]
    assert parts
    assert [path for path in left if path.name.split(".")[:2] not in parts and path.parent.name != "claim"] == []
    assert not [path for path in left if path.name.endswith(".tmp")]
    subprocess.run(["mount", "-o", "remount,size=10m", str(tiny_disk)], check=True)
    corpus = recipe.build(tiny_disk / "corpora", workers=1)
    assert [path.name for path in (tiny_disk / "corpora").iterdir()] == [corpus.fingerprint]
