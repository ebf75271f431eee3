"""The plan command."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands import DONE, columns, console
from sweep.commands.sweeps import describe_recipe, describe_written, open_sweep, plan_sweep, source_rows
from sweep.config import SweepConfig, compose_with_choices
from sweep.errors import InputError, explained
from sweep.plan.estimate import duration, makespan
from sweep.plan.grid import shown_labels
from sweep.plan.written import SweepPlan
from sweep.store import Store, states
from sweep.words import counted

if TYPE_CHECKING:
    from sweep.fit.questions.expectation import Expectation

MANY_EPOCHS = 4  # Muennighoff et al. 2023 (arXiv 2305.16264)
COLUMNS = ("budget", "N", "width", "layers", "D", "D/N", "6ND", "steps", "batch", "peak_lr", "engine", "expected", "why")
# Left out first on a narrow screen.
LEAST = ("layers", "width", "batch", "6ND", "peak_lr", "engine", "steps", "D/N", "why", "expected", "budget")


def plan(options: Namespace) -> int:
    """Print every run of a sweep before anything is trained, and write nothing.

    Of each run: N, D, steps, learning rate, engine, expected time, and why it would be trained; and what all of them would tell
    about a.

    With NAME, the written plan of the launched sweep; else the sweep composed from conf/ and the overrides.
    """
    if options.sweep:
        sweep = open_sweep(options)
        config, planned, store = sweep.config, sweep.plan, sweep.store
        corpus, rows = describe_written(planned, store), []
    else:
        config, choices = compose_with_choices(options.overrides, config_dir=options.config_dir)
        planned, recipe = plan_sweep(config, choices, options.overrides)
        store = Store(Path(config.store))
        corpus = describe_recipe(recipe, store.corpora)
        rows = source_rows(recipe, store.corpora, max(each.run.D for each in planned.runs))
    found = store.statuses(each.run for each in planned.runs)
    if options.json:
        values = planned.to_dict()
        for entry in values["runs"]:
            entry["why"] = why(found[entry["run_id"]])
        print(json.dumps(values, indent=2))
        return DONE
    _print_runs(planned, store, found)
    print(_expect(planned, config).line())
    if len(planned.labels) > 1:
        print(_visible(planned, config))
    print(f"\n{corpus}")
    if (epochs := max(each.run.D for each in planned.runs) / planned.corpus.training_tokens) > MANY_EPOCHS:
        print(f"the longest run sees its text {epochs:.3g} times; beyond {MANY_EPOCHS} it teaches less than new text would")
    _print_sources(rows, planned)
    return DONE


def _expect(planned: SweepPlan, config: SweepConfig) -> "Expectation":
    """What the runs would tell about a, by the surface of fits.json in `out` if there is one."""
    from sweep.fit.questions.expectation import expect

    runs = [each.run for each in planned.runs if each.label == planned.labels[0]]
    options, path = config.fit, Path(config.out) / "fits.json"
    try:
        previous = json.loads(path.read_text()) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it, or fit the sweep again") from error
    return expect(
        [run.N for run in runs],
        [run.D for run in runs],
        previous=previous,
        objective=options.objective,
        delta=options.huber_delta,
        tied=options.tied,
        fixed_E=options.fixed_E,
        level=options.level,
    )


def _visible(planned: SweepPlan, config: SweepConfig) -> str:
    """Which differences between labels the design can see, by the noise of fit.seed_noise or of an earlier comparison."""
    from sweep.compare.differences import detectable

    cells, seeds = len({each.cell for each in planned.runs}), len({each.run.seed for each in planned.runs})
    if seeds < 2:
        return "one seed: no difference between labels can be told from noise; give axis.seeds=[0,1,2]"
    times = detectable(cells, len(planned.labels), seeds, config.compare.level)
    noise, path = config.fit.seed_noise, Path(config.out) / "compare.json"
    if noise is None and path.is_file():
        with explained(f"{path} is damaged", "delete it, or compare again", (OSError, ValueError, TypeError)):
            labels = json.loads(path.read_text())["labels"]
            noise = labels and labels["comparison"] and labels["comparison"]["noise"]
    size = f"{times:.2g} times the noise between seeds" if noise is None else f"{times * noise:.2g} nats (noise {noise:.2g})"
    return f"a difference between labels of {size} shows in one cell, in 4 of 5 such sweeps; less where seeds share their noise"


def why(status: Mapping[str, Any]) -> str:
    """Why a launch would train a run or not: "new", "partial at step k", "failed", "diverged" or "done"."""
    if status["state"] in (*states.FINAL_STATES, states.FAILED):
        return status["state"]
    return f"partial at step {status['step']:,}" if status["step"] else "new"


def _print_runs(planned: SweepPlan, store: Store, found: Mapping[str, Mapping[str, Any]]) -> None:
    from sweep.follow.status import text_table
    from sweep.launch.pool import pool_size

    config, runs = planned.config, [each.run for each in planned.runs]
    speed = store.speed_seen(runs, planned.device, config.data.validation_tokens, config.cluster.threads)
    rows = []
    labels = shown_labels(planned.runs)
    left: list[float | None] = []
    for each, run, label in zip(planned.runs, runs, labels, strict=True):
        status = found[run.run_id]
        left.append(0.0 if status["state"] in states.FINAL_STATES else speed.seconds(run, status["step"]))
        budget = f"{each.budget:.3g}" if each.budget else "-"
        shape = (f"{run.N:,}", str(run.model.d_model), str(run.model.n_layers))
        horizon = (f"{run.D:,}", f"{run.D / run.N:.3g}", f"{6 * run.N * run.D:.3g}")
        training = (f"{run.steps:,}", f"{run.batch_tokens:,}", f"{run.optimizer.peak_lr:.3g}", each.engine)
        rows.append((run.run_id, *[label] * any(labels), budget, *shape, *horizon, *training, duration(left[-1]), why(status)))
    title = f"{config.name}: {counted(len(runs), 'run')} planned in {store.root}"
    headings = ("run", *["label"] * any(labels), *COLUMNS)
    table = text_table(headings, rows, left=("run", "label", "why"), title=title, width=columns(), least=LEAST)
    console().print(table, soft_wrap=True)
    known = [seconds for seconds in left if seconds is not None]
    workers = pool_size(config.cluster, planned.device)
    total = makespan(known, workers) if len(known) == len(left) else None
    print(
        f"\n{counted(len(runs), 'run')}, {sum(seconds != 0 for seconds in left)} to train; "
        f"{sum(run.D for run in runs):,} tokens, {sum(6 * run.N * run.D for run in runs):.3g} FLOPs (6ND) in all; "
        f"expected {duration(total)} with {counted(workers, 'worker')} on {planned.device}"
        + (", by another machine's speed: nothing was measured here yet" if speed.borrowed and total is not None else "")
    )


def _print_sources(rows: list[list[str]], planned: SweepPlan) -> None:
    """Print the share and the epochs of each source of a mixture."""
    from sweep.follow.status import text_table

    if rows:
        horizon = max(each.run.D for each in planned.runs)
        headings = ("source", "share", "tokens", "epochs", f"epochs in {horizon:,} tokens")
        table = text_table(headings, rows, left=("source",), width=columns(), least=headings[-1:0:-1])
        console().print(table, soft_wrap=True)
