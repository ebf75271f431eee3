"""Weights that are kept along a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.cli import main
from sweep.commands import DONE
from sweep.commands.sweeps import planned_keep
from sweep.config import ClusterConfig, SlurmConfig
from sweep.data import Corpus
from sweep.files import read_json, write_sealed
from sweep.launch import task as tasks
from sweep.launch.launchers import Launch
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store, states
from sweep.store.manifest import read_manifest
from sweep.store.runs import disk_bytes
from sweep.train.checkpoint import kept_steps, load_checkpoint, load_entry
from sweep.train.loop import train
from sweep.train.runtime import Runtime
from tests.sweep.train.processes import free_port, rank_environment
from tests.sweep.train.test_torchrun import PATIENCE_S, start


def kept(directory: RunDirectory) -> dict[int, dict[str, Any]]:
    """The kept weights by step."""
    return {each["step"]: load_entry(directory.kept, each)["model"] for each in read_manifest(directory.kept)}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("steps", "keep", "expected"),
    [
        (1000, 8, (8, 16, 31, 62, 125, 250, 500, 1000)),  # each at half the step of the next
        (100, 5, (6, 12, 25, 50, 100)),
        (10, 8, (1, 2, 3, 4, 5, 6, 7, 10)),  # closer, where there are few
        (3, 8, (1, 2, 3)),
        (7, 1, (7,)),
        (7, 0, ()),
    ],
)
def test_the_steps_are_log_spaced_and_the_last_is_the_end(steps: int, keep: int, expected: tuple[int, ...]) -> None:
    assert kept_steps(steps, keep) == expected


def test_there_are_as_many_as_asked_for_and_no_step_twice() -> None:
    for steps in range(1, 130):
        for keep in range(1, 40):
            found = kept_steps(steps, keep)
            assert len(set(found)) == len(found) == min(keep, steps)
            assert (found[-1], min(found) >= 1, list(found)) == (steps, True, sorted(found))


@pytest.mark.parametrize("compile", ["auto", "off"])
def test_they_are_the_weights_of_their_steps_and_change_nothing(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, compile: str
) -> None:
    runtime = Runtime(keep=4, compile=compile)
    directory, plain = (Store(tmp_path / name).run(tiny_run.run_id) for name in ("keeping", "plain"))
    assert (
        train(tiny_run, corpus, directory, runtime) == train(tiny_run, corpus, plain, replace(runtime, keep=0)) == states.DONE
    )
    assert directory.curve.read_bytes() == plain.curve.read_bytes()
    assert not plain.kept.exists()
    found = kept(directory)
    assert tuple(found) == kept_steps(12, 4)[:-1] == (2, 3, 6)  # the last is the run's own checkpoint
    for step, weights in found.items():
        stopped = Store(tmp_path / f"stopped-{step}").run(tiny_run.run_id)
        train(tiny_run, corpus, stopped, replace(runtime, keep=0), should_stop=lambda done, step=step: done == step)  # type: ignore[misc]
        checkpoint = load_checkpoint(stopped.checkpoints)
        assert checkpoint is not None
        assert same(weights, checkpoint["model"])


def test_a_run_that_diverges_keeps_nothing_from_after_that(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    wild = replace(tiny_run, optimizer=replace(tiny_run.optimizer, peak_lr=1e30))
    directory = Store(tmp_path).run(wild.run_id)
    assert train(wild, corpus, directory, Runtime(keep=12, log_interval_s=100)) == states.DIVERGED
    assert set(kept(directory)) == set(range(1, directory.status()["step"] + 1))
    assert all(torch.isfinite(value).all() for weights in kept(directory).values() for value in weights.values())


def test_room_for_them_is_counted(tiny_run: RunConfig) -> None:
    assert disk_bytes(tiny_run, 5) - disk_bytes(tiny_run) > 4 * 4 * tiny_run.N
    assert disk_bytes(tiny_run, 1) == disk_bytes(tiny_run, 0)
    assert disk_bytes(tiny_run, 10**6) == disk_bytes(tiny_run, tiny_run.steps)


def test_launch_keeps_list_counts_and_clean_deletes_them(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"store={tmp_path / 's'}"
    sweep = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "device=cpu", store]
    sweep += ["grid=list", "grid.runs=[{N: 3e3, D: 5e4}]", "evaluation.keep=4", "name=keeping"]
    assert main(["launch", *sweep]) == DONE
    (path,) = (tmp_path / "s" / "runs").iterdir()
    directory = RunDirectory(path)
    run = directory.config()
    assert tuple(kept(directory)) == kept_steps(run.steps, 4)[:-1]
    assert planned_keep(Store(tmp_path / "s"), run.run_id) == 4
    assert "evaluation.keep" not in (path / "config.yaml").read_text()
    assert main(["clean", "keeping", store, "--yes"]) == DONE
    assert not list(directory.kept.iterdir())
    assert not list(directory.checkpoints.iterdir())
    assert main(["plan", "keeping", store, "evaluation.keep=9"]) == DONE  # it makes no other runs
    capsys.readouterr()


def test_a_slurm_task_keeps_them(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    cluster = ClusterConfig(slurm=SlurmConfig(), workers="1")
    store = Store(tmp_path / "store")
    launch = Launch(name="x", store=store, corpus=corpus.directory, device="cpu", cluster=cluster, keep=3)
    tasks.write_tasks(tmp_path, [tasks.Task(runs=(tiny_run,), seconds=None)], launch)
    from sweep.commands.training import watching

    assert tasks.run_task(tmp_path, 0, lambda fields, store: watching(None, store, screen=False)) == 0
    assert tuple(kept(store.run(tiny_run.run_id))) == (3, 6)
    # A submission of a version that knew no evaluation.keep.
    values = read_json(tmp_path / "tasks.json", dict, "")
    del values["keep"]
    write_sealed(tmp_path / "tasks.json", values)
    assert tasks.run_task(tmp_path, 0, lambda fields, store: watching(None, store, screen=False)) == 0


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_ranks_keep_the_whole_weights(tiny_run: RunConfig, corpus: Corpus, tmp_path: Path, strategy: str) -> None:
    store = Store(tmp_path / "store")
    store.corpora.mkdir(parents=True)
    (store.corpora / corpus.fingerprint).symlink_to(corpus.directory)
    directory = store.run(tiny_run.run_id)
    directory.create(tiny_run)
    overrides = {"store": store.root, "device": "cpu", "cluster.strategy": strategy, "evaluation.keep": 3}
    command = ["-m", "sweep", "train", tiny_run.run_id, *(f"{name}={value}" for name, value in overrides.items())]
    port = free_port()
    ranks = [start(command, **rank_environment(rank, 2, port)) for rank in range(2)]
    assert [rank.wait(PATIENCE_S) for rank in ranks] == [0, 0]
    alone = Store(tmp_path / "alone").run(tiny_run.run_id)
    train(tiny_run, corpus, alone, Runtime(keep=3, compile="off"))
    found, expected = kept(directory), kept(alone)
    assert tuple(found) == tuple(expected) == (3, 6)
    for step, weights in found.items():
        for name, value in weights.items():
            assert torch.allclose(value, expected[step][name], atol=1e-4), (step, name)
