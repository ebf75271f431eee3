"""Commands that fit, or ask a law: fit, plot, ask, next. They never import torch."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.commands import DONE, console
from sweep.commands.sweeps import Sweep, composed, family_of, known_surface, open_sweep, store_of
from sweep.config import SweepConfig
from sweep.errors import InputError
from sweep.files import write_atomically, write_json, writing
from sweep.store import Store, states
from sweep.words import counted

if TYPE_CHECKING:
    from sweep.fit import Curve, Fits, RunTable


def fit(options: Namespace) -> int:
    """Fit the laws, print the verdict and what it rests on, and write fits.json."""
    return of_each_label(options, partial(_fit, full=options.full))


def _fit(config: SweepConfig, sweep: Sweep | None, *, full: bool) -> str:
    fits = make_fits(config, sweep)
    if full and not fits.fitted:
        print(fits.summary(full=True))
    require_a_law(fits)
    return f"{fits.summary(full=full)}\n\nwrote {Path(config.out) / 'fits.json'}"


def of_each_label(options: Namespace, do: Callable[[SweepConfig, Sweep | None], str]) -> int:
    """Print what is done with the sweep, or in a sweep with an axis with the runs of each label. Raises InputError if they have
    no law, in a sweep with an axis if no label has one."""
    config, sweep = opened(options)
    if sweep is None or len(sweep.plan.labels) == 1:
        print(do(config, sweep))
        return DONE
    lacking: dict[str, list[str]] = {}
    for label in sweep.plan.labels:
        part = sweep.of_label(label)
        try:
            print(f"=== {label}\n{do(part.config, part)}\n")
        except InputError as error:
            lacking.setdefault(str(error), []).append(label)
    reasons = [f"{', '.join(labels)}: {reason}" for reason, labels in lacking.items()]
    if sum(map(len, lacking.values())) == len(sweep.plan.labels):
        raise InputError(f"{'; '.join(reasons)}; isosweep compare {config.name} compares the losses of its labels")
    print("\n".join(reasons))
    return DONE


def ask(options: Namespace) -> int:
    """Answer the questions of ask.* by a law that is known, without runs and without intervals.

    The law is chinchilla (Hoffmann et al. 2022), besiroglu (Besiroglu et al. 2024), a sweep that was fitted, or a fits.json.
    """
    from sweep.fit import KnownLaw, Questions, answer

    questions, store = Questions.of(composed(options).ask), Store(store_of(options))
    law = KnownLaw.of(known_surface(options.sweep, store), options.sweep)
    answers = answer([law], questions).summary().replace(" (no interval)", "")  # the first line says it of all
    print(f"{law.summary()}\n\n{answers}")
    return DONE


def verdict_lines(fits: "Fits") -> list[str]:
    """The first lines of `isosweep fit`."""
    return fits.verdict.lines() if fits.verdict else [why_no_law(fits)] if not fits.fitted else []


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
    from sweep.commands.experiments import measuring

    if family_of(options):
        config, runs, labels, outcome = measuring.compared_tables(options)
        measuring.draw(config, labels, outcome, runs)
        return DONE
    sweep = opened(options)[1]
    if sweep is not None and sweep.compares:
        measuring.draw_comparison(sweep)
    try:
        return of_each_label(options, _plot)
    except InputError:
        if sweep is None or not sweep.compares:
            raise
        return DONE


def _plot(config: SweepConfig, sweep: Sweep | None) -> str:
    from sweep.figures import draw_all

    fits = make_fits(config, sweep)
    written = draw_all(fits, Path(config.out), config.figures.formats)
    return "\n".join([*verdict_lines(fits), *(f"wrote {path}" for path in written)])


def choose_next(options: Namespace) -> int:
    """Choose the next runs, print them, and write them to `out` as next.json and as a grid, conf/grid/next.yaml.

    Of a sweep with an axis, by the runs of the baseline.
    """
    from sweep.fit import Options, fit_parametric, next_runs

    config, sweep = opened(options)
    sweep = None if sweep is None else sweep.of_baseline()
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
    if sweep is not None and options.seed_noise is None:
        options = replace(options, seed_noise=_seed_noise(Path(config.out) / "runs.csv"))
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


def _seed_noise(path: Path) -> float | None:
    """The noise between the seeds of a sweep's collected runs; None if too few runs differ in nothing else."""
    from sweep.compare.differences import between_seeds
    from sweep.fit import read_frame
    from sweep.fit.lack_of_fit import ENOUGH

    runs = read_frame(path)
    if "label" not in runs:
        return None
    done = runs[runs["state"] == states.DONE]
    noise, freedom = between_seeds(done.assign(label=done["label"].astype(object).fillna("")))
    return noise if freedom >= ENOUGH else None


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
    from sweep.plan.grid import ladder_of

    data, corpus = sweep.config.data, sweep.plan.corpus
    ladder = ladder_of(sweep.config, corpus.vocab_size)
    return [float(N) for N, _ in ladder.sized()], corpus.training_tokens * data.max_epochs


def _collect(sweep: Sweep) -> tuple[Path, Path]:
    from sweep.store.collect import collect, write_tables

    found = collect(sweep.plan.runs, sweep.store, sweep.config.fit)
    if not (found.runs["state"] == states.DONE).any():
        raise InputError(f"no run of {sweep.config.name} in store={sweep.store.root} is done; launch the sweep first")
    return write_tables(found.runs, found.curves, Path(sweep.config.out))
