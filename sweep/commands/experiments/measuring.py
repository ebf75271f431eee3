"""What a launched sweep has measured, its labels beside each other, and their files and figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands.sweeps import Sweep, sweep_folder
from sweep.config import SweepConfig
from sweep.errors import InputError, explained
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
    from sweep.compare import analysis

    config, name = sweep.config, sweep.config.about.analysis
    measured = measured_of(sweep)
    labels = None
    if measured.runs["label"].nunique() > 1:
        baseline = config.compare.baseline if config.compare.baseline is not None else sweep.plan.labels[0]
        labels = labels_of(config, measured.runs, baseline=baseline, losses=True)
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
    write_comparison(sweep.config, labels, outcome, measured.runs)


def measured_of(sweep: Sweep) -> "Measured":
    from sweep.compare import Measured
    from sweep.store.collect import collect

    found = collect(sweep.plan.runs, sweep.store, sweep.config.fit)
    done = found.runs[found.runs["state"] == states.DONE]
    if not len(done):
        raise InputError(f"no run of {sweep.config.name} in store={sweep.store.root} is done; launch the sweep first")
    runs = found.runs.assign(**{name: value for name, value in (("cell", 0), ("label", "")) if name not in found.runs})
    runs = runs[runs["state"] == states.DONE].reset_index(drop=True)
    return Measured(runs=runs, curves=found.curves, evaluations=found.evaluations)


def labels_of(config: SweepConfig, runs: "pd.DataFrame", *, baseline: str, losses: bool) -> "Labels":
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
