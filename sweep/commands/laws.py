"""Commands on tables: fit, plot, next. They import no torch where a table is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import store as states
from sweep.commands import DONE
from sweep.commands.planning import corpora, plan_runs
from sweep.config import FitConfig, SweepConfig
from sweep.errors import InputError
from sweep.files import write_atomically, write_json
from sweep.store import Store

if TYPE_CHECKING:
    from sweep.fit import Curve, Fits, RunTable


def fit(config: SweepConfig) -> int:
    """Fit the laws, print them and write fits.json. Raises InputError if none of the three approaches could be fitted."""
    from sweep.fit import LawError

    fits = make_fits(config)
    print(fits.summary())
    print(f"\nwrote {Path(config.out) / 'fits.json'}")
    refused = [law for law in (fits.envelope, fits.isoflop, fits.parametric) if isinstance(law, LawError)]
    if len(refused) == 3:
        raise InputError("no law could be fitted: " + "; ".join(map(str, refused)))
    return DONE


def plot(config: SweepConfig) -> int:
    """Fit the laws and draw the figures."""
    fits = make_fits(config)
    from sweep.figures import draw_all

    for path in draw_all(fits, Path(config.out)):
        print(f"wrote {path}")
    return DONE


def choose_next(config: SweepConfig) -> int:
    """Choose the next runs, print them, and write them to `out` as next.json and as a grid, conf/grid/next.yaml."""
    from sweep.fit import fit_parametric, next_runs

    if (config.fit.parameters, config.fit.flops) != ("total", "6N"):
        raise InputError("next names runs by all parameters and C = 6ND; leave fit.parameters=total and fit.flops=6N")
    runs, _, _ = read_tables(config)
    asked, options = config.next, config.fit
    fit = fit_parametric(runs, **_surface_options(options), resamples=options.resamples, level=options.level, seed=options.seed)
    sizes, most_tokens = _sizes_and_tokens(config) if config.table is None else (None, float("inf"))
    chosen = next_runs(
        fit,
        runs,
        flops=asked.flops or float(runs.C.sum()),
        target=asked.target,
        target_C=asked.target_C,
        sizes=sizes,
        most=asked.most,
        most_tokens=most_tokens,
        reach=asked.reach,
    )
    print(chosen.summary())
    out = Path(config.out)
    grid = out / "conf" / "grid" / "next.yaml"
    earlier = [(run.N, run.D) for run in config.grid.runs or []]
    with _writing(out):
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
        **_surface_options(options),
        seed_noise=options.seed_noise,
        envelope_method=options.envelope,
        envelope_points=options.envelope_points,
        resamples=options.resamples,
        level=options.level,
        seed=options.seed,
    )
    with _writing(Path(config.out)):
        write_json(Path(config.out) / "fits.json", fits.to_dict())
    return fits


def _surface_options(options: FitConfig) -> dict[str, Any]:
    """How Approach 3 is fitted."""
    names = {"objective": "objective", "delta": "huber_delta", "tied": "tied", "fixed_E": "fixed_E"}
    return {name: getattr(options, field) for name, field in names.items()}


def read_tables(config: SweepConfig) -> tuple["RunTable", "Sequence[Curve]", dict[str, "RunTable"]]:
    """Runs and curves of the sweep's store, or of `table`, and the runs under every convention that the table has."""
    from sweep.fit import read_curves, read_frame, runs_from_frame, tables_by_convention

    out = Path(config.out)
    table, curves = _collect(config, out) if config.table is None else (Path(config.table), _path(config.curves))
    frame, columns = read_frame(table), _columns(config)
    runs = runs_from_frame(frame, columns, table, require_C=config.fit.flops != "6N")
    # Curves have one loss, under any convention.
    of_curves = vars(config.columns) | ({"loss": columns["loss"]} if config.fit.loss == "bits_per_byte" else {})
    known = read_curves(curves, of_curves, runs) if curves else []
    return runs, known, tables_by_convention(frame, columns)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Make `out`; what goes wrong in writing there becomes an InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error.strerror}); choose another out=…") from error


def _sizes_and_tokens(config: SweepConfig) -> tuple[list[float], float]:
    """The sizes of the sweep's ladder, and the longest horizon that its data allow."""
    from models import SizeLadder, count_parameters

    data = config.data
    _, recipe = plan_runs(config)
    ladder = SizeLadder(vocab_size=recipe.vocab_size, context_length=data.context_length, **vars(config.model))
    sizes = [float(count_parameters(shape).total) for shape in ladder.shapes()]
    return sizes, recipe.training_tokens(corpora(config)) * data.max_epochs


def _columns(config: SweepConfig) -> dict[str, str]:
    """Which columns hold N, C and the loss under the sweep's conventions; a name the user gave goes first."""
    columns = dict(vars(config.columns))
    if config.fit.parameters == "non_embedding" and columns["N"] == "N":
        columns["N"] = "N_non_embedding"
    if config.fit.flops != "6N" and columns["C"] == "C":
        columns["C"] = f"C_{config.fit.flops}"
    if config.fit.loss == "train" and columns["loss"] == "loss":
        columns["loss"] = "train_loss"
    if config.fit.loss == "bits_per_byte" and columns["loss"] == "loss":
        columns["loss"] = "bits_per_byte"
    return columns


def _collect(config: SweepConfig, out: Path) -> tuple[Path, Path]:
    from sweep.collect import collect, write_tables

    planned, _ = plan_runs(config)
    runs, curves = collect(planned, Store(Path(config.store)), config.fit)
    if not (runs["state"] == states.DONE).any():
        raise InputError(f"store={config.store} holds no finished run of this sweep; launch it first, with the same overrides")
    return write_tables(runs, curves, out)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
