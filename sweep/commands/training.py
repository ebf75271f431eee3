"""Commands that train: launch, train, wandb-sync."""

import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import DONE, SOME_RUNS_FAILED, console
from sweep.commands.corpora import corpus_of, make_corpus
from sweep.commands.sweeps import composed, find_run_id, make_plan, open_sweep, plan_sweep, planned_run, sweep_folder
from sweep.config import SweepConfig, compose_with_choices
from sweep.errors import InputError
from sweep.plan.run import RunConfig
from sweep.plan.written import SweepPlan
from sweep.store import Store, states
from sweep.store.statuses import speed_seen

if TYPE_CHECKING:
    from sweep.data import Corpus


def launch(options: Namespace) -> int:
    """Write the plan, make the corpus if it is missing, and train every run that is not done.

    With NAME, the launched sweep of that name as its plan is written; else the sweep composed from conf/ and the overrides.
    """
    if options.sweep:
        sweep = open_sweep(options)
        runs = [planned.run for planned in sweep.plan.runs]
        return launch_runs(sweep.config, runs, corpus_of(sweep.plan, sweep.store), options.retry)
    config, choices = compose_with_choices(options.overrides, config_dir=options.config_dir)
    _, recipe = plan_sweep(config)  # an error in the grid is found before anything is written
    corpus = make_corpus(config, recipe)
    # Again, now that the number of training tokens is known exactly.
    plan = make_plan(config, recipe, choices, options.overrides)
    folder = sweep_folder(Store(Path(config.store)), config.name)
    if changes := plan.changes_from(SweepPlan.read(folder)):
        print(f"{folder.name}: {changes} since its last launch")
    plan.write(folder)
    return launch_runs(config, [planned.run for planned in plan.runs], corpus, options.retry)


def launch_runs(config: SweepConfig, runs: Sequence[RunConfig], corpus: "Corpus", retry: str | None = None) -> int:
    """Train those of `runs` that are missing, where `config.cluster` says; with retry="failed", those that failed before."""
    if config.cluster.launcher == "slurm":
        return submit_missing(config, runs, corpus, retry)
    return train_missing(config, runs, corpus, retry)


def submit_missing(config: SweepConfig, runs: Sequence[RunConfig], corpus: "Corpus", retry: str | None = None) -> int:
    """Submit those of `runs` that are neither finished nor queued nor running as a Slurm array, and return."""
    from sweep.launch import slurm
    from sweep.tracking.mirror import Tracker

    assert config.cluster.slurm is not None
    store = Store(Path(config.store).resolve())
    todo, left_out = runs_to_launch(runs, store, retry)
    queue = slurm.queued(store)
    new = [run for run in todo if run.run_id not in queue and not store.run(run.run_id).claim.held()]
    finished = len(runs) - len(todo) - left_out
    print(f"{config.name}: {len(runs)} runs, {finished} finished before, {len(todo) - len(new)} queued or running")
    if new:
        speed = speed_seen(store, runs, config.device, config.data.validation_tokens)
        seconds = [speed.seconds(run, store.run(run.run_id).status()["step"]) for run in new]
        tasks = slurm.pack(new, seconds, workers=slurm.workers(config.cluster), task_s=60 * config.cluster.slurm.task_minutes)
        what = slurm.Submission(
            name=config.name,
            store=store,
            corpus=corpus.directory,
            device=config.device,
            cluster=config.cluster,
            compile=config.runtime.compile,
            tracker=Tracker.of(config),
        )
        jobs = slurm.submit(tasks, what)
        print(f"submitted {len(new)} runs in {len(tasks)} tasks: job {', '.join(jobs)}")
    return DONE


def runs_to_launch(runs: Sequence[RunConfig], store: Store, retry: str | None) -> tuple[list[RunConfig], int]:
    """The runs that a launch should train, and how many it leaves out because they failed before.

    A run that failed would probably fail again. With retry="failed" only those runs are trained.
    """
    from sweep.launch.local import missing

    todo = missing(runs, store)
    failed = [run for run in todo if store.run(run.run_id).status()["state"] == states.FAILED]
    if retry == "failed":
        return failed, 0
    if failed:
        print(f"{len(failed)} runs failed before and are left out; launch --retry failed trains them again")
    return [run for run in todo if run not in failed], len(failed)


def train_missing(config: SweepConfig, runs: Sequence[RunConfig], corpus: "Corpus", retry: str | None = None) -> int:
    """Train those of `runs` that are not finished in a local pool, print how it went, and return the exit code."""
    from sweep.follow.progress import SweepProgress
    from sweep.follow.status import duration
    from sweep.launch.local import Pool, pool_size
    from sweep.plan.cost import worth_compiling
    from sweep.plan.device import require_device, resolve_device
    from sweep.tracking.mirror import Mirror, Tracker
    from sweep.train.engine import native_available

    device = resolve_device(config.device)
    require_device(device)
    if device == "cpu" and config.runtime.compile == "auto" and (reason := native_available()):
        print(f"isosweep: {reason}; a step is torch's own, several times slower: install g++, or set CXX", file=sys.stderr)
    store = Store(Path(config.store).resolve())
    todo, left_out = runs_to_launch(runs, store, retry)
    finished = len(runs) - len(todo) - left_out
    print(f"{config.name}: {len(runs)} runs, {finished} finished before, {len(todo)} to train on {device}")
    pool = Pool(
        store=store.root,
        corpus=corpus.directory.resolve(),
        device=device,
        workers=pool_size(config.cluster, device),
        threads=config.cluster.threads,
        cluster=config.cluster,
        compile=config.runtime.compile,
        worth_compiling=worth_compiling(runs),
    )
    start = time.monotonic()
    with Mirror(Tracker.of(config), store, _warn_of_wandb) as mirror:
        mirror.send(run.run_id for run in runs if run not in todo)
        if todo:
            with SweepProgress(todo, console()) as progress:
                outcomes = pool.run(todo, mirror.beside(progress))
            wall = time.monotonic() - start
            share = sum(outcome.training_s for outcome in outcomes) / (wall * min(pool.workers, len(todo)))
            print(f"trained in {duration(wall)}, {share:.0%} of it in training steps, in {store.root}")
    if mirror.delivered:
        print(mirror.summary())
    return _report_states(runs, store)


def _warn_of_wandb(text: str) -> None:
    print(f"isosweep: wandb: {text}; training is not affected, and isosweep wandb-sync sends what wandb lacks", file=sys.stderr)


def train(options: Namespace) -> int:
    """Train one run in this process, or together with the other processes of torchrun or srun."""
    from sweep.data import Corpus
    from sweep.launch.torchrun import train_together
    from sweep.plan.device import require_device, resolve_device
    from sweep.tracking.mirror import Tracker
    from sweep.train.ranks import Parallel

    config = composed(options)
    device = resolve_device(config.device)
    require_device(device)
    parallel = Parallel.from_environment(device, config.cluster.strategy)
    store = Store(Path(config.store).resolve())
    tracker = Tracker.of(config)

    def find() -> tuple[RunConfig, Corpus]:
        run = planned_run(store, find_run_id(store, options.run_id))
        return run, Corpus.open(store.corpora / run.corpus)

    return train_together(parallel, find, store, config.cluster, config.runtime.compile, tracker)


def _report_states(runs: Sequence[RunConfig], store: Store) -> int:
    """Print which of `runs` are not done and why, and return the exit code."""
    statuses = {run.run_id: store.run(run.run_id).status() for run in runs}
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
    from sweep.tracking.mirror import Mirror, Tracker

    sweep = open_sweep(options)
    mode = "offline" if "tracker.mode=offline" in options.overrides else "online"  # whatever the launch's was
    tracker = replace(Tracker.of(sweep.config), kind="wandb", mode=mode)
    with Mirror(tracker, sweep.store, patient=True) as mirror:
        mirror.send(planned.run.run_id for planned in sweep.plan.runs)
    if mirror.unreachable:
        raise InputError(f"wandb: {mirror.warnings[0]}; tracker.mode=offline writes offline runs")
    for warning in mirror.warnings:
        print(f"isosweep: wandb: {warning}", file=sys.stderr)
    print(mirror.summary() or "nothing to send")
    return SOME_RUNS_FAILED if mirror.warnings else DONE
