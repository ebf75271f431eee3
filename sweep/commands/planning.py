"""The plan command."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import DONE
from sweep.commands.shared import composed, console, corpora, describe_corpus, plan_runs, source_rows
from sweep.config import SweepConfig
from sweep.plan.run import RunConfig
from sweep.store import Store, states

if TYPE_CHECKING:
    from sweep.data import CorpusRecipe

PLAN_COLUMNS = [
    "run",
    "budget",
    "N",
    "width",
    "layers",
    "D",
    "D/N",
    "6ND",
    "steps",
    "batch",
    "peak_lr",
    "engine",
    "expected",
    "state",
]


def plan(options: Namespace) -> int:
    """Print every run of the sweep and the totals; write nothing."""
    from rich.table import Table

    from sweep.follow.status import duration
    from sweep.launch.local import pool_size
    from sweep.plan.cost import choose_engine, worth_compiling
    from sweep.plan.device import resolve_device
    from sweep.plan.estimate import makespan
    from sweep.store.benchmarks import speed_of_sweep

    config = composed(options)
    planned, recipe = plan_runs(config)
    store, device = Store(Path(config.store)), resolve_device(config.device)
    speed = speed_of_sweep((p.run for p in planned), store, config)
    table = Table(title=f"{config.name}: {len(planned)} runs in {config.store}", box=None, header_style="bold")
    for heading in PLAN_COLUMNS:
        table.add_column(heading, justify="left" if heading in ("run", "state") else "right")
    pays = worth_compiling(p.run for p in planned)

    def engine(run: RunConfig) -> str:
        return choose_engine(
            device,
            compiled=config.runtime.compile,
            compile_pays=run.run_id in pays,
            parallel_size=1,
            micro_batch=config.cluster.micro_batch,
        )

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
            engine(run),
            duration(seconds),
            status["state"],
        )
    console(width=160).print(table)
    _print_corpus(config, recipe, max(p.run.D for p in planned))
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


def _print_corpus(config: SweepConfig, recipe: "CorpusRecipe", horizon: int) -> None:
    """What the runs are trained on, and of a mixture what each source gives."""
    from rich.table import Table

    print(f"\n{describe_corpus(recipe, corpora(config))}")
    if rows := source_rows(recipe, corpora(config), horizon):
        table = Table(box=None, header_style="bold")
        for heading in ("source", "share", "tokens", "epochs", f"epochs in {horizon:,} tokens"):
            table.add_column(heading, justify="left" if heading == "source" else "right")
        for row in rows:
            table.add_row(*row)
        console(width=160).print(table)
