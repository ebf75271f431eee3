"""Commands that follow a sweep: status, watch, cancel, logs, and task, which is what a Slurm job runs."""

import json
import os
import signal
import time
from argparse import Namespace
from pathlib import Path

from sweep.commands import DONE
from sweep.commands.shared import composed, console, plan_runs
from sweep.errors import InputError
from sweep.store import Store

WATCH_S = 5


def status(options: Namespace) -> int:
    """Print where every run of the sweep is; with `watch`, until nothing is running or queued."""
    from sweep.follow.status import overview

    config = composed(options)
    while True:
        planned, _ = plan_runs(config)
        view = overview(planned, Store(Path(config.store)), config)
        screen = console(width=150)
        if options.watch and screen.is_terminal:
            screen.clear()
        screen.print(view.table(f"{config.name} in {config.store}"))
        print(view.totals())
        if not (options.watch and view.going()):
            return DONE
        time.sleep(WATCH_S)


def watch(options: Namespace) -> int:
    """Show the sweep as it goes, until it ends or the user leaves."""
    from sweep.follow.screen import watch as show

    config = composed(options)
    planned, _ = plan_runs(config)
    show(planned, Store(Path(config.store)), config, console(width=150))
    return DONE


def cancel(options: Namespace) -> int:
    """Stop the sweep's runs, in the queue and on this machine; those that run write a checkpoint."""
    from sweep.launch import slurm

    config = composed(options)
    store = Store(Path(config.store))
    planned, _ = plan_runs(config)
    ids = [p.run.run_id for p in planned]
    queue = slurm.queued(store)
    tasks = [queue[run_id] for run_id in ids if run_id in queue]
    slurm.cancel(tasks)
    here = {owner.pid for run_id in ids if (owner := store.run(run_id).claim.living_here()) and not owner.job}
    for pid in here:
        os.kill(pid, signal.SIGTERM)
    print(f"cancelled {len({task.job for task in tasks})} tasks of Slurm and stopped {len(here)} processes here")
    return DONE


def logs(options: Namespace) -> int:
    """Print what is known of one run: where it is, why it failed, and what its array task printed."""
    from sweep.launch import slurm

    config = composed(options)
    store = Store(Path(config.store))
    directory = store.run(options.run_id)
    if not directory.path.is_dir():
        raise InputError(f"run_id={options.run_id} is not in store={config.store}; isosweep status lists the runs there are")
    print(f"{directory.path}: {json.dumps(directory.status())}")
    for path in (directory.traceback, *slurm.logs_of(store, options.run_id)):
        if path.exists():
            print(f"\n{path}\n{path.read_text(errors='replace').rstrip()}")
    return DONE


def task(options: Namespace) -> int:
    """Be an array task: what slurm/array.sbatch runs."""
    from sweep.launch.slurm import run_task

    return run_task(Path(options.submission), options.task)
