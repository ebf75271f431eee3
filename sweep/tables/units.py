"""Columns of positive numbers and their units: counts in millions or billions, losses in bits, and what no run can have."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweep.errors import LawError
from sweep.tables.names import missing_column
from sweep.tables.readers import counted

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
WRITTEN = re.compile(
    r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?|\d{1,3}(?:,\d{3})+)\s*([kmbgt]?)\s*(?:params|parameters|tokens|flops?)?\s*", re.I
)
COUNTS = {  # the columns of each unit
    "N": ("N", "N_non_embedding"),
    "D": ("D",),
    "C": ("C", "C_kaplan", "C_chinchilla", "C_exact", "budget"),
    "tokens": ("tokens",),
}
MIN_N, MIN_D = 100, 1000  # the smallest models that anyone trained have a few hundred parameters
MIN_TOKENS_PER_PARAMETER, MAX_TOKENS_PER_PARAMETER = 1e-3, 1e6  # of the median run
MAX_LOSS = 15  # nats per token, of the median run: a guess among three million tokens

# Convert losses to nats per token.
LOSS_UNITS: dict[str, Callable[..., np.ndarray]] = {
    "nats": lambda loss, bytes_per_token: loss,
    "bits": lambda loss, bytes_per_token: loss * math.log(2),
    "bits_per_byte": lambda loss, bytes_per_token: loss * math.log(2) * bytes_per_token,
    "perplexity": lambda loss, bytes_per_token: np.log(loss),
}


def number(value: object) -> float:
    """`value` as a float, "70M", "1.4B tokens" and "70,000,000" included (k, M, B or G, T); NaN if it is not one."""
    found = WRITTEN.fullmatch(value) if isinstance(value, str) else None
    return _plain(found[1].replace(",", "")) * SUFFIXES[found[2].lower()] if found else _plain(value)


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of a table's columns. Raises LawError if one is unknown, or bits per byte lack bytes per token.

    Attributes:
        N, D, C, tokens: unit of parameters, training tokens, FLOPs (budgets included) and the tokens of a curve's points: a
            number, or k, M, B or T.
        loss: one of `LOSS_UNITS`.
        bytes_per_token: of the tokenizer that D is counted in, for bits per byte; 1 fits the loss per byte.
    """

    N: float | str = 1.0
    D: float | str = 1.0
    C: float | str = 1.0
    tokens: float | str = 1.0
    loss: str = "nats"
    bytes_per_token: float | None = None

    def __post_init__(self) -> None:
        for name in COUNTS:
            if not 0 < self._factor(name) < math.inf:
                raise LawError(
                    "wrong_unit",
                    f"columns.{name}_unit={getattr(self, name)} is not a unit; give a number such as 1e6, or k, M, B, T",
                )
        if self.loss not in LOSS_UNITS:
            raise LawError("wrong_unit", f"columns.loss_unit={self.loss} is none of {', '.join(LOSS_UNITS)}")
        if self.loss == "bits_per_byte" and not 0 < (self.bytes_per_token or 0) < math.inf:
            raise LawError(
                "wrong_unit",
                "columns.loss_unit=bits_per_byte needs columns.bytes_per_token, of the tokenizer that D is counted in "
                "(about 4 for English; 1 fits the loss per byte)",
            )

    def convert(self, frame: "pd.DataFrame", columns: Mapping[str, str]) -> "pd.DataFrame":
        """The table in parameters, tokens, FLOPs and nats per token. Values that are not numbers stay; `positive_column` names
        them later. Raises LawError if a value has a unit of its own ("70M") in a column whose unit is declared.

        Args:
            frame: one row per run, or per point of a curve.
            columns: its names for fields, where they differ.
        """
        converted: dict[str, np.ndarray] = {}
        for unit, fields in COUNTS.items():
            if (factor := self._factor(unit)) == 1:
                continue
            for name in {columns.get(field, field) for field in fields} & set(frame):
                if any(math.isnan(_plain(value)) and not math.isnan(number(value)) for value in frame[name]):
                    raise LawError(
                        "wrong_unit",
                        f"column {name!r} has units in its values, as in 70M; leave out columns.{unit}_unit={factor:g}",
                    )
                converted[name] = _each(frame[name], partial(np.multiply, factor))
        if self.loss != "nats":
            in_nats = partial(LOSS_UNITS[self.loss], bytes_per_token=self.bytes_per_token or 1.0)
            for name in {columns.get("loss", "loss"), "train_loss"} & set(frame):
                converted[name] = _each(frame[name], in_nats)
        return frame.assign(**converted)

    def _factor(self, name: str) -> float:
        unit = str(getattr(self, name))
        return SUFFIXES[unit.lower()] if unit and unit.lower() in SUFFIXES else number(unit)


def _plain(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _each(column: "pd.Series", change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply `change` to the values that are positive numbers, and keep the others."""
    values = np.array([_plain(value) for value in column])
    changed = column.to_numpy(dtype=object, copy=True)
    changed[values > 0] = change(values[values > 0])
    return changed


def positive_values(frame: "pd.DataFrame", column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column as floats, which of its values are missing, and which are there but no positive finite numbers."""
    from pandas import NA

    raw = frame[column].to_numpy()
    values = np.array([number(value) for value in raw], dtype=float)
    blank = [value is None or value is NA or value != value or value == "" for value in raw]  # NaN differs from itself
    missing = np.array(blank, dtype=bool)
    return values, missing, ~(np.isfinite(values) & (values > 0)) & ~missing


def positive_column(
    frame: "pd.DataFrame",
    column: str,
    field: str,
    source: Path | str,
    *,
    optional: bool = False,
    remedy: str = "fix those rows, or leave them out with missing=drop",
) -> np.ndarray:
    """A column as positive finite floats; a missing value becomes NaN if `optional`. Raises LawError if there is no such
    column, or a value is not a positive number; it names the row as the frame's index counts it (see `readers.counted`)."""
    if column not in frame:
        raise missing_column(frame, column, field, source)
    values, missing, bad = positive_values(frame, column)
    if not optional:
        bad |= missing
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        value = "missing" if missing[at] else written(frame[column].iloc[at])
        row, rows = counted(frame).index[at], len(frame)
        of = f" of {rows}" if counted(frame).index[-1] == rows else ""
        raise LawError(
            "bad_value",
            f"{source}: column {column!r} is {value} in row {row}{of} ({int(bad.sum())} bad in all; row 1 is the first below "
            f"the header); {field} must be a positive number: {remedy}",
        )
    return values


def written(value: object) -> str:
    """A value as a message shows it."""
    return repr(value.item() if hasattr(value, "item") else value)


def check_units(what: str, names: Sequence[str], N: np.ndarray, D: np.ndarray, loss: np.ndarray, source: Path | str) -> None:
    """Check runs or curves, which `what` says, by their N, D and final losses, each of shape (runs,). Raises LawError if one of
    these is in a unit that no run can have."""
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
