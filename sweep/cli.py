"""The command line: `isosweep <command> key=value …`, the same as `python -m sweep <command> key=value …`."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import store as states
from sweep.config import FitConfig, SweepConfig, compose
from sweep.errors import InputError
from sweep.files import write_atomically, write_json
from sweep.run import RunConfig
from sweep.store import Store

if TYPE_CHECKING:
    from rich.console import Console

    from sweep.data import Corpus, CorpusRecipe
    from sweep.fit import Curve, Fits, RunTable
    from sweep.grid import PlannedRun

DONE, SOME_RUNS_FAILED, BAD_INPUT = 0, 1, 2
RUN_ID_DIGITS, WATCH_S = 16, 5
PLAN_COLUMNS = ["run", "budget", "N", "width", "layers", "D", "D/N", "6ND", "steps", "batch", "peak_lr", "expected", "state"]

USAGE = """usage: isosweep <command> [key=value ...]

commands
  plan    every run of the sweep: N, D, C, steps, rate, state, expected time; creates nothing
  launch  train the runs that are missing, here or (cluster=slurm) as a Slurm array; run it again to resume
  status  every run's state, loss and time left, from the store and the queue (--watch: again and again)
  cancel  stop what is running or queued; every run writes a checkpoint
  logs    what a run printed and why it failed: isosweep logs <run_id>
  fit     tables of runs and curves, every law, fits.json and a summary
  plot    the same, and the figures
  next    the runs that would tell most for the FLOPs there are, as a grid to launch
  wandb-sync  send wandb the curves, or the parts of them, that it lacks (launch does with tracker=wandb)

Every key=value is a Hydra override of conf/sweep.yaml:
  isosweep plan experiment=smoke                      a sweep from conf/experiment/
  isosweep launch experiment=smoke cluster.workers=2  with another number of workers
  isosweep fit table=runs.csv out=fits                runs from elsewhere: columns N, D, loss and, if there are
                                                      any, C, budget, run_id; columns.N="Model Size" renames
  isosweep plot table=runs.csv curves=curves.parquet out=fits
  isosweep fit table=runs.csv out=fits ask.budgets=[1e20] ask.losses=[2.5] ask.inference_tokens=1e12

  isosweep launch experiment=smoke --retry failed     runs that failed are left out unless they are asked for

exit codes: 0 done, 1 some runs failed, 2 bad input
"""
FLAGS = {"--watch": "watch=true", "--retry": "retry="}  # how flags are spelled as overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; bad input becomes one line on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help") or {"-h", "--help"} & set(arguments[1:]):
        print(USAGE, end="")
        return DONE if arguments else BAD_INPUT
    name, overrides = arguments[0], arguments[1:]
    try:
        if name not in COMMANDS:
            raise InputError(f"there is no command {name!r}; the commands are {', '.join(COMMANDS)}")
        return COMMANDS[name](compose(spell_out(overrides)))
    except InputError as error:
        print(f"isosweep: {error}", file=sys.stderr)
        return BAD_INPUT


def spell_out(arguments: Sequence[str]) -> list[str]:
    """Overrides from arguments: `--watch`, `--retry failed` and a bare run_id are short for one.

    Raises:
        InputError: for a flag that there is not.
    """
    overrides: list[str] = []
    left = iter(arguments)
    for argument in left:
        flag, _, value = argument.partition("=")
        if flag.startswith("--"):
            if flag not in FLAGS:
                raise InputError(f"there is no flag {flag}; the flags are {', '.join(FLAGS)}")
            override = FLAGS[flag]
            overrides.append(override + (value or next(left, "failed")) if override.endswith("=") else override)
        elif len(argument) == RUN_ID_DIGITS and not set(argument) - set("0123456789abcdef"):
            overrides.append(f"run_id='{argument}'")
        else:
            overrides.append(argument)
    return overrides


def plan(config: SweepConfig) -> int:
    """Print every run of the sweep and the totals; write nothing."""
    from rich.table import Table

    from sweep.device import resolve_device
    from sweep.estimate import Speed, makespan
    from sweep.launch.local import pool_size
    from sweep.status import duration

    planned, _ = plan_runs(config)
    store, device = Store(Path(config.store)), resolve_device(config.device)
    speed = Speed.measured(((p.run, store.run(p.run.run_id)) for p in planned), device, config.data.validation_tokens)
    table = Table(title=f"{config.name}: {len(planned)} runs in {config.store}", box=None, header_style="bold")
    for heading in PLAN_COLUMNS:
        table.add_column(heading, justify="left" if heading in ("run", "state") else "right")
    left: list[float | None] = []
    for p in planned:
        run, status = p.run, store.run(p.run.run_id).status()
        finished = status["state"] in states.FINAL_STATES
        seconds = 0.0 if finished else speed.seconds(run, status["step"])
        left.append(seconds)
        table.add_row(
            run.run_id,
            f"{p.budget:.3g}" if p.budget else "-",
            f"{run.N:,}",
            str(run.model.d_model),
            str(run.model.n_layers),
            f"{run.D:,}",
            f"{run.D / run.N:.3g}",
            f"{6 * run.N * run.D:.3g}",
            f"{run.steps:,}",
            f"{run.batch_tokens:,}",
            f"{run.optimizer.peak_lr:.3g}",
            duration(seconds),
            status["state"],
        )
    _console(width=160).print(table)
    known = [seconds for seconds in left if seconds is not None]
    workers = pool_size(config.cluster, device)
    total = makespan(known, workers) if len(known) == len(left) else None
    waiting = sum(seconds != 0 for seconds in left)
    print(
        f"\n{len(planned)} runs, {waiting} to train; {sum(p.run.D for p in planned):,} tokens, "
        f"{sum(6 * p.run.N * p.run.D for p in planned):.3g} FLOPs (6ND) in all; "
        f"expected {duration(total)} with {workers} workers on {device}"
    )
    return DONE


def launch(config: SweepConfig) -> int:
    """Make the corpus if need be, train every run that is missing, and say how it went."""
    _, recipe = plan_runs(config)  # refuses what is wrong with the grid before anything is written
    corpus = make_corpus(config, recipe)
    # Again, now that the number of training tokens is known for certain.
    runs = [p.run for p in expand_on(config, recipe)]
    if config.cluster.launcher == "slurm":
        return submit_missing(config, runs, corpus)
    return train_missing(config, runs, corpus)


def submit_missing(config: SweepConfig, runs: Sequence[RunConfig], corpus: "Corpus") -> int:
    """Submit those of `runs` that are neither finished nor queued nor running as a Slurm array, and return."""
    from sweep.estimate import Speed
    from sweep.launch import slurm
    from sweep.tracking import Tracker

    assert config.cluster.slurm is not None
    store = Store(Path(config.store).resolve())
    todo, left_out = runs_to_launch(config, runs, store)
    queue = slurm.queued(store)
    new = [run for run in todo if run.run_id not in queue and not store.run(run.run_id).claim.held()]
    finished = len(runs) - len(todo) - left_out
    print(f"{config.name}: {len(runs)} runs, {finished} finished before, {len(todo) - len(new)} queued or running")
    if new:
        speed = Speed.measured(((run, store.run(run.run_id)) for run in runs), config.device, config.data.validation_tokens)
        seconds = [speed.seconds(run, store.run(run.run_id).status()["step"]) for run in new]
        tasks = slurm.pack(new, seconds, workers=slurm.workers(config.cluster), task_s=60 * config.cluster.slurm.task_minutes)
        what = slurm.Submission(
            name=config.name,
            store=store,
            corpus=corpus.directory,
            device=config.device,
            cluster=config.cluster,
            tracker=Tracker.of(config) if config.tracker.kind == "wandb" else None,
        )
        jobs = slurm.submit(tasks, what)
        print(f"submitted {len(new)} runs in {len(tasks)} tasks: job {', '.join(jobs)}")
    return DONE


def runs_to_launch(config: SweepConfig, runs: Sequence[RunConfig], store: Store) -> tuple[list[RunConfig], int]:
    """Those of `runs` that a launch should train, and how many it leaves out because they failed.

    A run that failed would mostly fail again: it is trained only if `retry=failed` asks for it, and then only those are.
    """
    from sweep.launch.local import missing

    todo = missing(runs, store)
    failed = [run for run in todo if store.run(run.run_id).status()["state"] == states.FAILED]
    if config.retry == "failed":
        return failed, 0
    if failed:
        print(f"{len(failed)} runs failed before and are left out; launch --retry failed trains them again")
    return [run for run in todo if run not in failed], len(failed)


def train_missing(config: SweepConfig, runs: Sequence[RunConfig], corpus: "Corpus") -> int:
    """Train those of `runs` that are not finished in a local pool, print how it went, and return the exit code."""
    from sweep.device import require_device, resolve_device
    from sweep.launch.local import Pool, pool_size
    from sweep.progress import SweepProgress
    from sweep.status import duration
    from sweep.tracking import Mirror, Tracker

    device = resolve_device(config.device)
    require_device(device)
    store = Store(Path(config.store).resolve())
    todo, left_out = runs_to_launch(config, runs, store)
    finished = len(runs) - len(todo) - left_out
    print(f"{config.name}: {len(runs)} runs, {finished} finished before, {len(todo)} to train on {device}")
    pool = Pool(
        store=store.root,
        corpus=corpus.directory.resolve(),
        device=device,
        workers=pool_size(config.cluster, device),
        threads=config.cluster.threads,
        cluster=config.cluster,
    )
    start = time.monotonic()
    with Mirror(Tracker.of(config) if config.tracker.kind == "wandb" else None, store, _warn_of_wandb) as mirror:
        mirror.send(run.run_id for run in runs if run not in todo)
        if todo:
            with SweepProgress(todo, _console()) as progress:
                pool.run(todo, mirror.beside(progress))
            print(f"trained in {duration(time.monotonic() - start)}, in {store.root}")
    if mirror.delivered:
        print(mirror.summary())
    return _report_states(runs, store)


def _warn_of_wandb(text: str) -> None:
    print(f"isosweep: wandb: {text}; the runs go on, and isosweep wandb-sync sends what it lacks", file=sys.stderr)


def _report_states(runs: Sequence[RunConfig], store: Store) -> int:
    """Say which of `runs` are not done and why; the exit code."""
    statuses = {run.run_id: store.run(run.run_id).status() for run in runs}
    counts = Counter(status["state"] for status in statuses.values())
    print(", ".join(f"{count} {state}" for state, count in counts.most_common()))
    for run_id, status in statuses.items():
        if status["state"] == states.FAILED:
            print(f"  {run_id} failed: {status['error']} (see {store.run(run_id).path})")
        if status["state"] == states.DIVERGED:
            print(f"  {run_id} diverged at step {status['step']}: its loss was not finite; a lower optimizer.lr_scale may help")
    if any(status["state"] not in states.FINAL_STATES for status in statuses.values()):
        print("the same command again resumes what is not finished")
    return DONE if counts[states.DONE] == len(runs) else SOME_RUNS_FAILED


def status(config: SweepConfig) -> int:
    """Print where every run of the sweep is; with `watch`, until nothing is running or queued."""
    from sweep.status import overview

    while True:
        planned, _ = plan_runs(config)
        view = overview(planned, Store(Path(config.store)), config)
        console = _console(width=150)
        if config.watch and console.is_terminal:
            console.clear()
        console.print(view.table(f"{config.name} in {config.store}"))
        print(view.totals())
        if not (config.watch and view.going()):
            return DONE
        time.sleep(WATCH_S)


def cancel(config: SweepConfig) -> int:
    """Stop the sweep's runs, in the queue and on this machine; those that run write a checkpoint."""
    from sweep.launch import slurm

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


def logs(config: SweepConfig) -> int:
    """Print what is known of one run: where it is, why it failed, and what its array task printed."""
    from sweep.launch import slurm

    if config.run_id is None:
        raise InputError("which run? isosweep logs <run_id>; isosweep status lists them")
    store = Store(Path(config.store))
    directory = store.run(config.run_id)
    if not directory.path.is_dir():
        raise InputError(f"run_id={config.run_id} is not in store={config.store}; isosweep status lists the runs there are")
    print(f"{directory.path}: {json.dumps(directory.status())}")
    for path in (directory.traceback, *slurm.logs_of(store, config.run_id)):
        if path.exists():
            print(f"\n{path}\n{path.read_text(errors='replace').rstrip()}")
    return DONE


def task(config: SweepConfig) -> int:
    """Be an array task: what slurm/array.sbatch runs."""
    from sweep.launch.slurm import run_task

    if config.submission is None or config.task is None:
        raise InputError("submission=<directory> and task=<number> say which task; slurm/array.sbatch gives them")
    return run_task(Path(config.submission), config.task)


def fit(config: SweepConfig) -> int:
    """Fit the laws, print them and write fits.json. Raises InputError if none of the three approaches could be fitted."""
    from sweep.fit import LawError

    fits = make_fits(config)
    print(fits.summary())
    print(f"\nwrote {Path(config.out) / 'fits.json'}")
    refused = [law for law in (fits.envelope, fits.isoflop, fits.parametric) if isinstance(law, LawError)]
    if len(refused) == 3:
        raise InputError("no law could be fitted: " + "; ".join(map(str, refused)))
    return DONE


def plot(config: SweepConfig) -> int:
    """Fit the laws and draw the figures."""
    fits = make_fits(config)
    from sweep.figures import draw_all

    for path in draw_all(fits, Path(config.out)):
        print(f"wrote {path}")
    return DONE


def choose_next(config: SweepConfig) -> int:
    """Choose the next runs, print them, and write them to `out` as next.json and as a grid, conf/grid/next.yaml."""
    from sweep.fit import fit_parametric, next_runs

    if (config.fit.parameters, config.fit.flops) != ("total", "6N"):
        raise InputError("next names runs by all parameters and C = 6ND; leave fit.parameters=total and fit.flops=6N")
    runs, _, _ = read_tables(config)
    asked, options = config.next, config.fit
    fit = fit_parametric(runs, **_surface_options(options), resamples=options.resamples, level=options.level, seed=options.seed)
    sizes, most_tokens = _sizes_and_tokens(config) if config.table is None else (None, float("inf"))
    chosen = next_runs(
        fit,
        runs,
        flops=asked.flops or float(runs.C.sum()),
        target=asked.target,
        target_C=asked.target_C,
        sizes=sizes,
        most=asked.most,
        most_tokens=most_tokens,
        reach=asked.reach,
    )
    print(chosen.summary())
    out = Path(config.out)
    grid = out / "conf" / "grid" / "next.yaml"
    earlier = [(run.N, run.D) for run in config.grid.runs or []]
    with _writing(out):
        write_json(out / "next.json", chosen.to_dict())
        grid.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(grid, chosen.grid(earlier))
    parts = [part for part in ("isoflop", "horizons") if getattr(config.grid, part)]
    where = f"hydra.searchpath=[file://{(out / 'conf').resolve()}]"
    print(f"\nwrote {out / 'next.json'} and {grid}; add to the sweep's overrides to plan, launch and fit them with the rest:")
    print(f"  'grid=[{','.join([*parts, 'next'])}]' '{where}'")
    return DONE


def wandb_sync(config: SweepConfig) -> int:
    """Send wandb what it lacks of the sweep's curves."""
    from sweep.tracking import Mirror, Tracker

    planned, _ = plan_runs(config)
    tracker = Tracker.of(config)
    if tracker.mode != "offline":  # who asks for it now does not mean a file for later
        tracker = replace(tracker, mode="online")
    with Mirror(tracker, Store(Path(config.store).resolve())) as mirror:
        mirror.send(p.run.run_id for p in planned)
    if mirror.unreachable:
        raise InputError(f"wandb: {mirror.warnings[0]}; tracker.mode=offline writes offline runs")
    for warning in mirror.warnings:
        print(f"isosweep: wandb: {warning}", file=sys.stderr)
    print(mirror.summary() or "nothing to send")
    return SOME_RUNS_FAILED if mirror.warnings else DONE


COMMANDS: dict[str, Callable[[SweepConfig], int]] = {
    "plan": plan,
    "launch": launch,
    "fit": fit,
    "plot": plot,
    "next": choose_next,
    "status": status,
    "cancel": cancel,
    "logs": logs,
    "task": task,
    "wandb-sync": wandb_sync,
}


def plan_runs(config: SweepConfig) -> tuple[list["PlannedRun"], "CorpusRecipe"]:
    """The runs of the sweep, and the corpus they need, which may not be made yet; nothing is written."""
    from sweep.data import CorpusRecipe, CorpusSpec

    data = config.data
    recipe = CorpusRecipe.read(
        CorpusSpec(
            source=data.source,
            paths=data.paths,
            tokenizer=data.tokenizer,
            vocab_size=data.vocab_size,
            validation_tokens=data.validation_tokens,
            shuffle_seed=data.shuffle_seed,
        )
    )
    return expand_on(config, recipe), recipe


def expand_on(config: SweepConfig, recipe: "CorpusRecipe") -> list["PlannedRun"]:
    """The runs of the sweep on the corpus of `recipe`."""
    from sweep.data.tokenizer import vocabulary
    from sweep.grid import expand

    return expand(
        config,
        corpus=recipe.fingerprint,
        vocab_size=vocabulary(config.data.tokenizer, config.data.vocab_size),
        training_tokens=recipe.training_tokens(corpora(config)),
    )


def corpora(config: SweepConfig) -> Path:
    """Where the store keeps corpora."""
    return Store(Path(config.store)).corpora


def make_corpus(config: SweepConfig, recipe: "CorpusRecipe") -> "Corpus":
    """The corpus on disk, made if it is not there. Raises InputError if the store cannot be written."""
    Store(Path(config.store)).require_writable()
    if recipe.find(corpora(config)) is None:
        print(f"tokenising {config.data.source} ({config.data.tokenizer}) into {corpora(config) / recipe.fingerprint}")
    return recipe.build(corpora(config))


def make_fits(config: SweepConfig) -> "Fits":
    """Fits of the sweep's store, or of `table`; fits.json and, from a store, the tables are written to `out`."""
    from sweep.fit import Questions, fit_all

    runs, curves, conventions = read_tables(config)
    options = config.fit
    fits = fit_all(
        runs,
        curves,
        convention={"loss": options.loss, "N": options.parameters, "C": options.flops},
        conventions=conventions,
        questions=Questions(**vars(config.ask)),
        **_surface_options(options),
        seed_noise=options.seed_noise,
        envelope_method=options.envelope,
        envelope_points=options.envelope_points,
        resamples=options.resamples,
        level=options.level,
        seed=options.seed,
    )
    with _writing(Path(config.out)):
        write_json(Path(config.out) / "fits.json", fits.to_dict())
    return fits


def _surface_options(options: FitConfig) -> dict[str, Any]:
    """How Approach 3 is fitted."""
    names = {"objective": "objective", "delta": "huber_delta", "tied": "tied", "fixed_E": "fixed_E"}
    return {name: getattr(options, field) for name, field in names.items()}


def read_tables(config: SweepConfig) -> tuple["RunTable", "Sequence[Curve]", dict[str, "RunTable"]]:
    """Runs and curves of the sweep's store, or of `table`, and the runs under every convention that the table has."""
    from sweep.fit import read_curves, read_frame, runs_from_frame, tables_by_convention

    out = Path(config.out)
    table, curves = _collect(config, out) if config.table is None else (Path(config.table), _path(config.curves))
    frame, columns = read_frame(table), _columns(config)
    runs = runs_from_frame(frame, columns, table, require_C=config.fit.flops != "6N")
    # Curves have one loss, under any convention.
    known = read_curves(curves, vars(config.columns), runs) if curves else []
    return runs, known, tables_by_convention(frame, columns)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Make `out`; what goes wrong in writing there becomes an InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error.strerror}); choose another out=…") from error


def _sizes_and_tokens(config: SweepConfig) -> tuple[list[float], float]:
    """The sizes of the sweep's ladder, and the longest horizon that its data allow."""
    from models import SizeLadder, count_parameters
    from sweep.data.tokenizer import vocabulary

    data = config.data
    _, recipe = plan_runs(config)
    ladder = SizeLadder(
        vocab_size=vocabulary(data.tokenizer, data.vocab_size), context_length=data.context_length, **vars(config.model)
    )
    sizes = [float(count_parameters(shape).total) for shape in ladder.shapes()]
    return sizes, recipe.training_tokens(corpora(config)) * data.max_epochs


def _columns(config: SweepConfig) -> dict[str, str]:
    """Which columns hold N, C and the loss under the sweep's conventions; a name the user gave goes first."""
    columns = dict(vars(config.columns))
    if config.fit.parameters == "non_embedding" and columns["N"] == "N":
        columns["N"] = "N_non_embedding"
    if config.fit.flops != "6N" and columns["C"] == "C":
        columns["C"] = f"C_{config.fit.flops}"
    if config.fit.loss == "train" and columns["loss"] == "loss":
        columns["loss"] = "train_loss"
    return columns


def _collect(config: SweepConfig, out: Path) -> tuple[Path, Path]:
    from sweep.collect import collect, write_tables

    planned, _ = plan_runs(config)
    runs, curves = collect(planned, Store(Path(config.store)), config.fit)
    if not (runs["state"] == states.DONE).any():
        raise InputError(f"store={config.store} holds no finished run of this sweep; launch it first, with the same overrides")
    return write_tables(runs, curves, out)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def _console(width: int | None = None) -> "Console":
    """Standard output; off a terminal it is as wide as the widest table, so that nothing is cut."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=width or 120)
