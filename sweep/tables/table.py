"""Tables of runs and curves, checked before anything is fitted; `sweep.tables.readers` gets them from files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.tables.units import number

if TYPE_CHECKING:
    import pandas as pd

# What columns are called where nobody says otherwise.
COLUMNS = {name: name for name in ("run_id", "N", "D", "C", "loss", "budget", "weight", "cluster", "batch_tokens")}
# A table outside these is in another unit. The smallest models that anyone trained have a few hundred parameters.
SMALLEST_N, SMALLEST_D = 100, 1000
TOKENS_PER_PARAMETER = (1e-3, 1e6)  # of the median run
LARGEST_LOSS = 15  # nats per token, of the median run: a guess among three million tokens
FINISHED = ("done", "finished")  # states of a run that reached its horizon: our store's, and wandb's
COMPUTE_FACTOR = 100  # between C and 6 N D, beyond any convention's difference


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A run that no fit used, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunTable:
    """Finished runs as columns, each of shape (runs,).

    Attributes:
        run_id: names.
        N: parameters.
        D: training tokens seen.
        C: training FLOPs.
        loss: final loss, nats per token.
        budget: planned FLOPs that group runs into IsoFLOP profiles; NaN outside any profile.
        weight: how much each counts in Approach 3; None for all alike.
        cluster: labels of rows that are not independent, such as points of one trajectory; None if all are.
        batch_tokens: tokens per step; None if not known.
        excluded: runs that were left out, with the reason.
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

    def __len__(self) -> int:
        return len(self.run_id)

    def where(self, chosen: np.ndarray) -> "RunTable":
        """The runs that `chosen`, a mask or indices, selects."""
        columns = {name: getattr(self, name) for name in (*COLUMNS,)}
        return replace(self, **{name: column[chosen] for name, column in columns.items() if column is not None})


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run's training curve: losses after `tokens` tokens, both of shape (points,), tokens ascending."""

    run_id: str
    N: float
    flops_per_token: float
    tokens: np.ndarray
    loss: np.ndarray


RunsLike: TypeAlias = "RunTable | pd.DataFrame | Mapping[str, ArrayLike] | ArrayLike"


def as_runs(
    runs: RunsLike, D: ArrayLike | None = None, loss: ArrayLike | None = None, budget: ArrayLike | None = None
) -> RunTable:
    """A checked table from what a caller has.

    Args:
        runs: a `RunTable`; a pandas table or a mapping with the columns N, loss, D or C, and optionally budget and run_id; or
            the N of each run, followed by the others, all of shape (runs,).
        D, loss, budget: only if `runs` is an array.

    Raises:
        LawError: if something is missing, not a positive number, in another unit, or there twice.
    """
    if isinstance(runs, RunTable):
        check_runs(runs, "the table")
        return runs
    if isinstance(runs, Mapping) or hasattr(runs, "columns"):
        import pandas as pd

        if not (D is None and loss is None and budget is None):
            raise LawError("bad_option", "D, loss and budget are given beside a table; put them in as its columns")
        try:
            frame = pd.DataFrame(runs)  # type: ignore[arg-type]
        except ValueError as error:
            raise LawError("bad_value", f"the columns do not make a table ({error}); give one number for each run") from error
        return runs_from_frame(frame, COLUMNS, "the table")
    if D is None or loss is None:
        raise LawError("missing_column", "D and loss are needed beside N: give three arrays of one length, or a table")
    given = {"N": runs, "D": D, "loss": loss} | ({} if budget is None else {"budget": budget})
    arrays = {name: np.asarray(values) for name, values in given.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) != 1 or arrays["N"].ndim != 1:
        raise LawError("bad_value", f"the arrays have shapes {shapes}; give each one number for each run")
    columns = {name: _positive(values, name, name, "the arrays", optional=name == "budget") for name, values in arrays.items()}
    table = RunTable(
        run_id=_row_names(len(columns["N"])),
        N=columns["N"],
        D=columns["D"],
        C=6 * columns["N"] * columns["D"],
        loss=columns["loss"],
        budget=columns.get("budget", np.full(len(columns["N"]), np.nan)),
    )
    check_runs(table, "the arrays", named=False)
    return table


def runs_from_frame(
    frame: "pd.DataFrame",
    columns: Mapping[str, str] = COLUMNS,
    source: Path | str = "the table",
    *,
    require_C: bool = False,
) -> RunTable:
    """A checked table of runs.

    Args:
        frame: one row per run.
        columns: the frame's names for any of `COLUMNS`, where they differ. N and loss are needed, and D or C: the other follows
            from C = 6 N D. Without run_id a run is named by its row; without budget there are no profiles. Rows whose column
            `state` is neither "done" nor "finished" are excluded, whatever else they hold.
        source: what the frame came from, for messages.
        require_C: refuse a table without the column of C, because C = 6 N D is not the convention that is asked for.

    Raises:
        LawError: if a column is missing, a value is missing, not a number, not positive or in another unit, or a run is there
            twice.
    """
    columns = {**COLUMNS, **columns}
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise LawError("bad_value", f"{source} has the column {twice[0]!r} twice; drop one")
    if not len(frame):
        raise LawError("too_few_runs", f"{source} has no rows; a fit needs runs")
    seen = sorted(set(frame["state"].astype(str))) if "state" in frame else []
    frame, excluded = _finished(frame, columns["run_id"])
    if not len(frame):
        raise LawError(
            "too_few_runs",
            f"{source}: no row's column 'state' is 'done' or 'finished' (it has {', '.join(seen)}); mend or drop that column",
        )
    N = column_of(frame, columns["N"], "N", source)
    loss = column_of(frame, columns["loss"], "loss", source)
    if require_C and columns["C"] not in frame:
        raise missing_column(frame, columns["C"], "C", source, "")
    if columns["D"] not in frame and columns["C"] not in frame:
        raise missing_column(frame, columns["D"], "D", source, f" (or columns.C, now {columns['C']!r}, and D = C/(6N))")
    D = column_of(frame, columns["D"], "D", source) if columns["D"] in frame else None
    C = column_of(frame, columns["C"], "C", source) if columns["C"] in frame else None
    D = C / (6 * N) if D is None and C is not None else D
    assert D is not None
    budget = columns["budget"]
    table = RunTable(
        run_id=frame[columns["run_id"]].astype(str).to_numpy() if columns["run_id"] in frame else _row_names(len(frame)),
        N=N,
        D=D,
        C=6 * N * D if C is None else C,
        loss=loss,
        budget=column_of(frame, budget, "budget", source, optional=True) if budget in frame else np.full(len(frame), np.nan),
        weight=_if_there(frame, columns, "weight", source),
        cluster=frame[columns["cluster"]].astype(str).to_numpy() if columns.get("cluster") in frame else None,
        batch_tokens=_if_there(frame, columns, "batch_tokens", source),
        excluded=excluded,
    )
    check_runs(table, source, named=columns["run_id"] in frame)
    return table


def check_runs(runs: RunTable, source: Path | str, *, named: bool = True) -> None:
    """Raises LawError if a column is in a unit that no run can have, or a run is there twice: under one run_id, or, where the
    runs are not `named`, with one N, D and loss."""

    if not len(runs):
        raise LawError("too_few_runs", f"{source} has no rows; a fit needs runs")

    def refuse(bad: np.ndarray, what: str, remedy: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise LawError("wrong_unit", f"{source}: {what} of {runs.run_id[row]} ({int(bad.sum())} such runs); {remedy}")

    for name in ("N", "D", "C", "loss"):
        values = getattr(runs, name)
        if not (np.isfinite(values) & (values > 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(values) & (values > 0)))[0])
            raise LawError(
                "bad_value", f"{source}: {name} is {values[row]} in {runs.run_id[row]}; it must be a positive number"
            )
    N, D, per_parameter = runs.N, runs.D, runs.D / runs.N
    low, high = TOKENS_PER_PARAMETER
    refuse(N < SMALLEST_N, f"N is {N.min():g}", "N must be in parameters, not millions or billions: multiply it")
    refuse(D < SMALLEST_D, f"D is {D.min():g}", "D must be in tokens, not millions or billions: multiply it")
    # Medians: a few small models may well see millions of tokens for each parameter, or spend all FLOPs on the vocabulary.
    units = "check that N is in parameters, D in tokens and C in FLOPs, not millions or billions"
    if not low <= (typical := float(np.median(per_parameter))) <= high:
        raise LawError("wrong_unit", f"{source}: the median run has {typical:.3g} tokens per parameter; {units}")
    ratio = float(np.median(runs.C / (6 * N * D)))
    if not 1 / COMPUTE_FACTOR <= ratio <= COMPUTE_FACTOR:
        raise LawError("wrong_unit", f"{source}: C is {ratio:.3g} times 6 N D; {units}")
    remedy = "it must be in nats per token: take the log of a perplexity"
    if (typical := float(np.median(runs.loss))) > LARGEST_LOSS:
        raise LawError("wrong_unit", f"{source}: the median loss is {typical:g}; {remedy}")
    names, counts = np.unique(runs.run_id, return_counts=True)
    if (counts > 1).any():
        twice = names[counts > 1][0]
        raise LawError("duplicates", f"{source}: run_id {twice} is there {counts.max()} times; keep one row for each run")
    if named:
        return
    _, first, counts = np.unique(np.stack([N, D, runs.loss]), axis=1, return_index=True, return_counts=True)
    if (counts > 1).any():
        row = first[counts > 1][0]
        raise LawError(
            "duplicates",
            f"{source}: {runs.run_id[row]} (N = {N[row]:g}, D = {D[row]:g}, loss {runs.loss[row]:g}) is there "
            f"{counts.max()} times; keep one row for each run, or tell runs apart by a column run_id",
        )


def as_curves(curves: "Sequence[Curve] | pd.DataFrame") -> Sequence[Curve]:
    """Curves from what a caller has: `Curve`s, or a pandas table with columns run_id, N, tokens, loss and perhaps
    flops_per_token (6 N if there is none).

    Raises:
        LawError: if a column is missing, or a value is not a positive number.
    """
    if not hasattr(curves, "columns"):
        known = list(curves)
        if not all(isinstance(curve, Curve) for curve in known):
            raise LawError("bad_value", "the curves are neither `Curve`s nor a pandas table with run_id, N, tokens and loss")
        check_curves(known, "the curves")
        return known
    frame: pd.DataFrame = curves  # type: ignore[assignment]
    per_token = "flops_per_token" in frame
    named = ("N", "tokens", "loss", *(("flops_per_token",) if per_token else ()))
    if "run_id" not in frame:
        raise missing_column(frame, "run_id", "run_id", "the curves", "")
    values = {name: column_of(frame, name, name, "the curves") for name in named}
    frame = frame.reset_index(drop=True).assign(**values).sort_values("tokens")
    sizes = frame.groupby("run_id", sort=False)["N"].nunique()
    if (sizes > 1).any():
        raise LawError("bad_value", f"the curve of {sizes.index[sizes > 1][0]} has several N; a run has one")
    known = [
        Curve(
            run_id=str(name),
            N=float(part["N"].iloc[0]),
            flops_per_token=float(part["flops_per_token"].iloc[0] if per_token else 6 * part["N"].iloc[0]),
            tokens=part["tokens"].to_numpy(),
            loss=part["loss"].to_numpy(),
        )
        for name, part in frame.groupby("run_id", sort=False)
    ]
    check_curves(known, "the curves")
    return known


def check_curves(curves: Sequence[Curve], source: Path | str) -> None:
    """Raises LawError if a curve is not one, is in a unit that no run can have, or is there twice."""
    seen = set()
    for curve in curves:
        name = f"{source}: the curve of {curve.run_id}"
        if curve.run_id in seen:
            raise LawError("duplicates", f"{name} is there twice; keep one for each run")
        seen.add(curve.run_id)
        tokens, loss = np.asarray(curve.tokens), np.asarray(curve.loss)
        if tokens.shape != loss.shape or tokens.ndim != 1 or len(tokens) < 2:
            raise LawError("bad_value", f"{name} has {tokens.shape} tokens and {loss.shape} losses; give two points or more")
        values = np.concatenate([tokens, loss, [curve.N, curve.flops_per_token]])
        if not (np.isfinite(values) & (values > 0)).all():
            raise LawError("bad_value", f"{name} has a value that is no positive number; mend or drop it")
        if not (np.diff(tokens) > 0).all():
            raise LawError("bad_value", f"{name} does not run forward in tokens; sort it, and keep one loss for each")
        if curve.N < SMALLEST_N or tokens[-1] < SMALLEST_D or tokens[-1] / curve.N < TOKENS_PER_PARAMETER[0]:
            units = "check that N is in parameters and tokens in tokens, not millions or billions"
            raise LawError("wrong_unit", f"{name} has N = {curve.N:g} and ends at {tokens[-1]:g} tokens; {units}")
    if len(curves) and (typical := float(np.median([curve.loss[-1] for curve in curves]))) > LARGEST_LOSS:
        reason = "it must be in nats per token: take the log of a perplexity"
        raise LawError("wrong_unit", f"{source}: the median curve ends at a loss of {typical:g}; {reason}")
    ratio = float(np.median([curve.tokens[-1] / curve.N for curve in curves])) if len(curves) else 1.0
    if ratio > TOKENS_PER_PARAMETER[1]:
        units = "check that N is in parameters and tokens in tokens, not millions or billions"
        raise LawError("wrong_unit", f"{source}: the median curve ends at {ratio:.3g} tokens per parameter; {units}")


def column_of(frame: "pd.DataFrame", column: str, field: str, source: Path | str, *, optional: bool = False) -> np.ndarray:
    """The column as positive finite floats; a missing value is allowed if `optional`, and is NaN."""
    if column not in frame:
        raise missing_column(frame, column, field, source, "")
    return _positive(frame[column].to_numpy(), f"column {column!r}", field, source, optional=optional)


def _positive(raw: np.ndarray, what: str, field: str, source: Path | str, *, optional: bool = False) -> np.ndarray:
    """`raw` as positive finite floats; what is missing is allowed if `optional`, and is NaN."""

    values = np.array([number(value) for value in raw], dtype=float)
    missing = np.array([value is None or value != value for value in raw], dtype=bool)  # NaN differs from itself
    bad = ~(np.isfinite(values) & (values > 0)) & ~(missing & optional)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = "missing" if missing[row] else repr(raw[row].item() if hasattr(raw[row], "item") else raw[row])
        raise LawError(
            "bad_value",
            f"{source}: {what} is {value} in row {row + 1} of {len(raw)} ({int(bad.sum())} bad in all); "
            f"{field} must be a positive number: mend or drop those rows",
        )
    return values


def _if_there(frame: "pd.DataFrame", columns: Mapping[str, str], name: str, source: Path | str) -> np.ndarray | None:
    column = columns.get(name)
    return column_of(frame, column, name, source) if column is not None and column in frame else None


def missing_column(frame: "pd.DataFrame", column: str, field: str, source: Path | str, alternative: str) -> LawError:
    return LawError(
        "missing_column",
        f"{source} has no column {column!r} for {field}{alternative}; it has {', '.join(map(repr, frame.columns))}: "
        f"name the right one with columns.{field}=…",
    )


def _finished(frame: "pd.DataFrame", run_id: str) -> tuple["pd.DataFrame", tuple[Exclusion, ...]]:
    """The rows whose column `state`, if there is one, is in `FINISHED`, and the others as exclusions."""
    if "state" not in frame:
        return frame, ()
    names = frame[run_id].astype(str) if run_id in frame else _row_names(len(frame))
    unfinished = (~frame["state"].isin(FINISHED)).to_numpy()
    excluded = tuple(
        Exclusion(run_id=name, reason=f"not done: {state}")
        for name, state, left_out in zip(names, frame["state"], unfinished, strict=True)
        if left_out
    )
    return frame[~unfinished].reset_index(drop=True), excluded


def _row_names(rows: int) -> np.ndarray:
    return np.array([f"row {i + 1}" for i in range(rows)])
