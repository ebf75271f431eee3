"""Training with a mirror beside it, and what must then be at wandb."""

import json
import os
import subprocess
import sys
from dataclasses import replace

from sweep.data import Corpus
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store
from sweep.tracking import Tracker
from sweep.tracking.mirror import Mirror
from sweep.train.events import Outcome
from sweep.train.loop import Runtime, train
from tests.sweep.tracking.wandb_server import KEY, wandb_server
from tests.waiting import PATIENCE_S

OFFLINE = Tracker(project="p", group="g", mode="offline", timeout_s=PATIENCE_S)
AUTO, ONLINE = replace(OFFLINE, mode="auto"), replace(OFFLINE, mode="online")
NAMES = {"loss": "train/loss", "val_loss": "eval/loss", "val_loss_se": "eval/loss_se"}


def train_mirrored(
    run: RunConfig, corpus: Corpus, store: Store, tracker: Tracker | None, *, stop_at: float = float("inf"), **options: object
) -> Mirror:
    runtime = Runtime(log_interval_s=0, checkpoint_interval_s=0)
    with Mirror(tracker, store, **options) as mirror:  # type: ignore[arg-type]
        directory = store.run(run.run_id)
        state = train(run, corpus, directory, runtime, on_progress=mirror, should_stop=lambda step: step >= stop_at)
        mirror(Outcome(run_id=run.run_id, state=state))
    return mirror


def send(directory: RunDirectory, tracker: Tracker, store: Store) -> Mirror:
    """As a later launch or wandb-sync does."""
    with Mirror(tracker, store, patient=True) as mirror:
        mirror.send([directory.path.name])
    return mirror


def curve_of(directory: RunDirectory) -> dict[int, dict[str, float]]:
    """By step, all that the curve says of it, under wandb's names."""
    steps: dict[int, dict[str, float]] = {}
    for line in directory.curve.read_text().splitlines():
        row = json.loads(line)
        steps.setdefault(row.pop("step"), {}).update({NAMES.get(name, name): value for name, value in row.items()})
    return steps


def wandb_sync(directory: RunDirectory) -> list[dict[str, float]]:
    """The rows that wandb's own `wandb sync` uploads from the offline runs of a run."""
    paths = [str(path) for path in (directory.path / "wandb").glob("offline-run-*")]
    if not paths:
        return []
    with wandb_server() as server:
        environment = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        command = [sys.executable, "-m", "wandb", "sync", *paths]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, cwd=directory.path)
        assert done.returncode == 0, done.stderr
        assert len(paths) == 1
        assert server.conflicts == []
        (rows,) = server.history.values()
        return rows


def assert_mirrors(rows: list[dict[str, float]], directory: RunDirectory) -> None:
    """`rows` are the curve: every step once, in order, every value to the last bit."""
    curve = curve_of(directory)
    assert [row["_step"] for row in rows] == list(curve)
    for row in rows:
        expected = curve[int(row["_step"])]
        assert {name: row.get(name) for name in expected} == expected
