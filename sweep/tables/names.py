"""Names of columns: found in whatever case they are written, and what to say of one that is not there."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import LawError

if TYPE_CHECKING:
    import pandas as pd

MAX_LISTED = 12


def resolve(frame: "pd.DataFrame", columns: Mapping[str, str]) -> dict[str, str]:
    """`columns`, names by field, as the frame writes them: a name that it does not have stands for the only one that differs
    from it in case or surrounding blanks. A field without such a column keeps its name."""
    written: dict[str, list[str]] = {}
    for name in frame.columns:
        written.setdefault(_plain(name), []).append(name)
    taken = set(columns.values()) & set(frame.columns)
    found = {}
    for field, name in columns.items():
        similar = [other for other in written.get(_plain(name), []) if other not in taken]
        found[field] = similar[0] if name not in frame and len(similar) == 1 else name
    return found


def missing_column(frame: "pd.DataFrame", column: str, field: str, source: Path | str, alternative: str = "") -> LawError:
    """The error that `frame` has no `column` for a field of `sweep.config.Columns`."""
    names = list(map(str, frame.columns))
    close = [name for name in names if _plain(name) == _plain(column)] or get_close_matches(column, names, n=1)
    meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return LawError(
        "missing_column",
        f"{source} has no column {column!r} for {field}{alternative}; {meant}it has {listed(list(map(repr, names)))}: "
        f"name the right one with columns.{field}=…",
    )


def listed(items: list[str], most: int = MAX_LISTED) -> str:
    """`items` with commas between, cut after `most` of them."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _plain(name: object) -> str:
    return str(name).strip().casefold()
