"""Commands that follow a sweep: status, watch, cancel, logs; and task, which Slurm jobs run."""

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands import DONE, columns, console
from sweep.commands.sweeps import composed, find_run_id, open_sweep
from sweep.commands.training import watching
from sweep.errors import InputError
from sweep.store import Store

if TYPE_CHECKING:
    from sweep.launch.launchers import Watch

WATCH_S = 5


def status(options: Namespace) -> int:
    """Print where every run of a launched sweep is, with its loss and time left."""
    from sweep.follow.status import overview

    sweep = open_sweep(options)
    while True:
        view = overview(sweep.plan.runs, sweep.store, sweep.speed())
        screen = console()
        if options.watch and screen.is_terminal:
            screen.clear()
        screen.print(view.table(f"{sweep.config.name} in {sweep.store.root}", columns()), soft_wrap=True)
        print(view.totals())
        if not (options.watch and view.going):
            return DONE
        time.sleep(WATCH_S)


def watch(options: Namespace) -> int:
    """Show a launched sweep as it goes: curves, throughput, time left, IsoFLOP minima as they form; q leaves it."""
    from sweep.follow.screen import watch as show

    sweep = open_sweep(options)
    show(sweep.plan, sweep.store, sweep.config.fit, console())
    return DONE


def cancel(options: Namespace) -> int:
    """Stop a sweep's runs, in the queue and on this machine; those in training write a checkpoint."""
    from sweep.launch import launchers

    sweep = open_sweep(options)
    unfinished = sweep.store.unfinished(planned.run for planned in sweep.plan.runs)
    print(launchers.cancel(sweep.store, [run.run_id for run in unfinished]))
    return DONE


def logs(options: Namespace) -> int:
    """Print where a run is, why it failed if it did, and what its array task printed."""
    from sweep.launch import launchers

    store = Store(Path(composed(options).store))
    run_id = find_run_id(store, options.run_id)
    directory = store.run(run_id)
    if not directory.path.is_dir():
        raise InputError(f"run {run_id} has not begun in store={store.root}; isosweep launch trains it")
    print(f"{directory.path}: {json.dumps(directory.status())}")
    for path in (directory.traceback, *launchers.logs(store, run_id)):
        if path.exists():
            print(f"\n{path}\n{path.read_text(errors='replace').rstrip()}")
    return DONE


def task(options: Namespace) -> int:
    """Run one array task; slurm/array.sbatch calls it."""
    from sweep.launch.task import run_task
    from sweep.tracking import Tracker

    def watch_for(tracker: dict[str, Any] | None, store: Store) -> "Watch":
        # A task that must stop does not wait long for wandb: its next start goes on with that.
        return watching(Tracker(**tracker) if tracker else None, store, screen=False, stopping_timeout_s=5)

    return run_task(Path(options.submission), options.task, watch_for)
