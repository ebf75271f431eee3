"""Commands that follow a sweep: status, watch, cancel, logs; and task, which Slurm jobs run."""

import json
import os
import signal
import time
from argparse import Namespace
from pathlib import Path

from sweep.commands import DONE, console
from sweep.commands.sweeps import composed, find_run_id, open_sweep
from sweep.errors import InputError
from sweep.store import Store

WATCH_S = 5


def status(options: Namespace) -> int:
    """Print where every run of a launched sweep is, with its loss and time left."""
    from sweep.follow.status import overview

    sweep = open_sweep(options)
    while True:
        view = overview(sweep.plan.runs, sweep.store, sweep.speed())
        screen = console(width=150)
        if options.watch and screen.is_terminal:
            screen.clear()
        screen.print(view.table(f"{sweep.config.name} in {sweep.store.root}"))
        print(view.totals())
        if not (options.watch and view.going()):
            return DONE
        time.sleep(WATCH_S)


def watch(options: Namespace) -> int:
    """Show a launched sweep as it goes: curves, throughput, time left, IsoFLOP minima as they form; q leaves it."""
    from sweep.follow.screen import watch as show

    sweep = open_sweep(options)
    show(sweep.plan, sweep.store, sweep.config.fit, console(width=150))
    return DONE


def cancel(options: Namespace) -> int:
    """Stop a sweep's runs, in the queue and on this machine; those in training write a checkpoint."""
    from sweep.launch import slurm

    sweep = open_sweep(options)
    store, ids = sweep.store, [planned.run.run_id for planned in sweep.plan.runs]
    queue = slurm.queued(store)
    tasks = [queue[run_id] for run_id in ids if run_id in queue]
    slurm.cancel(tasks)
    here = {owner.pid for run_id in ids if (owner := store.run(run_id).claim.living_here()) and not owner.job}
    for pid in here:
        os.kill(pid, signal.SIGTERM)
    print(f"cancelled {len({task.job for task in tasks})} tasks of Slurm and stopped {len(here)} processes here")
    return DONE


def logs(options: Namespace) -> int:
    """Print where a run is, why it failed if it did, and what its array task printed."""
    from sweep.launch import slurm

    store = Store(Path(composed(options).store))
    run_id = find_run_id(store, options.run_id)
    directory = store.run(run_id)
    if not directory.path.is_dir():
        raise InputError(f"run {run_id} has not begun in store={store.root}; isosweep launch trains it")
    print(f"{directory.path}: {json.dumps(directory.status())}")
    for path in (directory.traceback, *slurm.logs_of(store, run_id)):
        if path.exists():
            print(f"\n{path}\n{path.read_text(errors='replace').rstrip()}")
    return DONE


def task(options: Namespace) -> int:
    """Run one array task; slurm/array.sbatch calls it."""
    from sweep.launch.slurm import run_task

    return run_task(Path(options.submission), options.task)
