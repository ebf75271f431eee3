"""Commands that use the answer: train-optimal, evaluate, export."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import DONE, columns, console
from sweep.commands.corpora import corpus_of, make_corpus
from sweep.commands.laws import opened, read_tables
from sweep.commands.sweeps import Sweep, composed, find_run_id, open_sweep, plan_sweep
from sweep.commands.training import launch_runs
from sweep.errors import InputError
from sweep.files import write_json, writing
from sweep.store import Store, states

if TYPE_CHECKING:
    import pandas as pd

APPROACHES, DEFAULT_APPROACH = ("envelope", "isoflop", "parametric", "kaplan"), "parametric"


def train_optimal(options: Namespace) -> int:
    """Print the compute-optimal run at a budget with its predicted loss; with --yes train it and compare."""
    from sweep.plan.estimate import duration
    from sweep.store.collect import collect
    from sweep.tables.conventions import LOSSES
    from sweep.use.optimal import optimal_run

    if not (budget := options.budget) > 0:
        raise InputError(f"--budget {budget:g} is out of range; it must be above 0")
    config, sweep = opened(options)
    sweep = None if sweep is None else sweep.of_baseline()
    plan, recipe = (sweep.plan, None) if sweep else plan_sweep(config)
    store = Store(Path(config.store))
    if config.fit.loss not in LOSSES:
        raise InputError(f"train-optimal measures no fit.loss={config.fit.loss}; take one of {', '.join(LOSSES)}")
    runs, curves, conventions = read_tables(config, sweep)
    chosen = optimal_run(config, plan.corpus, budget, options.approach, runs, curves, conventions)
    run = chosen.planned.run
    print(chosen.summary(config.fit.level))
    record = Path(config.out) / f"optimal-{budget:.4g}-{options.approach}.json"

    def write(measured: float | None) -> None:
        with writing(record.parent):
            write_json(record, chosen.to_dict(measured))
        print(f"wrote {record}")

    if not options.yes:
        swept = (planned.run for planned in plan.runs)
        seconds = store.speed_seen(swept, plan.device, config.data.validation_tokens, config.cluster.threads).seconds(run)
        print(f"expected time   {duration(seconds)} on {plan.device}; --yes trains it and compares")
        write(None)
        return DONE
    corpus = make_corpus(config, recipe) if recipe else corpus_of(plan, store)
    code = launch_runs(config, [run], corpus)
    if store.run(run.run_id).status_or_failed()["state"] != states.DONE:
        print("the same command again compares its loss with the prediction when it is done")
        write(None)
        return code
    (row,) = collect([chosen.planned], store, config.fit).runs.to_dict("records")
    measured = float(row[LOSSES[config.fit.loss]])
    print(chosen.verdict(measured, config.fit.level))
    write(measured)
    return code


def evaluate_sets(options: Namespace) -> int:
    """Evaluate every finished run on other text, by source of a mixture and by position; print, write and draw the losses.

    Where the runs have a law, its exponent for every set stands beside the others; fit.loss=SET fits all laws to one of them.
    Checkpoints that evaluation.keep kept along the runs are evaluated too: the loss by position over training, and whether at
    equal loss on the own text the loss on other text depends on the end of training, on N, or on depth. evaluation.tasks are
    multiple choice: accuracy against loss, tokens and compute, whether it rises or is only noise, and a law of it by the loss.
    """
    import pandas as pd
    import torch

    from sweep.commands.experiments.along import show_along
    from sweep.commands.experiments.tasks import show_tasks
    from sweep.figures.checks import draw_positions, draw_transfer
    from sweep.figures.style import save, set_style
    from sweep.follow.status import text_table
    from sweep.plan.device import require_device, resolve_device
    from sweep.use.evaluate import OWN, check_sets, evaluate, sets_of
    from sweep.use.items import check_tasks

    sweep = open_sweep(options)
    config, store = sweep.config, sweep.store
    device = resolve_device(config.device)
    require_device(device)
    torch.set_num_threads(config.cluster.threads)
    named = config.evaluation.sets or {}
    check_sets(named)
    check_tasks(config.evaluation.tasks or {})
    if not (done := sweep.finished()):
        raise InputError(f"no run of {config.name} in store={store.root} is done; launch the sweep first")
    corpus = corpus_of(sweep.plan, store)
    sets = sets_of(corpus, named, config.evaluation.tokens)
    rows, positions = [], {}
    for run in sorted(done, key=lambda run: (run.N, run.D)):
        found = evaluate(run, store.run(run.run_id), sets, device)
        positions[run.run_id] = (run.N, run.D, found[OWN]["by_position"])
        for each in sets:
            losses = {name: found[each.name].get(name) for name in ("loss", "loss_se", "bits_per_byte", "tokens")}
            rows.append({"run_id": run.run_id, "N": run.N, "D": run.D, "set": each.name, **losses})
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index=["N", "D", "run_id"], columns="set", values="loss")[[each.name for each in sets]]
    shown = (
        (run_id, f"{N:,}", f"{D:,}", *(f"{loss:.3f}" for loss in of_sets))
        for N, D, run_id, *of_sets in wide.reset_index().itertuples(index=False)
    )
    title = f"{config.name}: loss in nats per token"
    headings, least = ("run", "N", "D", *wide.columns), ("D", "N", *reversed(wide.columns[1:]))
    table = text_table(headings, shown, left=("run",), title=title, width=columns(), least=least)
    console().print(table, soft_wrap=True)
    out = Path(config.out)
    with writing(out):
        frame.to_csv(out / "evaluations.csv", index=False)
    set_style()
    written = [out / "evaluations.csv", *save(draw_positions(list(positions.values())), out / "positions")]
    if len(sets) > 1:
        written += save(draw_transfer(frame, OWN), out / "transfer")
        written += exponents_of_sets(sweep, frame)
    written += show_along(sweep, sets, device)
    written += show_tasks(sweep, corpus, device)
    for path in written:
        print(f"wrote {path}")
    return DONE


def exponents_of_sets(sweep: Sweep, frame: "pd.DataFrame") -> list[Path]:
    """Print and draw the exponent a of every set by the runs of the baseline, where they have a law.

    Args:
        frame: columns run_id, N, D, set and loss (nats per token), a row for each run and set.

    Returns:
        The files of the figure; none where there is no law.
    """
    from sweep.commands.experiments.comparing import print_exponents
    from sweep.compare.labels import compare_labels
    from sweep.figures.compare import draw_labels
    from sweep.figures.style import save
    from sweep.fit import Options

    budgets = {each.run.run_id: each.budget for each in sweep.of_baseline().plan.runs}
    runs = frame[frame["run_id"].isin(budgets)].rename(columns={"set": "label"})
    if runs.empty:
        return []
    runs = runs.assign(budget=runs["run_id"].map(budgets).astype(float), C=6.0 * runs["N"] * runs["D"], cell=0, seed=0)
    intervals = Options.of(sweep.config.fit).intervals
    found = compare_labels(
        runs,
        baseline=runs["label"].iloc[0],
        level=intervals.level,
        incomparable="the sets are of different text",
        intervals=intervals,
    )
    print_exponents(found)
    figures = draw_labels(found, runs, "evaluated sets")
    return save(figures["exponents"], Path(sweep.config.out) / "sets") if "exponents" in figures else []


def export(options: Namespace) -> int:
    """Write a finished run as a Hugging Face folder, for transformers."""
    from sweep.use.export import export as write

    config = composed(options)
    store = Store(Path(config.store))
    if (
        Path(config.out) == Path(config.store) / "sweeps" / config.name
    ):  # the default, which is the folder of the sweep's figures
        raise InputError("out=DIR says where to: a folder that does not exist yet, or is empty")
    print(f"wrote {write(store, find_run_id(store, options.run_id), Path(config.out))}")
    return DONE
