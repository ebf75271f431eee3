"""Several launches of one sweep at the same time, and readers beside them: every run is trained once."""

import json
import subprocess
import sys
import time
from pathlib import Path

from sweep.cli import main
from sweep.commands.sweeps import plan_sweep
from sweep.config import FitConfig, compose
from sweep.store import Store, states
from sweep.store.collect import collect

SWEEP = [
    "grid=list",
    "model=tiny",
    "grid.runs=[" + ", ".join(f"{{N: {N}, D: {D}}}" for N in (3000, 5000, 8000) for D in (100_000, 200_000)) + "]",
    "data.validation_tokens=4096",
    "cluster.workers=1",
]


def start_launch(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sweep", "launch", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def curves(store: Store) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in store.root.glob("runs/*/curve.jsonl")}


def test_three_launches_and_a_reader_train_every_run_once(text_file: Path, tmp_path: Path) -> None:
    sweep = [*SWEEP, "data=text", f"data.paths=[{text_file}]"]
    shared = [*sweep, f"store={tmp_path / 'shared'}"]
    planned = plan_sweep(compose(shared))[0].runs
    store = Store(tmp_path / "shared")
    launches = [start_launch(shared) for _ in range(3)]
    seen = set()
    while any(launch.poll() is None for launch in launches):
        runs = collect(planned, store, FitConfig()).runs  # the runs are being written
        seen.add(int((runs["state"] == states.DONE).sum()))
        time.sleep(0.05)
    output = [launch.communicate()[0] for launch in launches]
    assert len(seen) > 2, seen  # the reader saw the sweep half-way
    for plan in planned:
        directory = store.run(plan.run.run_id)
        assert directory.status()["state"] == states.DONE, output
        assert len(json.loads((directory.path / "provenance.json").read_text())["starts"]) == 1
    assert main(["launch", *sweep, f"store={tmp_path / 'clean'}"]) == 0
    assert curves(store) == curves(Store(tmp_path / "clean"))
