"""Commands that train: launch, train, wandb-sync."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands import DONE, SOME_RUNS_FAILED, console
from sweep.commands.corpora import corpus_of, make_corpus
from sweep.commands.sweeps import (
    FAMILY,
    composed,
    find_run,
    make_plan,
    members_of,
    open_sweep,
    plan_sweep,
    planned_keep,
    sweep_folder,
)
from sweep.config import SweepConfig, compose_with_choices
from sweep.errors import InputError
from sweep.files import write_json, writing
from sweep.plan import code
from sweep.plan.run import RunConfig
from sweep.plan.written import FILE, SweepPlan
from sweep.store import Store, states
from sweep.words import counted

if TYPE_CHECKING:
    from sweep.data import Corpus
    from sweep.launch.launchers import Watch
    from sweep.tracking import Tracker
    from sweep.train.events import Event


def launch(options: Namespace) -> int:
    """Write the plan, make the corpus if it is missing, and train every run that is not done.

    With NAME, the launched sweep of that name as its plan is written; else the sweep composed from conf/ and the overrides.
    """
    if options.sweep:
        sweep = open_sweep(options)
        sweep.store.require_writable()
        runs = [planned.run for planned in sweep.plan.runs]
        return launch_runs(sweep.config, runs, corpus_of(sweep.plan, sweep.store), options.retry)
    from sweep.launch import launchers

    config, choices = compose_with_choices(options.overrides, config_dir=options.config_dir)
    if config.sweeps:
        return _launch_family(config, options)
    launchers.of(config.cluster.launcher)  # an unknown name is found before anything is written
    _, recipe = plan_sweep(config)  # an error in the grid is found before anything is written
    corpus = make_corpus(config, recipe)
    # Again, now that the number of training tokens is known exactly.
    plan = make_plan(config, recipe, choices, options.overrides)
    folder = sweep_folder(Store(Path(config.store)), config.name)
    try:
        if changes := plan.changes_from(SweepPlan.read(folder)):
            print(f"{folder.name}: {changes} since its last launch")
    except InputError as error:
        print(f"isosweep: {error}; that is done now", file=sys.stderr)
    plan.write(folder)
    (folder / FAMILY).unlink(missing_ok=True)
    return launch_runs(config, [planned.run for planned in plan.runs], corpus, options.retry)


def _launch_family(config: SweepConfig, options: Namespace) -> int:
    """Launch each of `config.sweeps`, after all are planned and it is written down which they are; the worst exit code."""
    from sweep.launch import launchers

    folder, members = sweep_folder(Store(Path(config.store)), config.name), members_of(config, options)
    for each in members.values():
        plan_sweep(composed(each))
    with writing(folder):
        write_json(folder / FAMILY, {label: f"{config.name}-{label}" for label in members})
        (folder / FILE).unlink(missing_ok=True)
    worst = DONE
    for each in members.values():
        worst = max(worst, launch(each))
        if launchers.of(config.cluster.launcher).waits and unfinished(composed(each)):  # it was stopped
            break
    return worst


def unfinished(config: SweepConfig) -> bool:
    """Whether a launched sweep, or one of those that go by its name, has runs that have neither ended nor failed."""
    names = [f"{config.name}-{label}" for label in config.sweeps] if config.sweeps else [config.name]
    ended = (*states.FINAL_STATES, states.FAILED)
    store = Store(Path(config.store))
    plans = [SweepPlan.read(sweep_folder(store, name)) for name in names]
    statuses = [store.statuses(each.run for each in plan.runs) for plan in plans if plan is not None]
    return any(status["state"] not in ended for found in statuses for status in found.values())


def launch_runs(config: SweepConfig, runs: Sequence[RunConfig], corpus: "Corpus", retry: str | None = None) -> int:
    """Train those of `runs` that are missing, where `config.cluster` says; with retry="failed", those that failed before."""
    from sweep.launch import launchers
    from sweep.plan.cost import worth_compiling
    from sweep.plan.device import resolve_device
    from sweep.tracking import Tracker

    launcher, device = launchers.of(config.cluster.launcher), resolve_device(config.device)
    store = Store(Path(config.store).resolve())
    code.keep((run.model for run in runs), store.root)
    todo, left_out = runs_to_launch(runs, store, retry)
    new = todo if launcher.waits else launchers.not_taken(todo, store)
    taken = "" if launcher.waits else f"{len(todo) - len(new)} queued or running, "
    finished = len(runs) - len(todo) - left_out
    print(f"{config.name}: {counted(len(runs), 'run')}, {finished} finished before, {taken}{len(new)} to train on {device}")
    tracker = Tracker.of(config)
    what = launchers.Launch(
        name=config.name,
        store=store,
        corpus=corpus.directory.resolve(),
        device=device,
        cluster=config.cluster,
        compile=config.runtime.compile,
        keep=config.evaluation.keep,
        worth_compiling=worth_compiling(runs),
        speed=store.speed_seen(runs, device, config.data.validation_tokens, config.cluster.threads),
        tracker=asdict(tracker),
    )
    told = launcher.submit(new, what, watching(tracker, store, finished=[run.run_id for run in runs if run not in todo]))
    if told:
        print(told)
    return _report_states(runs, store) if launcher.waits else DONE


def runs_to_launch(runs: Sequence[RunConfig], store: Store, retry: str | None) -> tuple[list[RunConfig], int]:
    """The runs that a launch should train, and how many it leaves out because they failed before.

    A run that failed would probably fail again. With retry="failed" only those runs are trained.
    """
    todo = store.unfinished(runs)
    statuses = store.statuses(todo)
    failed = [run for run in todo if statuses[run.run_id]["state"] == states.FAILED]
    if retry == "failed":
        return failed, 0
    if failed:
        again = "it" if len(failed) == 1 else "them"
        print(f"left out: {counted(len(failed), 'run')} that failed before; launch --retry failed trains {again} again")
    return [run for run in todo if run not in failed], len(failed)


def watching(
    tracker: "Tracker | None",
    store: Store,
    *,
    screen: bool = True,
    finished: Iterable[str] = (),
    stopping_timeout_s: float | None = None,
) -> "Watch":
    """Mirror the runs of a launch to `tracker`, if there is one, and show their progress.

    Args:
        tracker: where to mirror to.
        store: where the runs are.
        screen: whether to show progress.
        finished: run_ids of finished runs, which are mirrored too.
        stopping_timeout_s: seconds to wait for wandb at the end if the launch was asked to stop; as usual if None.
    """
    from sweep.follow.progress import SweepProgress
    from sweep.tracking.mirror import Mirror

    @contextmanager
    def watch(runs: Sequence[RunConfig], stopping: Callable[[], bool]) -> "Iterator[Callable[[Event], None]]":
        with Mirror(tracker, store, _warn_of_wandb, labels=planned_labels(tracker, store)) as mirror:
            mirror.send(finished)
            with SweepProgress(runs, console()) if screen and runs else nullcontext(lambda event: None) as progress:

                def report(event: "Event") -> None:
                    progress(event)
                    mirror(event)

                yield report
            if stopping_timeout_s is not None and stopping():
                mirror.timeout_s = stopping_timeout_s
        if mirror.delivered:
            print(mirror.summary())

    return watch


def _warn_of_wandb(text: str) -> None:
    print(f"isosweep: wandb: {text}; training is not affected; isosweep wandb-sync sends what wandb lacks", file=sys.stderr)


def planned_labels(tracker: "Tracker | None", store: Store) -> dict[str, dict[str, Any]]:
    """By run_id, the budget and the labels that the plan of the tracker's sweep gives a run."""
    with suppress(InputError):  # a damaged plan stops no mirror
        if tracker and tracker.kind != "none" and (plan := SweepPlan.read(sweep_folder(store, tracker.group))):
            return {each.run.run_id: ({"budget": each.budget} if each.budget else {}) | dict(each.labels) for each in plan.runs}
    return {}


def train(options: Namespace) -> int:
    """Train one run in this process, or together with the other processes of torchrun or srun."""
    from sweep.data import Corpus
    from sweep.launch.worker import train_together
    from sweep.plan.device import require_device, resolve_device
    from sweep.tracking import Tracker
    from sweep.train.ranks import Parallel

    config = composed(options)
    device = resolve_device(config.device)
    require_device(device)
    parallel = Parallel.from_environment(device, config.cluster.strategy)
    store = Store(Path(config.store).resolve())

    def find() -> tuple[RunConfig, Corpus, int]:
        run = find_run(store, options.run_id)
        return run, Corpus.open(store.corpora / run.corpus), config.evaluation.keep or planned_keep(store, run.run_id)

    return train_together(parallel, find, store, config.cluster, config.runtime.compile, watching(Tracker.of(config), store))


def _report_states(runs: Sequence[RunConfig], store: Store) -> int:
    """Print which of `runs` are not done and why, and return the exit code."""
    statuses = store.statuses(runs)
    counts = Counter(status["state"] for status in statuses.values())
    print(", ".join(f"{count} {state}" for state, count in counts.most_common()))
    for run_id, status in statuses.items():
        if status["state"] == states.FAILED:
            print(f"  {run_id} failed: {status['error']} (see {store.run(run_id).path})")
        if status["state"] == states.DIVERGED:
            print(f"  {run_id} diverged at step {status['step']}: its loss was not finite; a lower optimizer.lr_scale may help")
    if counts[states.FAILED]:
        print("launch --retry failed trains what failed again, from its last checkpoint")
    if any(status["state"] not in (*states.FINAL_STATES, states.FAILED) for status in statuses.values()):
        print("the same command again resumes what is not finished")
    return DONE if counts[states.DONE] == len(runs) else SOME_RUNS_FAILED


def wandb_sync(options: Namespace) -> int:
    """Send wandb the parts of the sweep's curves that it does not have."""
    from sweep.tracking import Tracker
    from sweep.tracking.mirror import Mirror

    sweep = open_sweep(options)
    mode = "offline" if "tracker.mode=offline" in options.overrides else "online"  # whatever the launch's was
    tracker = replace(Tracker.of(sweep.config), kind="wandb", mode=mode)
    with Mirror(tracker, sweep.store, labels=planned_labels(tracker, sweep.store), patient=True) as mirror:
        mirror.send(planned.run.run_id for planned in sweep.plan.runs)
    if mirror.unreachable:
        raise InputError(f"wandb: {mirror.warnings[0]}; tracker.mode=offline writes offline runs")
    for warning in mirror.warnings:
        print(f"isosweep: wandb: {warning}", file=sys.stderr)
    print(mirror.summary() or "nothing to send")
    return SOME_RUNS_FAILED if mirror.warnings else DONE
