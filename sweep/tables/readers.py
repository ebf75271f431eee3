"""Tables from files and from wandb. A new format is a new entry of `READERS`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sweep.errors import LawError
from sweep.tables import wandb

if TYPE_CHECKING:
    import pandas as pd


class TableReader(Protocol):
    """Reads tables of one format, or from one service."""

    def runs(self, source: str) -> "pd.DataFrame":
        """A row per run. Raises LawError if it cannot be read."""
        ...

    def points(self, source: str, columns: Mapping[str, str], run_ids: Sequence[str]) -> tuple["pd.DataFrame", bool]:
        """A row per point of the runs' curves, and whether the losses are unsmoothed. Raises LawError as `runs`."""
        ...


# Tables that other tools export: each function returns the table with our columns, or None if it is not that tool's.
RUN_EXPORTS: tuple[Callable[["pd.DataFrame"], "pd.DataFrame | None"], ...] = (wandb.flatten,)
CURVE_EXPORTS: tuple[Callable[["pd.DataFrame", Mapping[str, str], str], "pd.DataFrame | None"], ...] = (wandb.unfold_chart,)


class FileReader:
    """Files that a function of pandas parses."""

    def __init__(self, function: str, **options: Any) -> None:
        self.function, self.options = function, options

    def runs(self, source: str) -> "pd.DataFrame":
        import pandas as pd

        path = Path(source)
        try:
            frame = getattr(pd, self.function)(path, **self.options)
            return next((table for export in RUN_EXPORTS if (table := export(frame)) is not None), frame)
        except FileNotFoundError as error:
            raise LawError("unreadable", f"{path} does not exist; check the path (it is relative to {Path.cwd()})") from error
        except (ValueError, OSError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
            raise LawError("unreadable", f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from error

    def points(self, source: str, columns: Mapping[str, str], run_ids: Sequence[str]) -> tuple["pd.DataFrame", bool]:
        frame = self.runs(source).reset_index(drop=True)
        if columns["run_id"] not in frame:
            for export in CURVE_EXPORTS:
                if (table := export(frame, columns, source)) is not None:
                    return table, True
        return frame, False


# By the ending of a file's name, or the scheme of an address.
READERS: dict[str, TableReader] = {
    ".csv": FileReader("read_csv"),
    ".parquet": FileReader("read_parquet"),
    ".jsonl": FileReader("read_json", lines=True),
    wandb.SCHEME: wandb.Project(),
}


def read_frame(source: Path | str) -> "pd.DataFrame":
    """A pandas table of runs from a .csv, .parquet or .jsonl file, or from wandb://entity/project.

    Tables that wandb exported, the CSV of its runs page or a dump of its API's config and summary, get our columns.

    Raises:
        LawError: if it cannot be read.
    """
    return _reader_of(source).runs(str(source))


def read_points(source: Path | str, columns: Mapping[str, str], run_ids: Sequence[str]) -> tuple["pd.DataFrame", bool]:
    """A table of the points of the runs' curves, and whether the losses are unsmoothed. Raises LawError as `read_frame`."""
    return _reader_of(source).points(str(source), columns, run_ids)


def _reader_of(source: Path | str) -> TableReader:
    scheme, address, _ = str(source).partition("://")
    kind = scheme + address if address else Path(source).suffix
    if kind not in READERS:
        what = kind or "a file without an ending"
        raise LawError("unreadable", f"{source}: cannot read {what}; give .csv, .parquet, .jsonl or wandb://entity/project")
    return READERS[kind]
