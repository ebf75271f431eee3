"""Commands on what a store holds: list and clean."""

import sys
from argparse import Namespace
from datetime import datetime
from pathlib import Path

from sweep.commands import DONE, columns, console
from sweep.commands.sweeps import composed, open_sweep
from sweep.errors import InputError
from sweep.store import Store
from sweep.words import counted

COLUMNS = ("sweep", "runs", "done", "launched", "on disk", "checkpoints", "figures")
LEAST = ("figures", "launched", "done", "checkpoints")
LOSES = "evaluate and export cannot read these runs then, and their curves and losses stay"


def list_sweeps(options: Namespace) -> int:
    """Print the sweeps of a store, and what they take on disk."""
    from rich.filesize import decimal

    from sweep.follow.disk import size_of, sweeps, without_plan
    from sweep.follow.status import text_table

    store = Store(Path(composed(options).store))
    if not (found := sweeps(store)):
        raise InputError(f"no sweep was launched into store={store.root}; isosweep launch does that, or name another store=…")
    rows = []
    for each in found:
        when = datetime.fromtimestamp(each.launched).strftime("%Y-%m-%d %H:%M")
        runs = ("?", "?") if each.run_ids is None else (f"{len(each.run_ids):,}", f"{each.done:,}")
        rows.append((each.name, *runs, when, *map(decimal, (each.run_bytes, each.checkpoint_bytes, each.own_bytes))))
    title = f"{counted(len(found), 'sweep')} in {store.root}"
    table = text_table(COLUMNS, rows, left=("sweep", "launched"), title=title, width=columns(), least=LEAST)
    console().print(table, soft_wrap=True)
    print(f"in all {decimal(size_of(store.root))}, {decimal(size_of(store.corpora))} of it corpora")
    if problems := [each.problem for each in found if each.problem]:
        print("\n".join(problems))
    elif orphans := without_plan(store, found):
        size = decimal(sum(size_of(run.path) for run in orphans))
        print(f"{counted(len(orphans), 'run')}, {size}, in no plan: isosweep clean SWEEP --orphans shows and deletes them")
    print("isosweep clean SWEEP deletes the checkpoints of its finished runs")
    return DONE


def clean(options: Namespace) -> int:
    """Delete the checkpoints of a sweep's finished runs, the kept ones too, after showing what that is and asking.

    Nothing is deleted of a run that is being trained or queued, nor a checkpoint of an unfinished run, from which it would
    resume, unless --unfinished asks for that. --orphans also deletes the runs of the store that belong to no plan, with their
    curves and losses: those that a later plan dropped, and those that train.py or train-optimal trained by themselves.
    """
    from rich.filesize import decimal

    from sweep.follow.disk import deletable, delete, folders, size_of, sweeps, without_plan

    sweep = open_sweep(options)
    store, unfinished = sweep.store, options.unfinished
    runs = [store.run(planned.run.run_id) for planned in sweep.plan.runs]
    found = deletable(runs, store, whole=False, unfinished=unfinished)
    orphans = without_plan(store, sweeps(store)) if options.orphans else []
    alone = deletable(orphans, store, whole=True, unfinished=unfinished)
    print(f"checkpoints of {counted(len(found), 'run')} of {sweep.config.name}, {decimal(sum(each.size for each in found))}")
    if found:
        print(f"  {LOSES}")
    going = {each.run.path for each in found}
    kept = [run for run in runs if any(map(any, (each.glob("*") for each in folders(run)))) and run.path not in going]
    if kept:
        size = decimal(sum(size_of(folder) for run in kept for folder in folders(run)))
        print(f"  {counted(len(kept), 'run')} not finished, or in training: {size} of checkpoints stay")
    if options.orphans:
        print(f"{counted(len(alone), 'run')} in no plan, {decimal(sum(each.size for each in alone))}, with curves and losses")
    for each in alone:
        print(f"  {each.run.path.name}  {each.state:11}  {decimal(each.size)}")
    if len(orphans) > len(alone):
        print(f"  {counted(len(orphans) - len(alone), 'run')} more not finished, or in training: kept")
    if not found and not alone:
        print("there is nothing to delete")
        return DONE
    if not options.yes and not _agreed():
        print("nothing was deleted")
        return DONE
    print(f"deleted {decimal(delete([*found, *alone], print))}")
    return DONE


def _agreed() -> bool:
    """Whether the user wants that. Raises InputError if nobody can be asked."""
    if not sys.stdin or not sys.stdin.isatty():
        raise InputError("nobody is there to be asked, and nothing was deleted; --yes deletes without asking")
    try:
        return input("delete that? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
