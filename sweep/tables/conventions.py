"""What N, C and the loss are: columns of a table under each convention, and the tables that a fit needs.

Most of the way between Kaplan's exponent and Chinchilla's is accounting (Porian et al. 2024, arXiv 2406.19146; Pearce and Song
2024, arXiv 2406.12907): whether N counts embeddings, and whether C counts the output layer and attention.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import LawError
from sweep.tables.curves import Curve, read_curves
from sweep.tables.names import resolve
from sweep.tables.readers import read_frame
from sweep.tables.rows import filtered
from sweep.tables.table import COLUMNS, RunTable, runs_from_frame
from sweep.tables.units import COUNTS, Units

if TYPE_CHECKING:
    import pandas as pd

    from sweep.config import Columns, FitConfig

# What N and C are, as columns of a sweep's runs.csv; from Kaplan's counting to the exact one.
KAPLAN_COUNTING, ALL_COUNTING = "N without embeddings, C = 6ND", "N with embeddings, C = 6ND"
CONVENTIONS = (
    (KAPLAN_COUNTING, "N_non_embedding", "C_kaplan"),
    ("N without embeddings, C exact", "N_non_embedding", "C_exact"),
    (ALL_COUNTING, "N", "C"),
    ("N with embeddings, C of Chinchilla's Appendix F", "N", "C_chinchilla"),
    ("N with embeddings, C exact", "N", "C_exact"),
)
# What the loss is, likewise; for an evaluated set its name after the prefix.
LOSSES = {"val": "loss", "train": "train_loss", "bits_per_byte": "bits_per_byte"}
SET = "loss_on_"


def read_tables(
    columns: "Columns",
    fit: "FitConfig",
    table: Path | str,
    curves: Path | str | None,
    *,
    where: str | None = None,
    missing: str = "refuse",
) -> tuple[RunTable, list[Curve], dict[str, RunTable]]:
    """The runs and curves that a fit needs, and the runs under every convention that the table has; see `read_runs`. Raises
    LawError if a table cannot be read or is not one of runs or curves.

    Args:
        columns: the tables' names for fields, and their units.
        fit: says which N, C and loss.
        table, curves: files or addresses of the runs and of their curves; None if there are no curves.
        where: an expression over columns that says which rows are wanted; see `sweep.tables.rows.filtered`.
        missing: as `runs_from_frame` takes it.
    """
    declared = {"N": "N_non_embedding"} if fit.parameters == "non_embedding" else {}
    declared |= {"C": f"C_{fit.flops}"} if fit.flops != "6N" else {}
    names = _names(columns, declared)
    units = Units(
        **{unit: getattr(columns, f"{unit}_unit") for unit in (*COUNTS, "loss")}, bytes_per_token=columns.bytes_per_token
    )
    chosen = {**names, **{field: names[convention] for field, convention in declared.items()}}
    if fit.loss not in LOSSES or (fit.loss != "val" and names["loss"] == "loss"):
        chosen["loss"] = LOSSES.get(fit.loss, f"{SET}{fit.loss}")
    read = read_frame(table)
    if chosen["loss"].startswith(SET) and chosen["loss"] not in read:
        sets = [name.removeprefix(SET) for name in read.columns if name.startswith(SET)]
        raise LawError(
            "missing_column",
            f"fit.loss={fit.loss} is none of {', '.join(LOSSES)} and the evaluated sets ({', '.join(sets) or 'none'}); "
            f"isosweep evaluate with evaluation.sets={{{fit.loss}: …}} measures one",
        )
    names, chosen = resolve(read, names), resolve(read, chosen)
    wanted = read if where is None else filtered(read, where, names)
    frame = units.convert(wanted, names)
    options: dict[str, Any] = {"missing": missing, "how": columns.replicates}
    runs = runs_from_frame(frame, chosen, table, require_C=fit.flops != "6N", **options)
    if len(wanted) < len(read):
        runs = replace(runs, notes=(f"{len(wanted)} of {len(read)} rows were asked for (where={where})", *runs.notes))
    loss = columns.curve_loss or (chosen if fit.loss == "bits_per_byte" else names)["loss"]
    known = read_curves(curves, {**names, "loss": loss}, runs, units=units, smoothing=fit.smoothing_steps) if curves else []
    return runs, known, tables_by_convention(frame, chosen, names, **options)


def tables_by_convention(
    frame: "pd.DataFrame", columns: Mapping[str, str] = COLUMNS, names: Mapping[str, str] = COLUMNS, **options: Any
) -> dict[str, RunTable]:
    """The runs of `frame` under every convention whose columns it has, by name.

    Args:
        frame, columns, options: as `runs_from_frame` takes them.
        names: the frame's names for N and C under each convention, where they differ from those in `CONVENTIONS`.
    """
    tables = {}
    names = resolve(frame, {**{field: field for _, *fields in CONVENTIONS for field in fields}, **names})
    for name, *fields in CONVENTIONS:
        N, C = (names[field] for field in fields)
        if N in frame and C in frame:
            tables[name] = runs_from_frame(frame, {**columns, "N": N, "C": C}, f"the table, {name}", **options)
    return tables


def _names(columns: "Columns", declared: Mapping[str, str]) -> dict[str, str]:
    """The table's names by field. A name given for N or C is the column of the convention that `declared` has for it."""
    others = ("curve_loss", "bytes_per_token", "replicates")
    names = {field: name for field, name in vars(columns).items() if field not in others and not field.endswith("_unit")}
    for field, convention in declared.items():
        if names[field] != field:
            names[convention], names[field] = names[field], field
    return names
