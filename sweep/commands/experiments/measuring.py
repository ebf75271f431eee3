"""What a launched sweep has measured, its labels beside each other, and their files and figures."""

from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands.sweeps import Sweep, composed, family_of, known_surface, open_sweep, sweep_folder
from sweep.config import SweepConfig
from sweep.errors import InputError
from sweep.files import write_atomically, write_json, writing
from sweep.store import Store, states

if TYPE_CHECKING:
    import pandas as pd

    from sweep.compare import Measured, Outcome
    from sweep.compare.equivalent import Law
    from sweep.compare.labels import Labels

FILE = "compare.json"


def compared(sweep: Sweep) -> "tuple[Measured, Labels | None, Outcome | None]":
    """What a sweep has measured, its labels beside each other, and what its experiment says. Raises InputError if the sweep has
    neither an axis nor an experiment, or no finished runs."""
    from sweep.compare import Outcome, analysis
    from sweep.compare.labels import claims_of

    config, name = sweep.config, sweep.config.about.analysis
    measured = measured_of(sweep)
    labels = None
    if measured.runs["label"].nunique() > 1:
        baseline = config.compare.baseline if config.compare.baseline is not None else sweep.plan.labels[0]
        labels = labels_of(config, measured.runs, baseline=baseline)
    elif name is None:
        raise InputError(
            f"{config.name} has only one label; compare needs axis.vary or axis.variants, or an experiment's analysis"
        )
    try:
        outcome = analysis(name)(measured) if name is not None else None
    except InputError as error:
        if labels is None:
            raise
        outcome = Outcome(claims=(), text=(f"no analysis of these runs: {error}",))
    if labels is not None and config.about.labels and config.compare.baseline in (None, sweep.plan.labels[0]):
        claims = claims_of(labels, config.about.labels, sweep.plan.labels)
        outcome = Outcome(claims=claims) if outcome is None else replace(outcome, claims=(*claims, *outcome.claims))
    return measured, labels, outcome


def draw_comparison(sweep: Sweep) -> None:
    """Draw the differences of a sweep, its exponents, and the figure of its experiment, into its folder."""
    measured, labels, outcome = compared(sweep)
    draw(sweep.config, labels, outcome, measured.runs)


def draw(config: SweepConfig, labels: "Labels | None", outcome: "Outcome | None", runs: "pd.DataFrame") -> None:
    """Draw what was compared into the folder of its sweep, and write it there."""
    from sweep.figures.compare import draw_labels, draw_outcome
    from sweep.figures.style import save, set_style

    set_style()
    figures: dict[str, Any] = {} if labels is None else draw_labels(labels, runs, config.about.paper)
    if outcome is not None and outcome.draw is not None:
        figures["experiment"] = draw_outcome(outcome)
    for name, figure in figures.items():
        for path in save(figure, Path(config.out) / name, config.figures.formats):
            print(f"wrote {path}")
    write_comparison(config, labels, outcome, runs)


def compared_tables(options: Namespace) -> "tuple[SweepConfig, pd.DataFrame, Labels, Outcome | None]":
    """The configuration, the runs and the labels of tables={NAME: …}, or of a sweep that is several, with the names as labels;
    and what its paper says of their exponents.

    Losses are compared only if all sweeps are of one corpus, and tables from elsewhere if compare.losses says so.
    """
    import pandas as pd

    from sweep import tables
    from sweep.compare import Outcome
    from sweep.compare.exponents import same_exponents

    config = composed(options)
    if family := family_of(options):
        name = options.sweep or config.name
        asked = any(text.startswith("out=") for text in options.overrides)
        out = config.out if asked else str(sweep_folder(Store(Path(config.store)), name))
        about = open_sweep(_named(next(iter(family.values())), config)).config.about
        config = replace(config, name=name, tables=family, out=out, about=about)
    if not config.tables or len(config.tables) < 2:
        raise InputError("tables={NAME: …, NAME: …} needs at least two, each a launched sweep or a file of runs")
    frames, corpora = [], set()
    for label, source in config.tables.items():
        if Path(source).is_file():
            read = tables.read_tables(config.columns, config.fit, source, None, where=config.where, missing=config.missing)[0]
            frame = pd.DataFrame({name: getattr(read, name) for name in ("run_id", "N", "D", "C", "loss", "budget")}).assign(
                seed=0
            )
        else:
            sweep = open_sweep(_named(source, config))
            frame = measured_of(sweep.of_baseline()).runs  # labels of its own are not pooled
            corpora.add(sweep.plan.corpus.fingerprint)
        frames.append(frame.assign(label=label))
    runs = pd.concat(frames, ignore_index=True)
    # Runs of (nearly) one N and D are a cell: shapes of one ladder differ a little between vocabularies.
    runs["cell"] = runs.groupby([runs["N"].map("{:.2e}".format), runs["D"].map("{:.2e}".format)], sort=False).ngroup()
    baseline = config.compare.baseline or next(iter(config.tables))
    reason = None
    if len(corpora) > 1:
        reason = "the sweeps are of different corpora"
    elif runs.groupby("cell")["label"].nunique().max() < 2:
        reason = "no two of the tables have a run of one N and D"
    elif not config.compare.losses:
        reason = "compare.losses=false"
    labels = labels_of(config, runs, baseline=baseline, incomparable=reason)
    if (paper := config.about.exponents) is None:
        return config, runs, labels, None
    return config, runs, labels, Outcome(claims=(same_exponents(labels.exponents, paper, config.compare.level),))


def _named(name: str, config: SweepConfig) -> Namespace:
    """The options of a command for another sweep of the store."""
    return Namespace(sweep=name, overrides=[f"store={config.store}"], config_dir=None)


def measured_of(sweep: Sweep) -> "Measured":
    from sweep.compare import Measured
    from sweep.store.collect import collect, collect_along, collect_tasks

    found = collect(sweep.plan.runs, sweep.store, sweep.config.fit)
    done = found.runs[found.runs["state"] == states.DONE]
    if not len(done):
        raise InputError(f"no run of {sweep.config.name} in store={sweep.store.root} is done; launch the sweep first")
    runs = found.runs.assign(**{name: value for name, value in (("cell", 0), ("label", "")) if name not in found.runs})
    runs = runs[runs["state"] == states.DONE]
    place = {label: number for number, label in enumerate(sweep.plan.labels)}
    runs = runs.sort_values(
        "label", key=lambda labels: labels.map(place), kind="stable", ignore_index=True
    )  # the baseline first
    along, labels = collect_along(sweep.plan.runs, sweep.store), tuple(sweep.plan.labels)
    tasks = collect_tasks(sweep.plan.runs, sweep.store, list(sweep.config.evaluation.tasks or {}))
    return Measured(
        runs=runs,
        curves=found.curves,
        evaluations=found.evaluations,
        labels=labels,
        along=along if len(along) else None,
        tasks=tasks if len(tasks) else None,
    )


def labels_of(config: SweepConfig, runs: "pd.DataFrame", *, baseline: str, incomparable: str | None = None) -> "Labels":
    from sweep.compare.labels import compare_labels
    from sweep.fit import Options

    asked = config.compare
    return compare_labels(
        runs,
        baseline=baseline,
        level=asked.level,
        margin=asked.margin,
        noise=config.fit.seed_noise,
        law=None if asked.law is None else _law(config),
        incomparable=incomparable,
        intervals=Options.of(config.fit).intervals,
    )


def _law(config: SweepConfig) -> "Law":
    """The law that compare.law names. Raises InputError if there is none."""
    from sweep.compare.equivalent import Law

    surface = known_surface(str(config.compare.law), Store(Path(config.store)), "compare.law=")
    return Law(surface=surface, replicas=None, source=f"of {config.compare.law}, taken as exact")


def write_comparison(config: SweepConfig, labels: "Labels | None", outcome: "Outcome | None", runs: "pd.DataFrame") -> None:
    from sweep.fit.result import plain

    out = Path(config.out)
    values: dict[str, Any] = {"about": asdict(config.about), "labels": None if labels is None else asdict(labels)}
    if outcome is not None:
        values |= {"claims": [asdict(claim) for claim in outcome.claims], "text": outcome.text, "values": outcome.values}
    with writing(out):
        write_json(out / FILE, plain(values))
        write_atomically(out / "compare.csv", runs.to_csv(index=False).encode())
    print(f"wrote {out / FILE}")
