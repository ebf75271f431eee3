"""Tables of runs and curves from files and from wandb."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import LawError
from sweep.store.curves import smooth_curve
from sweep.tables import wandb as wandb_tables
from sweep.tables.table import COLUMNS, Curve, RunTable, check_curves, column_of, missing_column, runs_from_frame
from sweep.tables.units import Units

if TYPE_CHECKING:
    import pandas as pd

STEPS = ("Step", "step", "_step", "global_step", "trainer/global_step", "train/global_step")  # what counts steps, by its name


def read_runs(
    path: Path | str, columns: Mapping[str, str] = COLUMNS, *, units: Units = Units(), require_C: bool = False
) -> RunTable:
    """The table of runs in a file or a wandb project; see `read_frame` and `runs_from_frame`."""
    return runs_from_frame(units.convert(read_frame(path), columns), columns, path, require_C=require_C)


def read_frame(source: Path | str) -> "pd.DataFrame":
    """A pandas table from .csv, .parquet or .jsonl, by the name's ending, or from wandb://entity/project.

    A table that wandb made, whether its page's CSV or a dump of its API's config and summary, gets the columns of any other.

    Raises:
        LawError: if it cannot be read.
    """
    if wandb_tables.is_address(source):
        return wandb_tables.fetch_runs(str(source))
    import pandas as pd

    path = Path(source)
    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda path: pd.read_json(path, lines=True),
    }
    if path.suffix not in readers:
        kind = path.suffix or "a file without an ending"
        raise LawError("unreadable", f"{path}: cannot read {kind}; give .csv, .parquet, .jsonl or wandb://entity/project")
    try:
        return wandb_tables.flatten(readers[path.suffix](path))
    except FileNotFoundError as error:
        raise LawError("unreadable", f"{path} does not exist; check the path (it is relative to {Path.cwd()})") from error
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise LawError("unreadable", f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from error


def read_curves(
    source: Path | str, columns: Mapping[str, str], runs: RunTable, *, units: Units = Units(), smoothing: float = 0
) -> list[Curve]:
    """The curves of `runs`; others are ignored.

    Args:
        source: a table of points with columns run_id, tokens and the loss column; the CSV of a wandb chart, which has a column
            for each run; or wandb://entity/project. Where points name steps and not tokens, the runs' `batch_tokens` say how
            many tokens a step is.
        columns: the table's names for run_id, tokens and loss, where they differ.
        runs: whose curves.
        units: of tokens and losses.
        smoothing: Gaussian, in points, of curves that wandb kept, which nobody has smoothed yet.

    Raises:
        LawError: as `read_runs`, and if no curve belongs to a run of the table.
    """
    columns = {**COLUMNS, "tokens": "tokens", **columns}
    run_id = columns["run_id"]
    frame, raw = _points(source, columns, runs)
    if run_id not in frame:
        raise missing_column(frame, run_id, "run_id", source, "")
    frame = _in_tokens(units.convert(frame, columns), columns, runs, source)
    frame = frame.assign(**{name: column_of(frame, columns[name], name, source) for name in ("tokens", "loss")})
    groups = dict(tuple(frame.sort_values("tokens").groupby(frame[run_id].astype(str))))
    curves = [
        Curve(
            run_id=name,
            N=float(N),
            flops_per_token=float(C / D),
            tokens=groups[name]["tokens"].to_numpy(),
            loss=smooth_curve(groups[name]["loss"].to_numpy(), smoothing if raw else 0),
        )
        for name, N, D, C in zip(runs.run_id, runs.N, runs.D, runs.C, strict=True)
        if name in groups
    ]
    if not curves:
        raise LawError("no_curves", f"curves={source}: none of its {run_id} is in the table of runs; both must name them alike")
    check_curves(curves, source)
    return curves


def _points(source: Path | str, columns: Mapping[str, str], runs: RunTable) -> tuple["pd.DataFrame", bool]:
    """A row per point of the curves, and whether they are as wandb kept them, unsmoothed."""
    if wandb_tables.is_address(source):
        return wandb_tables.fetch_curves(str(source), list(map(str, runs.run_id)), columns), True
    frame = read_frame(source).reset_index(drop=True)
    if columns["run_id"] not in frame and (chart := wandb_tables.unfold_chart(frame, columns, source)) is not None:
        return chart, True
    return frame, False


def _in_tokens(frame: "pd.DataFrame", columns: Mapping[str, str], runs: RunTable, source: Path | str) -> "pd.DataFrame":
    """`frame` with the column of tokens; where it has steps only, they become tokens by each run's batch, and step 0 goes."""
    tokens, run_id = columns["tokens"], columns["run_id"]
    steps = next((name for name in STEPS if name in frame), None)
    if tokens in frame or steps is None:
        return frame
    if runs.batch_tokens is None:
        raise LawError(
            "missing_column",
            f"{source} counts in steps ({steps!r}), and the table of runs has no column batch_tokens to make tokens of them: "
            "add one, or export the curves against tokens and name them with columns.tokens=…",
        )
    batch = dict(zip(map(str, runs.run_id), runs.batch_tokens, strict=True))
    owned = frame[frame[run_id].astype(str).isin(batch) & (frame[steps] > 0)]
    return owned.assign(**{tokens: owned[steps] * owned[run_id].astype(str).map(batch)})
