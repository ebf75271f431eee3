"""Tables of runs: made from what a caller has or read from a file, and checked before anything is fitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.tables.groups import budgets_of_compute, group_budgets, trajectories
from sweep.tables.names import missing_column, resolve
from sweep.tables.readers import counted, read_frame
from sweep.tables.rows import complete, finished, names_of, points_of, replicates
from sweep.tables.units import Units, check_units, positive_column

if TYPE_CHECKING:
    import pandas as pd

# Default names of columns.
COLUMNS = {name: name for name in ("run_id", "N", "D", "C", "loss", "budget", "weight", "cluster", "batch_tokens")}
NAMED = 20  # runs left out that are named
MAX_COMPUTE_FACTOR = 100  # between C and 6 N D; no convention differs by more
MISSING = ("refuse", "drop")
NONE = "none"  # the name of a column that is not to be looked for: columns.budget=none, columns.cluster=none
MERGE = "columns.replicates=best or columns.replicates=seeds"


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A run that is not fitted, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunTable:
    """Finished runs as columns, each of shape (runs,).

    Attributes:
        run_id: name.
        N, D, C: parameters, training tokens seen, training FLOPs.
        loss: final loss, nats per token.
        budget: planned FLOPs that group runs into IsoFLOP profiles; NaN outside any profile.
        weight: weight in Approach 3; None for equal weights.
        cluster: labels of rows that are not independent, such as points of one trajectory; None if all are independent.
        batch_tokens: tokens per optimizer step; None if unknown.
        excluded: runs that were left out, with the reason.
        notes: what reading the table decided, in sentences: rows dropped or merged, budgets grouped, losses far apart.
    """

    run_id: np.ndarray
    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    loss: np.ndarray
    budget: np.ndarray
    weight: np.ndarray | None = None
    cluster: np.ndarray | None = None
    batch_tokens: np.ndarray | None = None
    excluded: tuple[Exclusion, ...] = field(default=())
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.run_id)

    def best(self) -> tuple[float, float]:
        """(N, D) of the run of the lowest loss."""
        row = int(self.loss.argmin())
        return float(self.N[row]), float(self.D[row])

    def remarks(self) -> list[str]:
        """What was left out, and what reading the table decided, a line each."""
        more = len(self.excluded) - NAMED
        lines = [f"left out: {run.run_id}, {run.reason}" for run in self.excluded[:NAMED]]
        return [*lines, *([f"left out: {more} more; fits.json has all"] if more > 0 else []), *self.notes]

    def where(self, chosen: np.ndarray) -> "RunTable":
        """The runs that a mask or indices select."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        return replace(self, **{name: column[chosen] for name, column in columns.items() if column is not None})


RunsLike: TypeAlias = "RunTable | pd.DataFrame | Mapping[str, ArrayLike] | ArrayLike"


def as_runs(
    runs: RunsLike, D: ArrayLike | None = None, loss: ArrayLike | None = None, budget: ArrayLike | None = None
) -> RunTable:
    """A checked table from a table or from arrays. Raises LawError if something is missing, not a positive number, in another
    unit, or occurs twice.

    Args:
        runs: a `RunTable`; a pandas table or a mapping with the columns N, loss, D or C, and optionally budget and run_id; or
            the N of each run, followed by the others, all of shape (runs,).
        D, loss, budget: only if `runs` is an array.
    """
    if isinstance(runs, RunTable):
        check_runs(runs, "the table")
        return runs
    import pandas as pd

    if isinstance(runs, Mapping) or hasattr(runs, "columns"):
        if not (D is None and loss is None and budget is None):
            raise LawError("bad_option", "D, loss and budget are given beside a table; put them in as its columns")
        try:
            frame = pd.DataFrame(runs)  # type: ignore[arg-type]
        except ValueError as error:
            raise LawError("bad_value", f"the columns do not make a table ({error}); give one number for each run") from error
        return runs_from_frame(frame)
    if D is None or loss is None:
        raise LawError("missing_column", "D and loss are needed beside N: give three arrays of one length, or a table")
    given = {"N": runs, "D": D, "loss": loss} | ({} if budget is None else {"budget": budget})
    arrays = {name: np.asarray(values) for name, values in given.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) != 1 or arrays["N"].ndim != 1:
        raise LawError("bad_value", f"the arrays have shapes {shapes}; give each one number for each run")
    return runs_from_frame(pd.DataFrame(arrays), source="the arrays")


def read_runs(source: Path | str, columns: Mapping[str, str] = COLUMNS, *, units: Units = Units(), **options: Any) -> RunTable:
    """The table of runs in a file or a wandb project; see `read_frame`, and `runs_from_frame`, which takes `options`."""
    frame = read_frame(source)
    named = resolve(frame, {**COLUMNS, **{name: value for name, value in columns.items() if value is not None}})
    return runs_from_frame(units.convert(frame, named), named, source, **options)


def runs_from_frame(
    frame: "pd.DataFrame",
    columns: Mapping[str, str] = COLUMNS,
    source: Path | str = "the table",
    *,
    require_C: bool = False,
    missing: str = "refuse",
    how: str | None = None,
) -> RunTable:
    """A checked table of runs. Raises LawError if a column is missing, a value is missing, not a number, not positive or in
    another unit, or a run occurs twice. Budgets that are nearly equal become one, and rows with nearly equal C get a budget if
    no column has any (see `sweep.tables.groups`); the table's `notes` say so.

    Args:
        frame: one row per run. Rows whose column `state` is neither "done" nor "finished" are excluded.
        columns: the frame's names for any of `COLUMNS`, where they differ by more than case. N and loss are needed, and D or C:
            the other follows from C = 6 N D. Without run_id a run is named by its row. "none" leaves out an optional one.
        source: where the frame is from, for messages.
        require_C: refuse a table without a column of C, because C = 6 N D is not the convention of the fit.
        missing: "drop" excludes rows in which a value is missing or bad, with the reason.
        how: what becomes of several rows of one (N, D); see `sweep.tables.rows.replicates`.
    """
    if missing not in MISSING:
        raise LawError("bad_option", f"missing={missing} is none of {', '.join(MISSING)}")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise LawError("bad_value", f"{source} has the column {twice[0]!r} twice; drop one of them")
    if not len(frame):
        raise LawError("too_few_runs", f"{source} has no rows; a fit needs runs")
    columns = named_columns(frame, columns, source, require_C=require_C)
    frame, excluded = finished(counted(frame), columns, source)
    notes: tuple[str, ...] = ()
    if missing == "drop":
        frame, dropped, notes = complete(frame, columns, source)
        excluded += dropped

    def column(name: str, *, optional: bool = False) -> np.ndarray | None:
        there = columns[name] in frame
        return positive_column(frame, columns[name], name, source, optional=optional) if there else None

    N, loss = (positive_column(frame, columns[name], name, source) for name in ("N", "loss"))
    D, C, budget = column("D"), column("C"), column("budget", optional=True)
    known_D = C / (6 * N) if D is None else D
    run_id = names_of(frame, columns)
    named = columns["run_id"] in frame
    cluster = frame[columns["cluster"]].astype(str).to_numpy() if columns["cluster"] in frame else None
    if named and cluster is not None:
        run_id = points_of(run_id, known_D)
    kept, loss, others, more = replicates(N, known_D, loss, run_id, how)
    excluded += [(str(run_id[row]), reason) for row, reason in others]
    table = RunTable(
        run_id=run_id,
        N=N,
        D=known_D,
        C=6 * N * D if C is None else C,
        loss=loss,
        budget=np.full(len(frame), np.nan) if budget is None else budget,
        weight=column("weight"),
        cluster=cluster,
        batch_tokens=column("batch_tokens"),
        excluded=tuple(Exclusion(run_id=name, reason=reason) for name, reason in excluded),
    ).where(kept)
    check_runs(table, source, named=named)
    return _grouped(table, (*notes, *more), columns)


def named_columns(
    frame: "pd.DataFrame", columns: Mapping[str, str], source: Path | str, *, require_C: bool = False
) -> dict[str, str]:
    """The frame's names for `COLUMNS`. Raises LawError if one that is needed, or that was given, is not there."""
    columns = {**COLUMNS, "state": "state", **{name: value for name, value in columns.items() if value is not None}}
    if columns["cluster"] not in frame and columns["cluster"] in COLUMNS:  # columns.cluster=N, whatever N is called
        columns["cluster"] = columns[columns["cluster"]]
    found = resolve(frame, columns)
    for name in ("N", "loss", *(["C"] if require_C else [])):
        if found[name] not in frame:
            raise missing_column(frame, found[name], name, source)
    if found["D"] not in frame and found["C"] not in frame:
        raise missing_column(frame, found["D"], "D", source, f" (or columns.C, now {found['C']!r}, and D = C/(6N))")
    for name, default in COLUMNS.items():
        if found[name] not in frame and columns[name] not in (default, NONE):
            raise missing_column(frame, found[name], name, source)
    return found


def _grouped(table: RunTable, notes: tuple[str, ...], columns: Mapping[str, str]) -> RunTable:
    """`table` with budgets and trajectories, unless these columns are `NONE`, and notes of them."""
    found: tuple[str, ...]
    if columns["budget"] == NONE:
        budget, found = table.budget, ()
    elif np.isfinite(table.budget).any():
        budget, found = group_budgets(table.budget, table.N)
    else:
        budget, found = budgets_of_compute(table.C, table.N, table.D)
    notes += found
    cluster = table.cluster
    if cluster is None and columns["cluster"] != NONE:
        cluster, found = trajectories(table.N, table.D, budget)
        notes += found
    return replace(table, budget=budget, cluster=cluster, notes=notes)


def check_runs(runs: RunTable, source: Path | str, *, named: bool = True) -> None:
    """Raises LawError if a column is in an impossible unit or a run occurs twice: with the same run_id, or, if the runs are not
    `named`, with the same N, D and loss."""
    if not len(runs):
        raise LawError("too_few_runs", f"{source} has no rows; a fit needs runs")

    for name in ("N", "D", "C", "loss"):
        values = getattr(runs, name)
        if (bad := ~(np.isfinite(values) & (values > 0))).any():
            value, run_id = values[bad][0], runs.run_id[bad][0]
            raise LawError("bad_value", f"{source}: {name} is {value} in {run_id}; it must be a positive number")
    N, D = runs.N, runs.D
    check_units("run", runs.run_id.tolist(), N, D, runs.loss, source)
    ratio = float(np.median(runs.C / (6 * N * D)))  # the smallest models may spend nearly all FLOPs on the vocabulary
    if not 1 / MAX_COMPUTE_FACTOR <= ratio <= MAX_COMPUTE_FACTOR:
        units = "check that N is in parameters, D in tokens and C in FLOPs, not millions or billions"
        raise LawError("wrong_unit", f"{source}: C is {ratio:.3g} times 6 N D; {units}")
    names, counts = np.unique(runs.run_id, return_counts=True)
    if (counts > 1).any():
        twice = names[counts > 1][0]
        differ = len(np.unique(D[runs.run_id == twice])) > 1
        points = "if these are points of one trajectory, group them with columns.cluster=run_id"
        remedy = points if differ else f"keep one row for each run, or merge them with {MERGE}"
        raise LawError("duplicates", f"{source}: run_id {twice} occurs {counts[counts > 1][0]} times; {remedy}")
    if named:
        return
    _, first, counts = np.unique(np.stack([N, D, runs.loss]), axis=1, return_index=True, return_counts=True)
    if (counts > 1).any():
        row = first[counts > 1][0]
        raise LawError(
            "duplicates",
            f"{source}: {runs.run_id[row]} (N = {N[row]:g}, D = {D[row]:g}, loss {runs.loss[row]:g}) occurs "
            f"{counts.max()} times; keep one row for each run, distinguish runs by a column run_id, or merge them with {MERGE}",
        )
