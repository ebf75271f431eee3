"""The compare command, and the figures of a comparison."""

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands import DONE, columns, console
from sweep.commands.laws import opened
from sweep.commands.sweeps import Sweep, open_sweep, sweep_folder
from sweep.config import SweepConfig
from sweep.errors import InputError, explained
from sweep.files import write_atomically, write_json, writing
from sweep.store import Store, states
from sweep.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from sweep.compare import Measured, Outcome
    from sweep.compare.equivalent import Law
    from sweep.compare.labels import Labels
    from sweep.fit import Estimate

FILE = "compare.json"
COLUMNS = ("cell", "N", "D", "label", "seeds", "loss", "difference", "interval", "verdict", "factor in N", "in C")
LEAST = ("D", "N", "loss", "seeds", "factor in N", "in C")  # on a narrow screen


def compare(options: Namespace) -> int:
    """Compare what a sweep varies with its baseline, at the same N and D, with the noise between seeds.

    Prints for each label the difference in loss with an interval, a verdict ("differs", "equal within ±x", "too few seeds: n
    would do"), and what it is worth as a factor in N and in compute; then what an experiment says of its paper's claims; and
    writes compare.json, compare.csv and evaluations.csv. tables={ours: NAME, theirs: runs.csv} compares sweeps and tables.
    """
    if any(text.startswith("tables=") for text in options.overrides):
        config, runs, losses = _tables(options)
        labels = _compared(config, runs, baseline=config.compare.baseline or str(runs["label"].iloc[0]), losses=losses)
        _print(labels, "tables")
        _write(config, labels, None, runs)
        return DONE
    _, sweep = opened(options)
    if sweep is None:
        raise InputError("compare needs the name of a sweep, or tables={NAME: FILE, NAME: FILE}")
    measured, found, outcome = compared(sweep)
    if found is not None:
        _print(found, sweep.config.name)
    if outcome is not None:
        print("\n".join(["", *outcome.text]))
    if outcome is not None and outcome.claims:
        print("\n" + "\n".join(claim.line() for claim in outcome.claims))
    _write(sweep.config, found, outcome, measured.runs)
    with writing(Path(sweep.config.out)):
        measured.evaluations.to_csv(Path(sweep.config.out) / "evaluations.csv", index=False)
    return DONE


def compared(sweep: Sweep) -> "tuple[Measured, Labels | None, Outcome | None]":
    """What a sweep has measured, its labels beside each other, and what its experiment says. Raises InputError if the sweep has
    neither an axis nor an experiment, or no finished runs."""
    from sweep.compare import analysis

    config, name = sweep.config, sweep.config.about.analysis
    measured = _measured(sweep)
    labels = None
    if measured.runs["label"].nunique() > 1:
        baseline = config.compare.baseline if config.compare.baseline is not None else sweep.plan.labels[0]
        labels = _compared(config, measured.runs, baseline=baseline, losses=True)
    elif name is None:
        raise InputError(
            f"{config.name} has only one label; compare needs axis.vary or axis.variants, or an experiment's analysis"
        )
    return measured, labels, analysis(name)(measured) if name is not None else None


def draw_comparison(sweep: Sweep) -> None:
    """Draw the differences of a sweep, its exponents, and the figure of its experiment, into its folder."""
    from sweep.figures.compare import draw_labels, draw_outcome
    from sweep.figures.style import save, set_style

    set_style()
    measured, labels, outcome = compared(sweep)
    out, formats = Path(sweep.config.out), sweep.config.figures.formats
    figures: dict[str, Any] = {} if labels is None else draw_labels(labels, measured.runs, sweep.config.about.paper)
    if outcome is not None:
        figures["experiment"] = draw_outcome(outcome)
    for name, figure in figures.items():
        for path in save(figure, out / name, formats):
            print(f"wrote {path}")
    _write(sweep.config, labels, outcome, measured.runs)


def _measured(sweep: Sweep) -> "Measured":
    from sweep.compare import Measured
    from sweep.store.collect import collect

    found = collect(sweep.plan.runs, sweep.store, sweep.config.fit)
    done = found.runs[found.runs["state"] == states.DONE]
    if not len(done):
        raise InputError(f"no run of {sweep.config.name} in store={sweep.store.root} is done; launch the sweep first")
    runs = found.runs.assign(**{name: value for name, value in (("cell", 0), ("label", "")) if name not in found.runs})
    runs = runs[runs["state"] == states.DONE].reset_index(drop=True)
    return Measured(runs=runs, curves=found.curves, evaluations=found.evaluations)


def _compared(config: SweepConfig, runs: "pd.DataFrame", *, baseline: str, losses: bool) -> "Labels":
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
        losses=losses and asked.losses,
        intervals=Options.of(config.fit).intervals,
    )


def _law(config: SweepConfig) -> "Law":
    """The law that compare.law names. Raises InputError if there is none."""
    from sweep.compare.equivalent import Law
    from sweep.fit import Surface

    asked = str(config.compare.law)
    path = Path(asked) if asked.endswith(".json") else sweep_folder(Store(Path(config.store)), asked) / "fits.json"
    remedy = "name a sweep that isosweep fit was called for, or its fits.json"
    with explained(f"compare.law={asked}: {path} has no fitted law", remedy, (OSError, ValueError, KeyError, TypeError)):
        constants = json.loads(path.read_text())["parametric"]
        E, A, B, alpha, beta = (float(constants[name]["value"]) for name in ("E", "A", "B", "alpha", "beta"))
        surface = Surface(E=E, A=A, B=B, alpha=alpha, beta=beta)
    return Law(surface=surface, replicas=None, source=f"of {asked}, taken as exact")


def _tables(options: Namespace) -> "tuple[SweepConfig, pd.DataFrame, bool]":
    """The runs of tables={NAME: …} with the name as their label, and whether their losses are of one corpus."""
    import pandas as pd

    from sweep import tables
    from sweep.commands.sweeps import composed

    config = composed(options)
    if not config.tables or len(config.tables) < 2:
        raise InputError("tables={NAME: …, NAME: …} needs at least two, each a launched sweep or a file of runs")
    frames, corpora = [], set()
    for label, source in config.tables.items():
        if Path(source).is_file():
            read = tables.read_tables(config.columns, config.fit, source, None, where=config.where, missing=config.missing)[0]
            frame = pd.DataFrame({name: getattr(read, name) for name in ("run_id", "N", "D", "C", "loss", "budget")})
            frame["seed"] = 0
        else:
            named = Namespace(sweep=source, overrides=[f"store={config.store}"], config_dir=options.config_dir)
            sweep = open_sweep(named)
            frame = _measured(sweep).runs
            corpora.add(sweep.plan.corpus.fingerprint)
        frames.append(frame.assign(label=label))
    runs = pd.concat(frames, ignore_index=True)
    # Runs of (nearly) one N and D are a cell: sizes of one ladder differ a little between vocabularies.
    runs["cell"] = runs.groupby([runs["N"].map("{:.2e}".format), runs["D"].map("{:.2e}".format)], sort=False).ngroup()
    shared = runs.groupby("cell")["label"].nunique().max() > 1
    return config, runs, len(corpora) < 2 and bool(shared)


def _print(labels: "Labels", name: str) -> None:
    from sweep.compare.differences import EVERYWHERE
    from sweep.follow.status import text_table

    found = labels.comparison
    if found is not None:
        worth = {(each.label, each.cell): each for each in labels.factors}
        rows = []
        for each in found.differences:
            factors = worth.get((each.label, each.cell))
            N, C = (None, None) if factors is None else (factors.N, factors.C)
            sizes = ("all", "", "") if each.cell == EVERYWHERE else (str(each.cell), f"{each.N:,.0f}", f"{each.D:,.0f}")
            interval = "-" if each.low is None else f"{each.low:+.4f} to {each.high:+.4f}"
            losses = (str(each.seeds), f"{each.loss:.4f}", f"{each.value:+.4f}", interval, each.words)
            rows.append((*sizes, each.label, *losses, _factor(N), _factor(C)))
        title = f"{name}: against {found.baseline or 'the baseline'}"
        table = text_table(COLUMNS, rows, left=("label", "verdict"), title=title, width=columns(), least=LEAST)
        console().print(table, soft_wrap=True)
        noise = "no seeds to go by" if found.noise is None else f"{found.noise:.4f} nats between seeds"
        if found.paired is not None and found.freedom:
            noise += f", {found.paired:.4f} beside what all runs of a seed share"
        comparisons = counted(found.comparisons, "comparison")
        print(f"\nnoise: {noise}; intervals of {found.level:.0%} for all {comparisons} together")
        for text in found.left_out:
            print(f"left out: {text}")
    for label, own in labels.free.items():
        low, high = (f"{C:.3g}" for C in labels.budgets)
        first, last = map(_factor, own)
        print(f"{label}: worth {first} in C at {low} FLOPs and {last} at {high}, with exponents of its own")
    for exponent in labels.exponents:
        text = exponent.reason if exponent.a is None else _interval(exponent.a)
        print(f"a of {exponent.label or name} by {exponent.approach}: {text}")
    if labels.score is not None:
        print(labels.score.line())
    for note in labels.notes:
        print(note)


def _factor(estimate: "Estimate | None") -> str:
    return "-" if estimate is None else _interval(estimate, ".3g")


def _interval(estimate: "Estimate", form: str = ".3f") -> str:
    ends = "" if estimate.interval is None else f" ({', '.join(format(end, form) for end in estimate.interval)})"
    return f"{estimate.value:{form}}{ends}"


def _write(config: SweepConfig, labels: "Labels | None", outcome: "Outcome | None", runs: "pd.DataFrame") -> None:
    from sweep.fit.result import plain

    out = Path(config.out)
    values: dict[str, Any] = {"about": asdict(config.about), "labels": None if labels is None else asdict(labels)}
    if outcome is not None:
        values |= {"claims": [asdict(claim) for claim in outcome.claims], "text": outcome.text, "values": outcome.values}
    with writing(out):
        write_json(out / FILE, plain(values))
        write_atomically(out / "compare.csv", runs.to_csv(index=False).encode())
    print(f"wrote {out / FILE}")
