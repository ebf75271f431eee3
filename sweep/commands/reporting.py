"""The report command: a sweep, or a table of runs, as one HTML file."""

import os
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sweep.commands.corpora import describe_written
from sweep.commands.laws import make_fits, of_each_label, require_a_law, verdict_lines
from sweep.commands.sweeps import Sweep
from sweep.config import SweepConfig, shown
from sweep.files import writing
from sweep.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from sweep.config import ScheduleConfig
    from sweep.fit import Fits
    from sweep.report import Origin
    from sweep.report.origin import Facts

OPTIMISERS = {"adamw": "AdamW", "adam": "Adam with the weight decay in the gradient"}


def report(options: Namespace) -> int:
    """Fit the laws and write report.html, one file with the answer, the figures and the evidence.

    With --format=md, report.md and the figures beside it, for an issue, a wiki or a repository.
    """
    return of_each_label(options, partial(_report, markdown=options.format == "md"))


def _report(config: SweepConfig, sweep: Sweep | None, *, markdown: bool) -> str:
    from sweep.report import write_markdown, write_report

    out = Path(config.out)
    with writing(out):
        pass
    fits = make_fits(config, sweep)
    require_a_law(fits)
    with writing(out):
        origin = _origin(config, sweep, fits)
        if markdown:
            written = write_markdown(fits, origin, config.fit, out / "report.md")
            told = f"wrote {written[0]} and {counted(len(written) - 1, 'figure')} beside it"
        else:
            page = write_report(fits, origin, config.fit, out / "report.html")
            size = f"{page.stat().st_size / 1e6:.1f} MB"
            told = f"wrote {page} ({size}): open it in a browser, or send it to somebody"
    return "\n".join([*verdict_lines(fits), told])


def _origin(config: SweepConfig, sweep: Sweep | None, fits: "Fits") -> "Origin":
    from sweep.fit import read_frame
    from sweep.report import Cost, Origin, costs, origin
    from sweep.report.text import values_without_places
    from sweep.tables.exports import SCHEME
    from sweep.tables.names import resolve

    table = config.table
    cost: list[Cost] | str = "The runs are wandb's, and their hours are not read from there."
    setup: dict[str, str] = {}
    if table is None or not table.startswith(SCHEME):
        frame = read_frame(table or Path(config.out) / "runs.csv")
        setup = origin.setup_of_table(frame)
        if table is None:
            assert sweep is not None
            trained, more, frame["cores"] = _of_store(sweep, frame, config.report.places)
            setup |= more
        C = dict(zip(map(str, fits.runs.run_id), fits.runs.C.tolist(), strict=True))
        power = {"core_watts": config.report.core_watts, "gpu_watts": config.ask.watts}
        power |= {"pue": config.ask.pue, "tonnes_per_MWh": config.ask.tonnes_per_MWh}
        cost = costs(frame, C, run_id=resolve(frame, {"run_id": config.columns.run_id})["run_id"], **power)
    if table is not None:
        trained = origin.of_table(table, config.curves, len(fits.runs) + len(fits.runs.excluded))
    places = config.report.places
    values = shown(config) if places else values_without_places(shown(config))
    return Origin(
        title=config.report.title or (config.name if table is None else _name(table)),
        from_store=table is None,
        trained=trained,
        made=origin.of_report(places=places),
        cost=cost,
        setup=setup,
        config=yaml.safe_dump(values, sort_keys=False, allow_unicode=True),
        hidden=None if places else (str(Path(config.store).resolve()), str(Path.cwd()), os.path.expanduser("~")),
    )


def _name(table: str) -> str:
    """A table's file name with its folder, since most tables are called runs.csv."""
    return "/".join(Path(table).absolute().parts[-2:]) if Path(table).is_file() else table


def _after_warmup(schedule: "ScheduleConfig") -> str:
    """The rest of a schedule, in words."""
    end = f"to {schedule.final_fraction:g} of the peak"
    return {
        "cosine": f"a cosine {end}, {schedule.cycle:g} × the run long",
        "linear": f"a line {end}, {schedule.cycle:g} × the run long",
        "constant": "constant",
        "inverse_sqrt": "as the inverse square root of the step",
        "wsd": f"constant, and a line {end} over the last {schedule.decay_fraction:g} of the run",
    }[schedule.shape]


def _of_store(sweep: Sweep, frame: "pd.DataFrame", places: bool) -> tuple["Facts", dict[str, str], list[int]]:
    """Where the runs were trained, the settings that no column of the table has, and the number of cores or GPUs of each
    run."""
    from sweep.data import Corpus
    from sweep.report import origin

    config, store, fingerprint = sweep.config, sweep.store, sweep.plan.corpus.fingerprint
    corpus = Corpus.open(store.corpora / fingerprint) if (store.corpora / fingerprint).is_dir() else None
    optimizer, schedule, data = config.optimizer, config.schedule, config.data
    setup = {
        "Schedule": f"warm-up, then {_after_warmup(schedule)}",
        "Optimiser": f"{OPTIMISERS[optimizer.kind]}, betas ({optimizer.beta1:g}, {optimizer.beta2:g}), weight decay "
        f"{optimizer.weight_decay:g}, gradient norm clipped at {optimizer.grad_clip:g}",
        "Data": f"{data.source}, context of {data.context_length} tokens, {data.validation_tokens:,} tokens held out",
        "Tokenizer": data.tokenizer,
    }
    if corpus is not None:
        epochs = float(frame["D"].max()) / corpus.manifest["parts"]["train"]["tokens"]
        setup["Repeated data"] = f"epochs: at most {epochs:.2g}" + ("" if epochs > 1 else ", so none")
    described = describe_written(sweep.plan, store).partition(": ")[2]
    corpus_facts = (("Corpus", f"{data.source}, {fingerprint}"), ("Tokens", described))
    directories = {plan.run.run_id: store.run(plan.run.run_id) for plan in sweep.plan.runs}
    ranks = [int(directories[run_id].status().get("ranks", 1)) for run_id in frame["run_id"]]
    threads = [config.cluster.threads if device == "cpu" else 1 for device in frame["device"]]
    cores = [rank * thread for rank, thread in zip(ranks, threads, strict=True)]
    return origin.of_store(list(directories.values()), corpus_facts, places=places), setup, cores
