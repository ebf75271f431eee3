"""Commands that use the answer: train-optimal, export."""

from argparse import Namespace
from pathlib import Path

from sweep.commands import DONE
from sweep.commands.corpora import corpus_of, make_corpus
from sweep.commands.laws import opened, read_tables
from sweep.commands.sweeps import composed, find_run_id, plan_sweep
from sweep.commands.training import launch_runs
from sweep.errors import InputError
from sweep.files import write_json, writing
from sweep.store import Store, states

APPROACHES, DEFAULT_APPROACH = ("envelope", "isoflop", "parametric"), "parametric"


def train_optimal(options: Namespace) -> int:
    """Print the compute-optimal run at a budget with its predicted loss; with --yes train it and compare."""
    from sweep.plan.estimate import duration
    from sweep.store.collect import collect
    from sweep.use.optimal import optimal_run

    if not (budget := options.budget) > 0:
        raise InputError(f"--budget {budget:g} is out of range; it must be above 0")
    config, sweep = opened(options)
    plan, recipe = (sweep.plan, None) if sweep else plan_sweep(config)
    store = Store(Path(config.store))
    runs, curves, _ = read_tables(config, sweep)
    chosen = optimal_run(config, plan.corpus, budget, options.approach, runs, curves)
    run = chosen.planned.run
    print(chosen.summary(config.fit.level))
    record = Path(config.out) / f"optimal-{budget:.4g}-{options.approach}.json"

    def write(measured: float | None) -> None:
        with writing(record.parent):
            write_json(record, chosen.to_dict(measured))
        print(f"wrote {record}")

    if not options.yes:
        swept = (planned.run for planned in plan.runs)
        seconds = store.speed_seen(swept, plan.device, config.data.validation_tokens).seconds(run)
        print(f"expected time   {duration(seconds)} on {plan.device}; --yes trains it and compares")
        write(None)
        return DONE
    corpus = make_corpus(config, recipe) if recipe else corpus_of(plan, store)
    code = launch_runs(config, [run], corpus)
    if store.run(run.run_id).status()["state"] != states.DONE:
        print("the same command again compares its loss with the prediction when it is done")
        write(None)
        return code
    (row,) = collect([chosen.planned], store, config.fit)[0].to_dict("records")
    measured = float(row["train_loss" if config.fit.loss == "train" else "loss"])
    print(chosen.verdict(measured, config.fit.level))
    write(measured)
    return code


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
