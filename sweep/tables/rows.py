"""Rows of a table: which are wanted, finished and complete, what they are called, and which are the same N and D again."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import LawError, one_line
from sweep.tables.exports import FINISHED
from sweep.tables.names import listed, resolve
from sweep.tables.readers import KEPT_AS_TEXT
from sweep.tables.units import number, positive_values, written

if TYPE_CHECKING:
    import pandas as pd

REPLICATES = ("best", "seeds", "refuse")
FAR_APART = 0.03  # of the loss: seeds of one run differ by a tenth of that, wrong learning rates by more
ALLOWED = (  # in an expression: comparisons, arithmetic, and, or, not, in; no calls, attributes, subscripts or variables
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd, ast.BinOp, ast.BitAnd,
    ast.BitOr, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In,
    ast.NotIn, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple,
)  # fmt: skip


def filtered(frame: "pd.DataFrame", where: str, columns: Mapping[str, str]) -> "pd.DataFrame":
    """The rows for which an expression over columns holds, such as "loss < 5 and dataset == 'rpj'". Raises LawError if it has
    another part than comparisons and arithmetic, cannot be evaluated, or leaves no row.

    Args:
        frame: one row per run.
        where: a column stands in it by its name, in backticks if that has blanks or slashes, or by its field.
        columns: the frame's names by field.
    """
    import pandas as pd

    def bad(reason: str) -> LawError:
        names = listed([repr(str(name)) for name in frame.columns])
        return LawError(
            "bad_option",
            f"where={where} {reason}; it compares columns, "
            f"as in loss < 5 and dataset == 'rpj', with backticks around names such as `eval/loss`; there are {names}",
        )

    quoted: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        return quoted.setdefault(match[1], f"column_{len(quoted)}_in_backticks")

    text = re.sub("`([^`]+)`", plain, where).strip()
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise bad("is not an expression") from error
    if strange := [node for node in ast.walk(tree) if not isinstance(node, ALLOWED)]:
        raise bad(f"has a part that is not allowed ({type(strange[0]).__name__})")
    names = {spelled: name for name, spelled in quoted.items()}
    used = {node.id: names.get(node.id, node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found = resolve(
        frame, {name: columns.get(original, original) if original not in frame else original for name, original in used.items()}
    )
    if unknown := [used[name] for name, column in found.items() if column not in frame]:
        raise bad(f"names {unknown[0]!r}, which is no column")
    try:
        chosen: Any = pd.DataFrame({name: _numbers(frame[column]) for name, column in found.items()}).eval(
            text, engine="python"
        )
        mask = pd.Series(chosen, index=frame.index).fillna(False).astype("boolean").to_numpy(dtype=bool)
    except Exception as error:  # pandas raises what the values raise
        raise bad(f"cannot be evaluated ({one_line(error)})") from error
    if np.ndim(chosen) != 1 or not set(pd.unique(chosen.dropna())) <= {True, False} or chosen.dtype.kind in "iuf":
        raise bad("is not true or false for each row")
    if not mask.any():
        raise LawError("too_few_runs", f"where={where}: none of {len(frame)} rows is left; ask for less")
    return frame[mask]


def _numbers(column: "pd.Series") -> "pd.Series":
    """A column of text as numbers, if each value is one, "70M" included."""
    if column.dtype.kind in "iufb":
        return column
    known = column.dropna()
    values = known.map(number)
    named = known.astype(str).str.match(KEPT_AS_TEXT).any()
    return column if named or values.isna().any() else values.astype(float).reindex(column.index)


def names_of(frame: "pd.DataFrame", columns: Mapping[str, str]) -> np.ndarray:
    """The name of each row, shape (rows,): its run_id, or its number."""
    rows = np.array([f"row {row}" for row in frame.index], dtype=object)
    if columns["run_id"] not in frame:
        return rows.astype(str)
    given = frame[columns["run_id"]]
    return np.where(given.isna(), rows, given.astype(str).to_numpy(dtype=object)).astype(str)


def points_of(run_id: np.ndarray, D: np.ndarray) -> np.ndarray:
    """Names for the points of trajectories, shape (rows,): the last point of each has the name of its run."""
    last = {name: tokens for tokens, name in sorted(zip(D.tolist(), run_id.tolist(), strict=True))}
    pairs = zip(run_id.tolist(), D.tolist(), strict=True)
    return np.array([name if tokens == last[name] else f"{name} at {tokens:.6g} tokens" for name, tokens in pairs])


def finished(
    frame: "pd.DataFrame", columns: Mapping[str, str], source: Path | str
) -> "tuple[pd.DataFrame, list[tuple[str, str]]]":
    """The rows of finished runs, and the others."""
    if columns["state"] not in frame:
        return frame, []
    states = frame[columns["state"]].astype(str).to_numpy()
    done = np.isin(states, FINISHED)
    if not done.any():
        seen = listed(sorted(set(states)))
        raise LawError(
            "too_few_runs",
            f"{source}: no row's column {columns['state']!r} is 'done' or 'finished' (it has {seen}); fix or drop that column",
        )
    others = zip(names_of(frame[~done], columns).tolist(), states[~done].tolist(), strict=True)
    return frame[done], [(name, f"not done: {state}") for name, state in others]


def complete(
    frame: "pd.DataFrame", columns: Mapping[str, str], source: Path | str
) -> "tuple[pd.DataFrame, list[tuple[str, str]], tuple[str, ...]]":
    """The rows with all values that a fit needs, the others, and a note of how many they are."""
    reasons: dict[int, str] = {}
    counts: dict[str, int] = {}
    for field_ in ("N", "D", "C", "loss", "budget", "weight", "batch_tokens"):
        if (name := columns[field_]) not in frame:
            continue
        _, blank, bad = positive_values(frame, name)
        for row in np.flatnonzero(bad if field_ == "budget" else bad | blank).tolist():
            value = frame[name].iloc[row]
            if row not in reasons:
                counts[name] = counts.get(name, 0) + 1
                reasons[row] = f"{name!r} is missing" if blank[row] else f"{name!r} is {written(value)}, not a positive number"
    if not reasons:
        return frame, [], ()
    why = listed([f"{count} by {name!r}" for name, count in counts.items()])
    if len(reasons) == len(frame):
        raise LawError("too_few_runs", f"{source}: missing=drop leaves none of {len(frame)} rows ({why}); fix that column")
    names = names_of(frame, columns)
    dropped = [(str(names[row]), reason) for row, reason in sorted(reasons.items())]
    keep = np.ones(len(frame), dtype=bool)
    keep[list(reasons)] = False
    return frame[keep], dropped, (f"{len(reasons)} of {len(frame)} rows were dropped, with missing or bad values: {why}",)


def replicates(
    N: np.ndarray, D: np.ndarray, loss: np.ndarray, run_id: np.ndarray, how: str | None
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]], tuple[str, ...]]:
    """What becomes of several rows of the same N and D.

    Args:
        N, D, loss, run_id: of each row, shape (rows,).
        how: "best" keeps the row of the lowest loss, as over learning rates; "seeds" the mean of the losses; "refuse" none; and
            None all rows, with a note of those whose losses are further apart than `FAR_APART` of the loss.

    Returns:
        the rows to keep, ascending; the losses of all rows, shape (rows,); the other rows that are not fitted, each with the
        reason; and notes. Raises LawError if `how` is none of these, or is "refuse" and there are such rows.
    """
    if how is not None and how not in REPLICATES:
        raise LawError("bad_option", f"columns.replicates={how} is none of {', '.join(REPLICATES)}")
    _, member, counts = np.unique(np.stack([N, D]), axis=1, return_inverse=True, return_counts=True)
    member = member.ravel()
    several = np.flatnonzero(counts > 1)
    everything = np.arange(len(N))
    if not len(several):
        return everything, loss, [], ()
    order = np.argsort(member, kind="stable")
    groups = [group for group in np.split(order, np.cumsum(counts)[:-1]) if len(group) > 1]
    spread = [float(np.ptp(loss[group]) / loss[group].min()) for group in groups]
    widest = groups[int(np.argmax(spread))]
    low, high = (widest[index(loss[widest])] for index in (np.argmin, np.argmax))
    if low == high:
        low, high = widest[:2]
    same = f"the same N = {N[low]:.4g} and D = {D[low]:.4g}"
    pair = f"{run_id[low]} and {run_id[high]} have {same} and losses of {loss[low]:.4g} and {loss[high]:.4g}"
    remedy = "columns.replicates=best keeps the lowest of each (learning rates), columns.replicates=seeds their mean"
    if how == "refuse":
        raise LawError("duplicates", f"{pair}; {remedy}, or keep one row for each N and D")
    rows = sum(len(group) for group in groups)
    if how is None:
        if (far := sum(each > FAR_APART for each in spread)) == 0:
            return everything, loss, [], ()
        return (
            everything,
            loss,
            [],
            (
                f"{far} of {len(groups)} (N, D) with several rows have losses that differ by more than {FAR_APART:.0%}, more "
                f"than seeds do, and every row is fitted: {pair}; {remedy}",
            ),
        )
    best = np.array([group[np.argmin(loss[group])] for group in groups])
    keep = np.ones(len(N), dtype=bool)
    left_out: list[tuple[int, str]] = []
    loss = loss.copy()
    for group, lowest in zip(groups, best, strict=True):
        kept = lowest if how == "best" else group[0]
        keep[group[group != kept]] = False
        if how == "seeds":
            loss[kept] = loss[group].mean()
        else:
            left_out += [(row, f"{run_id[kept]} has the same N and D and a lower loss") for row in group[group != kept]]
    what = "the row of the lowest loss was kept" if how == "best" else "one row with the mean of the losses was kept"
    return (
        everything[keep],
        loss,
        left_out,
        (f"{rows} rows are {len(groups)} (N, D); of each {what} (columns.replicates={how})",),
    )
