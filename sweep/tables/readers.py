"""Tables of runs and of points, from files and from wandb. A new format is a new entry of `READERS`."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import LawError
from sweep.tables.exports import SCHEME, Project, flatten, unfold_chart

if TYPE_CHECKING:
    import pandas as pd

ROW = "row of data"  # the name of a frame's index that counts rows as a user does: the first below the header is 1
SEPARATORS = (",", ";", "\t")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
KEPT_AS_TEXT = re.compile(r"[-+]?0\d")  # numbers do not begin like this, names such as 007 do


class FileReader:
    """Files that `parse` makes a table of, from their content. Tables that wandb exported get our columns."""

    def __init__(self, parse: "Callable[[bytes], pd.DataFrame]") -> None:
        self.parse = parse

    def runs(self, source: str) -> "pd.DataFrame":
        """A row per run, whose index counts the rows of the file. Raises LawError if it cannot be read."""
        path = Path(source).expanduser()
        try:
            content = path.read_bytes()
            return counted(flatten(self.parse(gzip.decompress(content) if path.suffix == ".gz" else content)))
        except FileNotFoundError as error:
            raise LawError("unreadable", f"{path} does not exist; check the path (it is relative to {Path.cwd()})") from error
        except UnicodeDecodeError as error:
            raise LawError("unreadable", f"{path} cannot be read: it is neither UTF-8 nor UTF-16; save it as UTF-8") from error
        except (ValueError, OSError, EOFError, zlib.error) as error:  # pandas' and pyarrow's parse errors are ValueErrors
            reason = str(error).splitlines()[0]
            raise LawError("unreadable", f"{path} cannot be read as {ending(path)[1:]}: {reason}") from error

    def points(self, source: str, columns: Mapping[str, str], run_ids: Sequence[str]) -> tuple["pd.DataFrame", bool]:
        """A row per point of the runs' curves, and whether the losses are unsmoothed. Raises LawError as `runs`."""
        frame = self.runs(source)
        chart = unfold_chart(frame, columns, source) if columns["run_id"] not in frame else None
        return (frame, False) if chart is None else (chart, True)


def counted(frame: "pd.DataFrame") -> "pd.DataFrame":
    """`frame` with an index that counts its rows from 1; as it is if it has one, because rows were left out of it since."""
    import pandas as pd

    return frame if frame.index.name == ROW else frame.set_axis(pd.RangeIndex(1, len(frame) + 1, name=ROW))


def text_of(content: bytes) -> str:
    """A text file's content, of UTF-8 or UTF-16. Raises UnicodeDecodeError."""
    return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")


def parse_csv(content: bytes) -> "pd.DataFrame":
    """Columns between commas, semicolons or tabs, whichever split the header most. Between semicolons a comma may stand for
    the decimal point. Columns that hold numbers only become numbers, except names with leading zeros. Raises ValueError."""
    import pandas as pd

    text = text_of(content)
    if marked := re.match(r"sep=(.)\r?\n", text):  # how Excel is told
        text = text[marked.end() :]
    header = text.lstrip("\r\n").split("\n", 1)[0]
    separator = max(SEPARATORS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))
    frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str)
    return frame.apply(_typed, decimal_comma=separator == ";") if len(frame) else frame


def _typed(column: "pd.Series", decimal_comma: bool) -> "pd.Series":
    """A column of text as numbers or truth values, if all of its values are."""
    import pandas as pd

    known = column.dropna().str.strip()
    if set(known) <= {"True", "False"} and len(known) == len(column):
        return known == "True"
    if known.str.match(KEPT_AS_TEXT).any():
        return column
    if decimal_comma and not known.str.contains(".", regex=False).any():
        known = known.str.replace(",", ".", regex=False)
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.isna().any():
        return column
    exact = numbers if numbers.dtype.kind in "iu" else known.astype(float)  # to_numeric rounds its last digit
    return exact if len(known) == len(column) else exact.astype(float).reindex(column.index)


def parse_json(content: bytes) -> "pd.DataFrame":
    """A list of rows, or columns by name, each a list or, as pandas writes them, values by row. Raises ValueError."""
    import pandas as pd

    read = json.loads(text_of(content))
    if isinstance(read, dict) and {"columns", "data"} <= set(read):
        return pd.DataFrame(read["data"], columns=read["columns"])
    rows = isinstance(read, list) and all(isinstance(row, dict) for row in read)
    columns = isinstance(read, dict) and all(isinstance(column, list | dict) for column in read.values())
    if not (rows or columns):
        raise ValueError("it is neither a list of rows nor columns by name")
    return pd.DataFrame(read)


def parse_json_lines(content: bytes) -> "pd.DataFrame":
    """A row per line. Raises ValueError, which names the line."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text_of(content).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f'line {number} is not a row, as in {{"N": 7e7, "D": 1.4e9, "loss": 3.1}}')
        rows.append(row)
    return pd.DataFrame(rows)


def parse_parquet(content: bytes) -> "pd.DataFrame":
    """Raises ValueError or OSError."""
    import pandas as pd

    return pd.read_parquet(io.BytesIO(content))


# By the ending of a file's name, or the scheme of an address. Every file may be compressed by gzip: .csv.gz.
READERS: dict[str, FileReader | Project] = {
    ".csv": FileReader(parse_csv),
    ".tsv": FileReader(parse_csv),
    ".parquet": FileReader(parse_parquet),
    ".jsonl": FileReader(parse_json_lines),
    ".json": FileReader(parse_json),
    SCHEME: Project(),
}


def read_frame(source: Path | str) -> "pd.DataFrame":
    """A pandas table of runs from a file, see `READERS`, or from wandb://entity/project. Its index counts rows from 1.

    Tables that wandb exported, the CSV of its runs page or a dump of its API's config and summary, get our columns. Raises
    LawError if it cannot be read.
    """
    return counted(reader_of(source).runs(str(source)))


def ending(path: Path) -> str:
    """The ending of a file's name that says its format, in small letters and without .gz."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def reader_of(source: Path | str) -> FileReader | Project:
    """The reader of a file or an address. Raises LawError if there is none."""
    scheme, address, _ = str(source).partition("://")
    kind = scheme + address if address else ending(Path(source))
    if kind not in READERS:
        what = kind or "a file without an ending"
        known = ", ".join(name for name in READERS if name != SCHEME)
        raise LawError("unreadable", f"{source}: cannot read {what}; give {known} (also with .gz) or wandb://entity/project")
    return READERS[kind]
