"""Commands that fit: fit, plot, next. They never import torch."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import DONE, console
from sweep.commands.sweeps import Sweep, composed, open_sweep
from sweep.config import SweepConfig
from sweep.errors import InputError
from sweep.files import write_atomically, write_json, writing
from sweep.store import states
from sweep.words import counted

if TYPE_CHECKING:
    from sweep.fit import Curve, Fits, RunTable


def fit(options: Namespace) -> int:
    """Fit the laws, print the verdict and what it rests on, and write fits.json."""
    config, sweep = opened(options)
    fits = make_fits(config, sweep)
    if options.full or fits.fitted:
        print(f"{fits.summary(full=options.full)}\n\nwrote {Path(config.out) / 'fits.json'}")
    require_a_law(fits)
    return DONE


def print_verdict(fits: "Fits") -> None:
    """The first lines of `isosweep fit`."""
    print("\n".join(fits.verdict.lines() if fits.verdict else [why_no_law(fits)] if not fits.fitted else []))


def require_a_law(fits: "Fits") -> None:
    """Raises InputError if no approach could be fitted."""
    if not fits.fitted:
        raise InputError(why_no_law(fits))


def why_no_law(fits: "Fits") -> str:
    """One sentence on what the runs lack for every approach. Curves are not worth a word where there are none."""
    from sweep.fit import APPROACHES

    refused = {APPROACHES[name].title(): law for name, law in fits.refused.items()}
    reasons = [f"{title}: {law.reason}" for title, law in refused.items() if law.status != "no_curves"]
    return f"no law could be fitted to {counted(len(fits.runs), 'run')}: {'; '.join(reasons)}"


def plot(options: Namespace) -> int:
    """Fit the laws and draw the figures."""
    config, sweep = opened(options)
    fits = make_fits(config, sweep)
    from sweep.figures import draw_all

    print_verdict(fits)
    for path in draw_all(fits, Path(config.out), config.figures.formats):
        print(f"wrote {path}")
    return DONE


def choose_next(options: Namespace) -> int:
    """Choose the next runs, print them, and write them to `out` as next.json and as a grid, conf/grid/next.yaml."""
    from sweep.fit import Options, fit_parametric, next_runs

    config, sweep = opened(options)
    if (config.fit.parameters, config.fit.flops) != ("total", "6N"):
        raise InputError("next names runs by all parameters and C = 6ND; leave fit.parameters=total and fit.flops=6N")
    runs, _, _ = read_tables(config, sweep)
    asked = config.next
    fit = fit_parametric(runs, **Options.of(config.fit).surface)
    sizes, most_tokens = _sizes_and_tokens(sweep) if sweep is not None else (None, float("inf"))
    chosen = next_runs(
        fit,
        runs,
        flops=asked.flops or float(runs.C.sum()),
        target=asked.target,
        target_C=asked.target_C,
        sizes=sizes,
        most=asked.max_runs,
        most_tokens=most_tokens,
        reach=asked.reach,
    )
    print(chosen.summary())
    out = Path(config.out)
    grid = out / "conf" / "grid" / "next.yaml"
    earlier = [{key: value for key, value in asdict(run).items() if value is not None} for run in config.grid.runs or []]
    with writing(out):
        write_json(out / "next.json", chosen.to_dict())
        grid.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(grid, chosen.grid(earlier, config.grid.scale))
    parts = [part for part in ("isoflop", "around", "horizons") if getattr(config.grid, part)]
    where = f"hydra.searchpath=[file://{(out / 'conf').resolve()}]"
    print(f"\nwrote {out / 'next.json'} and {grid}; add to the sweep's overrides to plan, launch and fit them with the rest:")
    print(f"  'grid=[{','.join([*parts, 'next'])}]' '{where}'")
    return DONE


def opened(options: Namespace) -> tuple[SweepConfig, Sweep | None]:
    """The configuration and the launched sweep to fit; no sweep if table=… is given."""
    if any(text.startswith("table=") for text in options.overrides):
        return composed(options), None
    sweep = open_sweep(options)
    return sweep.config, sweep


def make_fits(config: SweepConfig, sweep: Sweep | None) -> "Fits":
    """Fits of a sweep, or of `config.table`; fits.json and, of a sweep, the tables are written to `out`."""
    from sweep.fit import Options, Questions, fit_all
    from sweep.follow.progress import FitProgress

    questions = Questions.of(config.ask)  # first: a wrong one should not cost a fit
    runs, curves, conventions = read_tables(config, sweep)
    options = config.fit
    with FitProgress(console(stderr=True)) as tell:
        fits = fit_all(
            runs,
            curves,
            convention={"loss": options.loss, "N": options.parameters, "C": options.flops},
            conventions=conventions,
            questions=questions,
            options=Options.of(options),
            tell=tell,
        )
    with writing(Path(config.out)):
        write_json(Path(config.out) / "fits.json", fits.to_dict())
    return fits


def read_tables(config: SweepConfig, sweep: Sweep | None) -> tuple["RunTable", "Sequence[Curve]", dict[str, "RunTable"]]:
    """Runs and curves of `config.table`, or else of a sweep, and the runs under every convention that the table has."""
    from sweep import tables

    table: str | Path | None = config.table
    curves: str | Path | None = config.curves
    if table is None:
        assert sweep is not None
        table, curves = _collect(sweep)
    return tables.read_tables(config.columns, config.fit, table, curves, where=config.where, missing=config.missing)


def _sizes_and_tokens(sweep: Sweep) -> tuple[list[float], float]:
    """The sizes of the sweep's ladder, and the longest horizon that its data allow."""
    from models import SizeLadder

    data, corpus = sweep.config.data, sweep.plan.corpus
    ladder = SizeLadder(vocab_size=corpus.vocab_size, context_length=data.context_length, **vars(sweep.config.model))
    return [float(N) for N, _ in ladder.sized()], corpus.training_tokens * data.max_epochs


def _collect(sweep: Sweep) -> tuple[Path, Path]:
    from sweep.store.collect import collect, write_tables

    found = collect(sweep.plan.runs, sweep.store, sweep.config.fit)
    if not (found.runs["state"] == states.DONE).any():
        raise InputError(f"no run of {sweep.config.name} in store={sweep.store.root} is done; launch the sweep first")
    return write_tables(found.runs, found.curves, Path(sweep.config.out))
