"""Numbers with suffixes, and the units of a table from elsewhere: counts in millions or billions, losses in bits."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import LawError

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
    """The units of a table's columns.

    Attributes:
        N, D, C, tokens: unit of parameters, training tokens, FLOPs (budgets included) and the tokens of a curve's points: a
            number, or k, M, B or T.
        loss: one of `LOSS_UNITS`.
        bytes_per_token: of the tokenizer that D is counted in, for bits per byte; 1 fits the loss per byte.

    Raises:
        LawError: if a unit is unknown, or bits per byte are given without bytes per token.
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

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> "Units":
        """From the fields of `sweep.config.Columns`."""
        counts = {name: columns[f"{name}_unit"] for name in COUNTS}
        return cls(**counts, loss=columns["loss_unit"], bytes_per_token=columns["bytes_per_token"])

    def convert(self, frame: "pd.DataFrame", columns: Mapping[str, str]) -> "pd.DataFrame":
        """The table in parameters, tokens, FLOPs and nats per token. Values that are not numbers stay; `positive_column` names
        them later.

        Args:
            frame: one row per run, or per point of a curve.
            columns: its names for fields, where they differ.

        Raises:
            LawError: if a value has a unit of its own ("70M") in a column whose unit is declared.
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
