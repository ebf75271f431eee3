"""Training curves: made from what a caller has or read from a table of points, and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.store.curves import smooth_curve
from sweep.tables.names import listed, missing_column, resolve
from sweep.tables.readers import counted, reader_of
from sweep.tables.table import COLUMNS, RunTable
from sweep.tables.units import Units, check_units, positive_column, positive_values

if TYPE_CHECKING:
    import pandas as pd

# Names of a column of optimizer steps; in any case.
STEPS = ("step", "_step", "global_step", "trainer/global_step", "train/global_step")


FIELDS = ("run_id", "N", "tokens", "loss", "flops_per_token")  # of a table of points
REMEDY = "fix those rows, or leave them out of the file"
MIN_PIECE = 3  # points, on average, between two places where tokens fall: fewer is a table that is not sorted


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run's training curve: losses after `tokens` tokens, both of shape (points,), tokens ascending."""

    run_id: str
    N: float
    flops_per_token: float
    tokens: np.ndarray
    loss: np.ndarray


def as_curves(curves: "Sequence[Curve] | pd.DataFrame | Mapping[str, ArrayLike]") -> Sequence[Curve]:
    """Checked curves from `Curve`s, or from a pandas table with columns run_id, N, tokens, loss and optionally
    flops_per_token (6 N by default). Raises LawError if a column is missing, or a value is not a positive number."""
    import pandas as pd

    if isinstance(curves, Mapping):
        try:
            curves = pd.DataFrame(curves)
        except ValueError as error:
            raise LawError("bad_value", f"the curves do not make a table ({error}); give one number for each point") from error
    if not isinstance(curves, pd.DataFrame):
        known = list(curves)
        if not all(isinstance(curve, Curve) for curve in known):
            raise LawError("bad_value", "the curves are neither `Curve`s nor a pandas table with run_id, N, tokens and loss")
        check_curves(known, "the curves")
        return known
    frame = counted(curves)
    frame = frame.rename(columns={written: name for name, written in resolve(frame, {name: name for name in FIELDS}).items()})
    if "run_id" not in frame:
        raise missing_column(frame, "run_id", "run_id", "the curves")
    frame = _points(frame, {name: name for name in FIELDS}, "the curves")
    frame = frame.assign(N=positive_column(frame, "N", "N", "the curves", remedy=REMEDY))
    if (name := "flops_per_token") in frame:
        frame = frame.assign(**{name: positive_column(frame, name, name, "the curves", remedy=REMEDY)})
    else:
        frame = frame.assign(**{name: 6 * frame["N"]})
    sizes = frame.groupby("run_id", sort=False)["N"].nunique()
    if (sizes > 1).any():
        raise LawError("bad_value", f"the curve of {sizes.index[sizes > 1][0]} has several N; give each run one")
    known = [
        _curve(str(name), points["N"].iloc[0], points["flops_per_token"].iloc[0], points)
        for name, points in frame.groupby("run_id", sort=False)
    ]
    check_curves(known, "the curves")
    return known


def _curve(run_id: str, N: float, flops_per_token: float, points: "pd.DataFrame", smoothing: float = 0) -> Curve:
    tokens, loss = points["tokens"].to_numpy(), smooth_curve(points["loss"].to_numpy(), smoothing)
    return Curve(run_id=run_id, N=float(N), flops_per_token=float(flops_per_token), tokens=tokens, loss=loss)


def check_curves(curves: Sequence[Curve], source: Path | str) -> None:
    """Raises LawError if a curve is malformed, is in an impossible unit, or occurs twice."""
    seen = set()
    for curve in curves:
        name = f"{source}: the curve of {curve.run_id}"
        if curve.run_id in seen:
            raise LawError("duplicates", f"{name} occurs twice; keep one for each run")
        seen.add(curve.run_id)
        tokens, loss = np.asarray(curve.tokens), np.asarray(curve.loss)
        if tokens.shape != loss.shape or tokens.ndim != 1 or len(tokens) < 2:
            raise LawError("bad_value", f"{name} has {tokens.shape} tokens and {loss.shape} losses; give two points or more")
        values = np.concatenate([tokens, loss, [curve.N, curve.flops_per_token]])
        if not (np.isfinite(values) & (values > 0)).all():
            raise LawError("bad_value", f"{name} has a value that is not a positive number; fix or drop it")
        if not (np.diff(tokens) > 0).all():
            raise LawError("bad_value", f"{name} is not ascending in tokens; sort it, and keep one loss for each")
    if curves:
        ends = np.array([(curve.N, curve.tokens[-1], curve.loss[-1]) for curve in curves], dtype=float)
        check_units("curve", [curve.run_id for curve in curves], ends[:, 0], ends[:, 1], ends[:, 2], source)


def read_curves(
    source: Path | str, columns: Mapping[str, str], runs: RunTable, *, units: Units = Units(), smoothing: float = 0
) -> list[Curve]:
    """The curves of `runs`; others are ignored. Raises LawError as `read_runs`, and if no curve belongs to a run of the table.

    Args:
        source: a table of points with columns run_id, tokens and the loss, see `_points`; the CSV of a wandb chart, which has a
            column for each run; or wandb://entity/project. Where points have steps and not tokens, the runs' `batch_tokens`
            convert them.
        columns: the table's names for run_id, tokens and loss, where they differ.
        runs: whose curves to read.
        units: of tokens and losses.
        smoothing: standard deviation of a Gaussian, in points, for curves from wandb, which are not smoothed yet.
    """
    columns = {**COLUMNS, "tokens": "tokens", **columns}
    frame, raw = reader_of(source).points(str(source), columns, list(map(str, runs.run_id)))
    frame = counted(frame)
    columns = resolve(frame, columns)
    if columns["run_id"] not in frame:
        raise missing_column(frame, columns["run_id"], "run_id", source)
    frame = _in_tokens(units.convert(frame, columns), columns, runs, source)
    groups = dict(tuple(_points(frame, columns, source).groupby("run_id")))
    curves = [
        _curve(name, N, C / D, groups[name], smoothing if raw else 0)
        for name, N, D, C in zip(runs.run_id, runs.N, runs.D, runs.C, strict=True)
        if name in groups
    ]
    if not curves:
        seen = listed(list(map(repr, groups)), 3)
        raise LawError(
            "no_curves",
            f"curves={source}: none of its {columns['run_id']} ({seen}) is in the table of runs, which has "
            f"{listed([repr(str(name)) for name in runs.run_id], 3)}; both must use the same names",
        )
    check_curves(curves, source)
    return curves


def _points(frame: "pd.DataFrame", columns: Mapping[str, str], source: Path | str) -> "pd.DataFrame":
    """`frame` with checked columns run_id, tokens and loss, ascending in tokens for each run. Points without a loss or before
    the first token are left out. Where a run was resumed, its later rows stand for those that they repeat. Raises LawError if a
    column is missing, or another value is not a positive number."""
    for name in ("tokens", "loss"):
        if columns[name] not in frame:
            raise missing_column(frame, columns[name], name, source)
    tokens, _, _ = positive_values(frame, columns["tokens"])
    _, blank, _ = positive_values(frame, columns["loss"])
    frame = frame[~blank & (tokens != 0)]
    values = {name: positive_column(frame, columns[name], name, source, remedy=REMEDY) for name in ("tokens", "loss")}
    frame = frame.assign(**values, run_id=frame[columns["run_id"]].astype(str))
    kept = [points[_last_written(points["tokens"].to_numpy())] for _, points in frame.groupby("run_id", sort=False)]
    import pandas as pd

    return pd.concat(kept).sort_values("tokens", kind="stable") if kept else frame


def _last_written(tokens: np.ndarray) -> np.ndarray:
    """Which points of one run, in the order of a file, shape (points,), were not written again later. A run that was resumed
    goes back in tokens, and repeats what lies between the first and the last point of what it then wrote."""
    kept = np.ones(len(tokens), dtype=bool)
    begins = np.flatnonzero(np.diff(tokens) <= 0) + 1
    if len(tokens) >= MIN_PIECE * (len(begins) + 1):
        for begin, end in pairwise([*begins, len(tokens)]):
            kept[:begin] &= (tokens[:begin] < tokens[begin]) | (tokens[:begin] > tokens[end - 1])
    _, last = np.unique(tokens[::-1], return_index=True)
    once = np.zeros(len(tokens), dtype=bool)
    once[len(tokens) - 1 - last] = True
    return kept & once


def _in_tokens(frame: "pd.DataFrame", columns: Mapping[str, str], runs: RunTable, source: Path | str) -> "pd.DataFrame":
    """`frame` with a column of tokens; steps are multiplied by each run's batch if there is none."""
    tokens, run_id = columns["tokens"], columns["run_id"]
    found = resolve(frame, {name: name for name in STEPS})
    steps = next((name for name in found.values() if name in frame), None)
    if tokens in frame or steps is None:
        return frame
    if runs.batch_tokens is None:
        raise LawError(
            "missing_column",
            f"{source} counts in steps ({steps!r}), and the table of runs has no column batch_tokens to convert them: "
            "add one, or export the curves against tokens and name them with columns.tokens=…",
        )
    batch = dict(zip(map(str, runs.run_id), runs.batch_tokens, strict=True))
    owned = frame[frame[run_id].astype(str).isin(batch)]
    counts, _, _ = positive_values(owned, steps)
    return owned.assign(**{tokens: counts * owned[run_id].astype(str).map(batch).to_numpy(dtype=float)})
