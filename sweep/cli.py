"""The command line: `isosweep <command> key=value …`, the same as `python -m sweep <command> key=value …`."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import store as states
from sweep.config import SweepConfig, compose
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
PLAN_COLUMNS = ["run", "budget", "N", "width", "layers", "D", "D/N", "6ND", "steps", "batch", "peak_lr", "expected", "state"]

USAGE = """usage: isosweep <command> [key=value ...]

commands
  plan    every run of the sweep: N, D, C, steps, rate, state, expected time; creates nothing
  launch  train the runs that are missing, here; run it again to resume
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

exit codes: 0 done, 1 some runs failed, 2 bad input
"""


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
        return COMMANDS[name](compose(overrides))
    except InputError as error:
        print(f"isosweep: {error}", file=sys.stderr)
        return BAD_INPUT


def plan(config: SweepConfig) -> int:
    """Print every run of the sweep and the totals; write nothing."""
    from rich.table import Table

    from sweep.device import resolve_device
    from sweep.estimate import Speed, makespan
    from sweep.launch.local import pool_size

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
            _duration(seconds),
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
        f"expected {_duration(total)} with {workers} workers on {device}"
    )
    return DONE


def launch(config: SweepConfig) -> int:
    """Make the corpus if need be, train every run that is missing, and say how it went."""
    _, recipe = plan_runs(config)  # refuses what is wrong with the grid before anything is written
    corpus = make_corpus(config, recipe)
    planned = expand_on(config, recipe)  # again, now that the number of training tokens is known for certain
    return train_missing(config, [p.run for p in planned], corpus)


def train_missing(config: SweepConfig, runs: Sequence[RunConfig], corpus: "Corpus") -> int:
    """Train those of `runs` that are not finished in a local pool, print how it went, and return the exit code."""
    from sweep.device import require_device, resolve_device
    from sweep.launch.local import Pool, missing, pool_size
    from sweep.progress import SweepProgress
    from sweep.tracking import Mirror, Tracker

    device = resolve_device(config.device)
    require_device(device)
    store = Store(Path(config.store).resolve())
    todo = missing(runs, store)
    print(f"{config.name}: {len(runs)} runs, {len(runs) - len(todo)} finished before, {len(todo)} to train on {device}")
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
            print(f"trained in {_duration(time.monotonic() - start)}, in {store.root}")
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


def fit(config: SweepConfig) -> int:
    """Fit the laws, print them and write fits.json."""
    fits = make_fits(config)
    print(fits.summary())
    print(f"\nwrote {Path(config.out) / 'fits.json'}")
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
    fit = fit_parametric(runs, delta=options.huber_delta, resamples=options.resamples, level=options.level, seed=options.seed)
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
        objective=options.objective,
        delta=options.huber_delta,
        tied=options.tied,
        fixed_E=options.fixed_E,
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


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
