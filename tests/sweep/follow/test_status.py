"""The table of a sweep: what it shows of each run, its times, and what a narrow screen leaves out."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sweep.cli import main, parse
from sweep.commands import DONE
from sweep.commands.planning import COLUMNS
from sweep.commands.sweeps import open_sweep, sweep_folder
from sweep.follow.progress import SweepProgress
from sweep.follow.status import overview
from sweep.follow.watch import Watcher
from sweep.plan.estimate import Speed
from sweep.plan.run import RunConfig
from sweep.plan.written import SweepPlan
from sweep.store import Store
from sweep.train.events import Progress
from tests.stores import leave_status
from tests.sweep.follow.test_watch import sweep_of, write_plan


@pytest.fixture
def half_done(text_file: Path, tmp_path: Path) -> tuple[list[str], SweepPlan, Store]:
    """A sweep of twelve runs of which the first is done, the second in training at 1,000 tokens/s and the third failed."""
    overrides = sweep_of(text_file, tmp_path / "store")
    write_plan(overrides)
    store = Store(tmp_path / "store")
    plan = SweepPlan.read(sweep_folder(store, "watched"))
    assert plan is not None
    done, training, failed = (planned.run for planned in plan.runs[:3])
    for run in (done, training, failed):
        store.run(run.run_id).create(run)
    finished = {"val_loss": 2.125, "val_loss_se": 0.01, "elapsed_s": 3.0, "device": "cpu"}
    leave_status(store.run(done.run_id), "done", step=done.steps, steps=done.steps, **finished)
    store.run(done.run_id).throughput.write_text(json.dumps({"step": done.steps, "loss": 3.875, "tokens_per_s": 9e5}) + "\n")
    leave_status(store.run(training.run_id), "running", step=1, steps=training.steps)
    store.run(training.run_id).throughput.write_text('{"step": 4, "loss": 4.625, "tokens_per_s": 1000.0}\n')
    leave_status(store.run(failed.run_id), "failed", step=3, steps=failed.steps, error=f"ValueError: {'it broke ' * 9}")
    return overrides, plan, store


def test_status_and_watch_tell_the_same_times(half_done: tuple[list[str], SweepPlan, Store]) -> None:
    overrides, plan, store = half_done
    training = plan.runs[1].run
    with store.run(training.run_id).own():
        speed = open_sweep(parse("status", overrides)).speed()
        told, seen = overview(plan.runs, store, speed), Watcher(plan, store, plan.config.fit).look()
    left = (training.steps - 4) * training.batch_tokens / 1000  # at the speed that it has
    assert told.runs[1].seconds_left == seen.runs[1].seconds_left == pytest.approx(left)
    waiting = [speed.seconds(planned.run) or 0 for planned in plan.runs[3:]]
    assert told.seconds_left == seen.seconds_left == pytest.approx(left + sum(waiting))
    assert told.totals() == seen.totals()
    assert "1 done, 1 running, 1 failed" in told.totals().replace("9 waiting, ", "")


def test_a_speed_of_another_machine_gives_way_to_that_of_runs_in_training(tiny_run: RunConfig) -> None:
    reference = Speed.measured([], "cpu", 0)
    assert reference.borrowed
    half = reference.corrected([(tiny_run, reference.rate(tiny_run) / 2)])
    assert half.seconds(tiny_run) == pytest.approx(2 * (reference.seconds(tiny_run) or 0))
    assert not half.borrowed
    unknown = Speed.measured([], "cuda", 0)
    assert unknown.seconds(tiny_run) is None
    assert unknown.corrected([(tiny_run, 100.0)]).seconds(tiny_run) == pytest.approx(tiny_run.D / 100)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_run_id_is_cut_on_a_narrow_screen(
    columns: int,
    half_done: tuple[list[str], SweepPlan, Store],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Columns go instead, and a reason for which there is no room stands below."""
    overrides, plan, store = half_done
    monkeypatch.setenv("COLUMNS", str(columns))
    with store.run(plan.runs[1].run.run_id).own():
        for command in ("plan", "status", "watch"):
            assert main([command, *overrides]) == DONE
            printed = capsys.readouterr().out
            rows = [line for line in printed.splitlines() if re.match("[0-9a-f]{16} ", line) and " failed: " not in line]
            assert {len(row) <= columns for row in rows} == {True}, printed
            shown = {row.split()[0] for row in rows}
            assert shown == {p.run.run_id for p in (plan.runs[1:2] if command == "watch" else plan.runs)}
            if command != "watch":
                assert max(map(len, rows)) > columns - 20  # no more is left out than has to be
            if command != "plan":
                assert f"{plan.runs[2].run.run_id} failed: ValueError: it" in printed
            if command == "status":
                assert "2.125" in printed  # held out, and not the last batch
                assert "3.875" not in printed


def test_off_a_screen_nothing_is_left_out(
    half_done: tuple[list[str], SweepPlan, Store], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    overrides, plan, _ = half_done
    assert main(["plan", *overrides]) == DONE
    printed = capsys.readouterr().out
    assert "12 runs planned in" in printed.splitlines()[0]
    assert all(f" {heading} " in f" {printed.splitlines()[1]} " for heading in COLUMNS)
    assert main(["status", *overrides]) == DONE
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(plan.runs[2].run.run_id))
    assert "it broke it broke" in row


def test_the_first_seconds_of_a_launch_say_what_goes_on(tiny_run: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    with SweepProgress([tiny_run], Console()):
        assert "starting workers" in capsys.readouterr().out


@pytest.mark.parametrize(("columns", "speed"), [(60, False), (80, True)])
def test_bars_fit_the_screen(columns: int, speed: bool, tiny_run: RunConfig) -> None:
    screen = StringIO()
    with SweepProgress([tiny_run], Console(file=screen, force_terminal=True, width=columns, legacy_windows=False)) as show:
        assert "starting workers" in screen.getvalue()
        show(Progress(run_id=tiny_run.run_id, step=6, steps=12, loss=4.5, tokens_per_s=123_456.0))
        show.bars.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "loss 4.500" in shown
    assert ("123,456 tokens/s" in shown) == speed
    assert "…" not in shown
