"""Tables of runs and curves, from memory or from a CSV, Parquet or JSONL file, checked before anything is fitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


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
        excluded: runs that were left out, with the reason.
    """

    run_id: np.ndarray
    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    loss: np.ndarray
    budget: np.ndarray
    excluded: tuple[Exclusion, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.run_id)

    def where(self, chosen: np.ndarray) -> "RunTable":
        """The runs that `chosen`, a mask or indices, selects."""
        columns = {name: getattr(self, name)[chosen] for name in ("run_id", "N", "D", "C", "loss", "budget")}
        return replace(self, **columns)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run's training curve, smoothed: losses after `tokens` tokens, both of shape (points,), tokens ascending."""

    run_id: str
    N: float
    flops_per_token: float
    tokens: np.ndarray
    loss: np.ndarray


def read_runs(path: Path, columns: Mapping[str, str], *, require_C: bool = False) -> RunTable:
    """A table of runs.

    Args:
        path: .csv, .parquet or .jsonl.
        columns: the table's name for each of run_id, N, D, C, loss and budget. N and loss are needed, and D or C: the other
            follows from C = 6 N D. Without run_id a run is named by its row; without budget there are no profiles. Rows
            whose column `state` is not "done" are excluded, whatever else they hold.
        require_C: refuse a table without the column of C, because C = 6 N D is not the convention that is asked for.

    Raises:
        InputError: if the file cannot be read, a column is missing, or a value is missing, not a number or not positive.
    """
    frame = read_frame(path)
    if not len(frame):
        raise InputError(f"table={path} has no rows; a fit needs runs")
    seen = sorted(set(frame["state"].astype(str))) if "state" in frame else []
    frame, excluded = _finished(frame, columns["run_id"])
    if not len(frame):
        raise InputError(f"{path}: no row's column 'state' is 'done' (it has {', '.join(seen)}); mend or drop that column")
    N = _positive(frame, columns["N"], "N", path)
    loss = _positive(frame, columns["loss"], "loss", path)
    if require_C and columns["C"] not in frame:
        raise _missing(frame, columns["C"], "C", path, "")
    if columns["D"] not in frame and columns["C"] not in frame:
        raise _missing(frame, columns["D"], "D", path, f" (or columns.C, now {columns['C']!r}, and D = C/(6N))")
    D = _positive(frame, columns["D"], "D", path) if columns["D"] in frame else None
    C = _positive(frame, columns["C"], "C", path) if columns["C"] in frame else None
    D = C / (6 * N) if D is None and C is not None else D
    assert D is not None
    budget = columns["budget"]
    return RunTable(
        run_id=frame[columns["run_id"]].astype(str).to_numpy() if columns["run_id"] in frame else _row_names(len(frame)),
        N=N,
        D=D,
        C=6 * N * D if C is None else C,
        loss=loss,
        budget=_positive(frame, budget, "budget", path, optional=True) if budget in frame else np.full(len(frame), np.nan),
        excluded=excluded,
    )


def read_curves(path: Path, columns: Mapping[str, str], runs: RunTable) -> list[Curve]:
    """The smoothed curves of `runs`, from a table with columns run_id, tokens and the loss column; others are ignored.

    Raises:
        InputError: as `read_runs`, and if no curve belongs to a run of the table.
    """
    frame = read_frame(path)
    run_id = columns["run_id"]
    if run_id not in frame:
        raise _missing(frame, run_id, "run_id", path, "")
    frame = frame.assign(
        tokens=_positive(frame, "tokens", "tokens", path), loss=_positive(frame, columns["loss"], "loss", path)
    )
    groups = dict(tuple(frame.sort_values("tokens").groupby(frame[run_id].astype(str))))
    curves = [
        Curve(
            run_id=name,
            N=float(N),
            flops_per_token=float(C / D),
            tokens=groups[name]["tokens"].to_numpy(),
            loss=groups[name]["loss"].to_numpy(),
        )
        for name, N, D, C in zip(runs.run_id, runs.N, runs.D, runs.C, strict=True)
        if name in groups
    ]
    if not curves:
        raise InputError(f"curves={path}: none of its {run_id} is in the table of runs; they must name the same runs")
    return curves


def read_frame(path: Path) -> "pd.DataFrame":
    """A pandas table from .csv, .parquet or .jsonl, by the name's ending. Raises InputError if it cannot be read."""
    import pandas as pd

    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda path: pd.read_json(path, lines=True),
    }
    if path.suffix not in readers:
        raise InputError(f"{path}: cannot read {path.suffix or 'a file without an ending'}; give .csv, .parquet or .jsonl")
    try:
        return readers[path.suffix](path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path (it is relative to {Path.cwd()})") from error
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from error


def _positive(frame: "pd.DataFrame", column: str, field: str, path: Path, *, optional: bool = False) -> np.ndarray:
    """The column as positive finite floats; a missing value is allowed if `optional`, and is NaN."""
    import pandas as pd

    if column not in frame:
        raise _missing(frame, column, field, path, "")
    raw = frame[column]
    values = pd.to_numeric(raw, errors="coerce").to_numpy(dtype=float)
    bad = ~(np.isfinite(values) & (values > 0)) & ~(raw.isna().to_numpy() & optional)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = "missing" if pd.isna(raw.iloc[row]) else repr(raw.iloc[row])
        raise InputError(
            f"{path}: column {column!r} is {value} in row {row + 1} of {len(frame)} ({int(bad.sum())} bad in all); "
            f"{field} must be a positive number: mend or drop those rows"
        )
    return values


def _missing(frame: "pd.DataFrame", column: str, field: str, path: Path, alternative: str) -> InputError:
    return InputError(
        f"{path} has no column {column!r} for {field}{alternative}; it has {', '.join(map(repr, frame.columns))}: "
        f"name the right one with columns.{field}=…"
    )


def _finished(frame: "pd.DataFrame", run_id: str) -> tuple["pd.DataFrame", tuple[Exclusion, ...]]:
    """The rows whose column `state`, if there is one, says "done", and the others as exclusions."""
    if "state" not in frame:
        return frame, ()
    names = frame[run_id].astype(str) if run_id in frame else _row_names(len(frame))
    unfinished = (frame["state"] != "done").to_numpy()
    excluded = tuple(
        Exclusion(run_id=name, reason=f"not done: {state}")
        for name, state, left_out in zip(names, frame["state"], unfinished, strict=True)
        if left_out
    )
    return frame[~unfinished].reset_index(drop=True), excluded


def _row_names(rows: int) -> np.ndarray:
    return np.array([f"row {i + 1}" for i in range(rows)])
