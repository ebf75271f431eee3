"""Columns of positive numbers, and the values that show that a table is in another unit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LawError
from sweep.tables.units import number

if TYPE_CHECKING:
    import pandas as pd

MIN_N, MIN_D = 100, 1000  # the smallest models that anyone trained have a few hundred parameters
MIN_TOKENS_PER_PARAMETER, MAX_TOKENS_PER_PARAMETER = 1e-3, 1e6  # of the median run
MAX_LOSS = 15  # nats per token, of the median run: a guess among three million tokens


def positive_column(
    frame: "pd.DataFrame", column: str, field: str, source: Path | str, *, optional: bool = False
) -> np.ndarray:
    """A column as positive finite floats; a missing value becomes NaN if `optional`.

    Raises:
        LawError: if there is no such column, or a value is not a positive number.
    """
    if column not in frame:
        raise missing_column(frame, column, field, source)
    raw = frame[column].to_numpy()
    values = np.array([number(value) for value in raw], dtype=float)
    missing = np.array([value is None or value != value for value in raw], dtype=bool)  # NaN differs from itself
    bad = ~(np.isfinite(values) & (values > 0)) & ~(missing & optional)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        value = "missing" if missing[row] else repr(raw[row].item() if hasattr(raw[row], "item") else raw[row])
        raise LawError(
            "bad_value",
            f"{source}: column {column!r} is {value} in row {row + 1} of {len(raw)} ({int(bad.sum())} bad in all); "
            f"{field} must be a positive number: fix or drop those rows",
        )
    return values


def missing_column(frame: "pd.DataFrame", column: str, field: str, source: Path | str, alternative: str = "") -> LawError:
    return LawError(
        "missing_column",
        f"{source} has no column {column!r} for {field}{alternative}; it has {', '.join(map(repr, frame.columns))}: "
        f"name the right one with columns.{field}=…",
    )


def check_units(what: str, names: Sequence[str], N: np.ndarray, D: np.ndarray, loss: np.ndarray, source: Path | str) -> None:
    """Check runs or curves, which `what` says, by their N, D and final losses, each of shape (runs,).

    Raises:
        LawError: if one of these is in a unit that no run can have.
    """
    for field, unit, values, least in (("N", "parameters", N, MIN_N), ("D", "tokens", D, MIN_D)):
        if (small := values < least).any():
            first, count = int(np.flatnonzero(small)[0]), int(small.sum())
            where = f"{field} is {values[first]:g} in {names[first]} ({count} such {what}s)"
            raise LawError("wrong_unit", f"{source}: {where}; {field} must be in {unit}, not millions or billions: multiply it")
    # Medians, because a few small models may see millions of tokens per parameter.
    ratio, typical = float(np.median(D / N)), float(np.median(loss))
    if not MIN_TOKENS_PER_PARAMETER <= ratio <= MAX_TOKENS_PER_PARAMETER:
        units = "check that N is in parameters and D in tokens, not millions or billions"
        raise LawError("wrong_unit", f"{source}: the median {what} has {ratio:.3g} tokens per parameter; {units}")
    if typical > MAX_LOSS:
        remedy = "it must be in nats per token: take the log of a perplexity"
        raise LawError("wrong_unit", f"{source}: the median {what} ends at a loss of {typical:g}; {remedy}")
