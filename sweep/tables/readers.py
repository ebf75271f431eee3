"""Tables from files and from wandb. A new format is a new entry of `READERS`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import LawError
from sweep.tables import wandb

if TYPE_CHECKING:
    import pandas as pd


class FileReader:
    """Files that a function of pandas parses. Tables that wandb exported get our columns."""

    def __init__(self, function: str, **options: Any) -> None:
        self.function, self.options = function, options

    def runs(self, source: str) -> "pd.DataFrame":
        """A row per run. Raises LawError if it cannot be read."""
        import pandas as pd

        path = Path(source)
        try:
            frame = getattr(pd, self.function)(path, **self.options)
            exported = wandb.flatten(frame)
            return frame if exported is None else exported
        except FileNotFoundError as error:
            raise LawError("unreadable", f"{path} does not exist; check the path (it is relative to {Path.cwd()})") from error
        except (ValueError, OSError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
            raise LawError("unreadable", f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}") from error

    def points(self, source: str, columns: Mapping[str, str], run_ids: Sequence[str]) -> tuple["pd.DataFrame", bool]:
        """A row per point of the runs' curves, and whether the losses are unsmoothed. Raises LawError as `runs`."""
        frame = self.runs(source).reset_index(drop=True)
        chart = wandb.unfold_chart(frame, columns, source) if columns["run_id"] not in frame else None
        return (frame, False) if chart is None else (chart, True)


# By the ending of a file's name, or the scheme of an address.
READERS: dict[str, FileReader | wandb.Project] = {
    ".csv": FileReader("read_csv"),
    ".parquet": FileReader("read_parquet"),
    ".jsonl": FileReader("read_json", lines=True),
    wandb.SCHEME: wandb.Project(),
}


def read_frame(source: Path | str) -> "pd.DataFrame":
    """A pandas table of runs from a .csv, .parquet or .jsonl file, or from wandb://entity/project.

    Tables that wandb exported, the CSV of its runs page or a dump of its API's config and summary, get our columns. Raises
    LawError if it cannot be read.
    """
    return reader_of(source).runs(str(source))


def reader_of(source: Path | str) -> FileReader | wandb.Project:
    """The reader of a file or an address. Raises LawError if there is none."""
    scheme, address, _ = str(source).partition("://")
    kind = scheme + address if address else Path(source).suffix
    if kind not in READERS:
        what = kind or "a file without an ending"
        raise LawError("unreadable", f"{source}: cannot read {what}; give .csv, .parquet, .jsonl or wandb://entity/project")
    return READERS[kind]
