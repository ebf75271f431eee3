"""Commands on tables: fit, plot, next. They import no torch where a table is given."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands import DONE
from sweep.commands.shared import composed, corpora, ladder_of, plan_runs
from sweep.config import FitConfig, SweepConfig
from sweep.errors import InputError
from sweep.files import write_atomically, write_json
from sweep.store import Store, states

if TYPE_CHECKING:
    from sweep.fit import Curve, Fits, RunTable


def fit(options: Namespace) -> int:
    """Fit the laws, print them and write fits.json. Raises InputError if none of the three approaches could be fitted."""
    config = composed(options)
    fits = make_fits(config)
    print(fits.summary())
    print(f"\nwrote {Path(config.out) / 'fits.json'}")
    require_a_law(fits)
    return DONE


def require_a_law(fits: "Fits") -> None:
    """Raises InputError if none of the three approaches could be fitted."""
    from sweep.fit import LawError

    refused = [law for law in (fits.envelope, fits.isoflop, fits.parametric) if isinstance(law, LawError)]
    if len(refused) == 3:
        raise InputError("no law could be fitted: " + "; ".join(map(str, refused)))


def plot(options: Namespace) -> int:
    """Fit the laws and draw the figures."""
    config = composed(options)
    fits = make_fits(config)
    from sweep.figures import draw_all

    for path in draw_all(fits, Path(config.out)):
        print(f"wrote {path}")
    return DONE


def choose_next(options: Namespace) -> int:
    """Choose the next runs, print them, and write them to `out` as next.json and as a grid, conf/grid/next.yaml."""
    from sweep.fit import fit_parametric, next_runs

    config = composed(options)
    if (config.fit.parameters, config.fit.flops) != ("total", "6N"):
        raise InputError("next names runs by all parameters and C = 6ND; leave fit.parameters=total and fit.flops=6N")
    runs, _, _ = read_tables(config)
    asked, chosen_fit = config.next, config.fit
    intervals: dict[str, Any] = {"resamples": chosen_fit.resamples, "level": chosen_fit.level, "seed": chosen_fit.seed}
    fit = fit_parametric(runs, **surface_options(chosen_fit), **intervals)
    sizes, most_tokens = _sizes_and_tokens(config) if config.table is None else (None, float("inf"))
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
    earlier = [(run.N, run.D) for run in config.grid.runs or []]
    with writing(out):
        write_json(out / "next.json", chosen.to_dict())
        grid.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(grid, chosen.grid(earlier))
    parts = [part for part in ("isoflop", "horizons") if getattr(config.grid, part)]
    where = f"hydra.searchpath=[file://{(out / 'conf').resolve()}]"
    print(f"\nwrote {out / 'next.json'} and {grid}; add to the sweep's overrides to plan, launch and fit them with the rest:")
    print(f"  'grid=[{','.join([*parts, 'next'])}]' '{where}'")
    return DONE


def make_fits(config: SweepConfig) -> "Fits":
    """Fits of the sweep's store, or of `table`; fits.json and, from a store, the tables are written to `out`."""
    from sweep.fit import Questions, fit_all

    runs, curves, conventions = read_tables(config)
    options = config.fit
    fits = fit_all(
        runs,
        curves,
        convention={"loss": options.loss, "N": options.parameters, "C": options.flops},
        conventions=conventions,
        questions=Questions(**vars(config.ask)),
        **surface_options(options),
        seed_noise=options.seed_noise,
        envelope_method=options.envelope,
        envelope_points=options.envelope_points,
        resamples=options.resamples,
        level=options.level,
        seed=options.seed,
    )
    with writing(Path(config.out)):
        write_json(Path(config.out) / "fits.json", fits.to_dict())
    return fits


def surface_options(options: FitConfig) -> dict[str, Any]:
    """How Approach 3 is fitted."""
    names = {"objective": "objective", "delta": "huber_delta", "tied": "tied", "fixed_E": "fixed_E"}
    return {name: getattr(options, field) for name, field in names.items()}


def read_tables(config: SweepConfig) -> tuple["RunTable", "Sequence[Curve]", dict[str, "RunTable"]]:
    """Runs and curves of the sweep's store, or of `table`, and the runs under every convention that the table has."""
    from sweep.fit import Units, read_curves, read_frame, runs_from_frame, tables_by_convention

    table, curves = _collect(config, Path(config.out)) if config.table is None else (config.table, config.curves)
    names, units = _names(config), Units.of(vars(config.columns))
    frame, columns = units.convert(read_frame(table), names), _chosen(config, names)
    runs = runs_from_frame(frame, columns, table, require_C=config.fit.flops != "6N")
    # Curves have one loss, under any convention.
    loss = columns["loss"] if config.fit.loss == "bits_per_byte" else names["loss"]
    of_curves = names | {"loss": config.columns.curve_loss or loss}
    known = read_curves(curves, of_curves, runs, units=units, smoothing=config.fit.smoothing_steps) if curves else []
    return runs, known, tables_by_convention(frame, columns, names)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Make `out`; what goes wrong in writing there becomes an InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error.strerror}); choose another out=…") from error


def _sizes_and_tokens(config: SweepConfig) -> tuple[list[float], float]:
    """The sizes of the sweep's ladder, and the longest horizon that its data allow."""
    from models import count_parameters

    _, recipe = plan_runs(config)
    sizes = [float(count_parameters(shape).total) for shape in ladder_of(config).shapes()]
    return sizes, recipe.training_tokens(corpora(config)) * config.data.max_epochs


def _names(config: SweepConfig) -> dict[str, str]:
    """The table's columns by field. A name that the user gave for N or C names it under the convention that is declared."""
    units = ("curve_loss", "bytes_per_token")
    names = {field: name for field, name in vars(config.columns).items() if field not in units and not field.endswith("_unit")}
    for field, convention in (("N", "N_non_embedding"), ("C", f"C_{config.fit.flops}")):
        declared = config.fit.parameters == "non_embedding" if field == "N" else config.fit.flops != "6N"
        if declared and names[field] != field:
            names[convention], names[field] = names[field], field
    return names


def _chosen(config: SweepConfig, names: dict[str, str]) -> dict[str, str]:
    """Of `names`, those of N, C and the loss under the sweep's conventions."""
    chosen = dict(names)
    if config.fit.parameters == "non_embedding":
        chosen["N"] = names["N_non_embedding"]
    if config.fit.flops != "6N":
        chosen["C"] = names[f"C_{config.fit.flops}"]
    if config.fit.loss == "train" and names["loss"] == "loss":
        chosen["loss"] = "train_loss"
    if config.fit.loss == "bits_per_byte" and names["loss"] == "loss":
        chosen["loss"] = "bits_per_byte"
    return chosen


def _collect(config: SweepConfig, out: Path) -> tuple[Path, Path]:
    from sweep.store.collect import collect, write_tables

    planned, _ = plan_runs(config)
    runs, curves = collect(planned, Store(Path(config.store)), config.fit)
    if not (runs["state"] == states.DONE).any():
        raise InputError(f"store={config.store} holds no finished run of this sweep; launch it first, with the same overrides")
    return write_tables(runs, curves, out)
