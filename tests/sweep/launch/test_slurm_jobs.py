"""What is known of Slurm's jobs without a Slurm: claims, and how runs are packed. tests/faults/ has a real one."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import sweep.launch  # noqa: F401  # so that claims can ask about jobs
from sweep.claim import Claim, Owner
from sweep.launch.slurm import pack, time_limit_minutes
from sweep.plan.run import RunConfig


def leave(directory: Path, job: str) -> None:
    """The claim of a task on another machine."""
    directory.mkdir()
    owner = Owner(host="elsewhere", pid=1, started=1, job=job)
    (directory / "00000001.json").write_text(json.dumps(asdict(owner)))


def fake_squeue(directory: Path, script: str) -> str:
    """A PATH on which `squeue` is `script`: what each Slurm answers is known, only when is not."""
    path = directory / "squeue"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("script", "held"),
    [
        ("echo RUNNING", True),
        ("echo COMPLETING", True),
        ("echo PENDING", False),  # requeued: the start that claimed is over
        ("echo PREEMPTED", False),
        ("", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", True),  # not known: as long as it is heard
    ],
)
def test_slurm_is_asked_about_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, held: bool) -> None:
    monkeypatch.setenv("PATH", fake_squeue(tmp_path, script))
    leave(tmp_path / "claim", "12_3")
    assert Claim(tmp_path / "claim").held() is held


def test_a_restarted_job_takes_its_own_earlier_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", fake_squeue(tmp_path, "echo RUNNING"))
    for name, value in {"ARRAY_JOB_ID": "12", "ARRAY_TASK_ID": "3", "RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    leave(tmp_path / "claim", "12_3")
    assert Claim(tmp_path / "claim").take()
    leave(tmp_path / "other", "12_4")
    assert not Claim(tmp_path / "other").take()


def test_short_runs_share_a_task_and_long_or_unknown_ones_are_alone(tiny_run: RunConfig) -> None:
    runs = [replace(tiny_run, seed=seed) for seed in range(6)]
    tasks = pack(runs, [100, 10, None, 20, 30, 45], workers=2, task_s=50)
    assert [[run.seed for run in task.runs] for task in tasks] == [[2], [0], [5, 4, 3], [1]]
    assert [task.seconds for task in tasks] == [None, 100, 47.5, 10]
    assert time_limit_minutes(tasks) is None
    assert time_limit_minutes(tasks[1:]) == 15
    assert time_limit_minutes([replace(tasks[1], seconds=3600)]) == 95
