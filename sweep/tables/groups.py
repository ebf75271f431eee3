"""Rows that belong together: IsoFLOP profiles by nearly equal budgets or compute, and points of one trajectory."""

from collections.abc import Iterator

import numpy as np

from sweep.tables.names import listed

EXACT = 1e-9  # relative: one number, written with fewer digits
SAME_SIZE = 0.01  # relative, of N or D
ROUNDING = 1e-3  # relative: budgets this close are one, whatever else is known
MAX_WIDTH = 0.15  # of one budget's values, in ln
GAP, COMPUTE_GAP = 1.0, 1.5  # a budget's values end where a gap is this many times wider than they are
INNER_GAP = 3.0  # values are two budgets if a gap between them is this many times wider than each half
MIN_SIZES = 3  # that make a profile of one exact value
MIN_COMPUTE_SIZES, MIN_IN_GROUPS = 4, 0.9  # of each group, and of all rows: before compute alone counts as a budget
RECTANGLE = 0.8  # of all pairs of some N and some D: a grid, whose diagonals have equal compute
MIN_POINTS, MAX_STEP = 6, 1.4  # of a trajectory: points, and the factor in D from one to the next


def group_budgets(budget: np.ndarray, N: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Budgets with nearly equal values made equal, shape (runs,), and a note if they changed. They are told apart by the gaps
    between them; values that are no clusters stay.

    Args:
        budget: FLOPs, shape (runs,); NaN outside any profile.
        N: parameters, shape (runs,).
    """
    known = np.isfinite(budget)
    grouped = budget.copy()
    groups = list(_clusters(np.log(budget[known]), N[known], GAP)) if known.any() else []
    rows = np.flatnonzero(known)
    if 2 * sum(len(group) for group in groups if _sizes(N[rows[group]]) >= MIN_SIZES) < len(rows):
        return budget, ()
    for group in groups:
        values, counts = np.unique(budget[rows[group]], return_counts=True)
        grouped[rows[group]] = values[counts.argmax()] if counts.max() * 2 > len(group) else np.median(budget[rows[group]])
    before, after = (len(np.unique(each[known])) for each in (budget, grouped))
    if before == after:
        return budget, ()
    off = np.abs(budget[known] / grouped[known] - 1).max()
    return grouped, (f"{before} values of the budget are {after} budgets, each within {off:.1%}: {_named(grouped)}",)


def budgets_of_compute(C: np.ndarray, N: np.ndarray, D: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The budgets of a table without them, shape (runs,): the typical C of rows with nearly equal C, where nearly all rows are
    in such groups of several sizes; else NaN. And a note if there are any.

    Args:
        C, N, D: FLOPs, parameters, tokens of each run, shape (runs,).
    """
    none: tuple[np.ndarray, tuple[str, ...]] = np.full(len(C), np.nan), ()
    if len(N) >= RECTANGLE * _sizes(N) * _sizes(D):
        return none
    groups = [group for group in _clusters(np.log(C), N, COMPUTE_GAP) if _sizes(N[group]) >= MIN_COMPUTE_SIZES]
    if len(groups) < 2 or sum(map(len, groups)) < MIN_IN_GROUPS * len(C):
        return none
    budget = np.full(len(C), np.nan)
    for group in groups:
        budget[group] = np.median(C[group])
    alone = int(np.isnan(budget).sum())
    rest = f"; {alone} rows are in none" if alone else ""
    note = f"no column names a budget; rows with nearly equal C were taken as {len(groups)} budgets: {_named(budget)}{rest}"
    return budget, (note,)


def trajectories(N: np.ndarray, D: np.ndarray, budget: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels of rows that look like points of one trajectory, shape (runs,), or None; and a note. They are rows of one N at
    many D, each little more than the last: nobody trains so many runs of one size from the start.

    Args:
        N, D, budget: of each row, shape (runs,).
    """
    if np.isfinite(budget).mean() > 0.5:
        return None, ()
    sizes, member = np.unique(N, return_inverse=True)
    horizons = [np.unique(D[member == i]) for i in range(len(sizes))]
    points = float(np.median([len(each) for each in horizons]))
    if points < MIN_POINTS or len(sizes) < 2:
        return None, ()
    step = float(np.median([np.median(each[1:] / each[:-1]) for each in horizons if len(each) > 1]))
    what = f"{len(sizes)} sizes have {points:g} rows each (median), D growing by a factor of {step:.3g}"
    if step > MAX_STEP or len(sizes) < 3:
        return None, (
            f"{what}: if they are points of one run per size, columns.cluster=N keeps intervals from being too narrow",
        )
    return N.astype(str), (
        f"{what}, as points of one run per size have: rows of one N are resampled together. If each row is a run of its own, "
        "columns.cluster=none says so",
    )


def _clusters(values: np.ndarray, N: np.ndarray, gap: float) -> Iterator[np.ndarray]:
    """Indices of each cluster of `values`, shape (values,): split at the widest gap until all are narrow, and the gaps around
    each are `gap` times wider than it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    gaps = np.diff(ordered)
    parts = [(0, len(values), np.inf)]  # begin, end, and the gap that ends it; those around it are as wide or wider
    while parts:
        begin, end, around = parts.pop()
        width = ordered[end - 1] - ordered[begin]
        narrow = width <= min(MAX_WIDTH, around / gap)
        if width <= ROUNDING or (narrow and not _several(ordered[begin:end], N[order[begin:end]])):
            yield order[begin:end]
            continue
        cut = begin + int(gaps[begin : end - 1].argmax()) + 1
        parts += [(begin, cut, gaps[cut - 1]), (cut, end, gaps[cut - 1])]


def _several(values: np.ndarray, N: np.ndarray) -> bool:
    """Whether ascending values are profiles by themselves, and so budgets that were meant to be different: several exact
    values, or two halves far apart, of enough sizes each."""
    gaps = np.diff(values)
    exact = [_sizes(part) >= MIN_SIZES for part in np.split(N, np.flatnonzero(gaps > EXACT) + 1)]
    cut = int(gaps.argmax()) + 1
    apart = gaps[cut - 1] > INNER_GAP * max(values[cut - 1] - values[0], values[-1] - values[cut])
    return sum(exact) > 1 or (apart and min(_sizes(N[:cut]), _sizes(N[cut:])) >= MIN_SIZES)


def _sizes(N: np.ndarray) -> int:
    """How many different N, or D, short of rounding."""
    return 1 + int((np.diff(np.log(np.sort(N))) > SAME_SIZE).sum())


def _named(budget: np.ndarray) -> str:
    return listed([f"{value:.3g}" for value in np.unique(budget[np.isfinite(budget)])])
