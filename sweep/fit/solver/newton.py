"""A safeguarded Newton method for a batch of small problems of one shape, in blocks that stay in cache, on all cores."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from sweep.machine import cores

BLOCK_VALUES = 131_072  # floats in one (rows, runs) array of a block: 1 MB
MIN_VALUES = 32_768  # a block of fewer is all overhead
MAX_STEP = 2.0  # in any constant; the quadratic model does not hold further out
MAX_LOOKED_AT = 600  # points: first looks at more of them find the same basins
MAX_STEPS = 200  # at the last delta; no problem was ever seen to need them all


class Evaluation(NamedTuple):
    """Value (K,), gradient (p, K) and Hessian (p, p, K)."""

    value: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray


class Objective(Protocol):
    """A sum over points of losses of residuals, for K rows of p constants at once; `x` has one value for each point."""

    @property
    def x(self) -> np.ndarray: ...

    def evaluate(self, theta: np.ndarray, weight: np.ndarray, delta: float) -> Evaluation:
        """At `theta` (K, p), for `weight` (points,) or (K, points) and a Huber loss of width `delta`."""
        ...


def minimise(
    objective: Objective,
    theta: np.ndarray,
    weight: np.ndarray,
    deltas: Sequence[float],
    *,
    basis: np.ndarray | None = None,
    steps: int = 4,
    last_steps: int = MAX_STEPS,
    tolerance: float = 1e-14,
) -> np.ndarray:
    """Local minima of the objective at the last of `deltas`, reached by following it through the others, shape (K, p).

    Wide Huber losses have wide basins; the kinks of a narrow one would trap a direct descent.

    Args:
        objective: of all rows.
        theta: where to start, shape (K, p).
        weight: of the points, shape (n,), or for each row, shape (K, n).
        deltas: widths of the Huber loss, descending; infinite for squares.
        basis: columns that span the directions in which theta may move, shape (p, free); by default all.
        steps: at every delta but the last.
        last_steps: at the last; a few make a cheap first look.
        tolerance: a row has arrived when its next step promises less than this share of its objective.
    """
    if not len(theta):
        return theta.copy()
    if basis is not None and basis.shape[0] == basis.shape[1]:
        basis = None
    points = len(objective.x)
    rows = max(1, min(BLOCK_VALUES // points, max(MIN_VALUES // points, -(-len(theta) // cores()))))
    blocks = [slice(start, start + rows) for start in range(0, len(theta), rows)]

    def solve(block: slice) -> np.ndarray:
        own = weight if weight.ndim == 1 else weight[block]
        # A wild trial step may overflow; it is then not taken.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return _follow(objective, theta[block], own, deltas, basis, (steps, last_steps), tolerance)

    if len(blocks) == 1:
        return solve(blocks[0])
    with ThreadPoolExecutor(cores()) as threads:  # numpy releases the interpreter lock inside its loops
        return np.concatenate(list(threads.map(solve, blocks)))


def subset(points: int, most: int) -> np.ndarray:
    """Indices of at most `most` of the points, ascending: drawn, as any regular choice may miss part of a regular grid."""
    if points <= most:
        return np.arange(points)
    return np.sort(np.random.default_rng(0).choice(points, most, replace=False))


def polish(
    objective: Objective, theta: np.ndarray, weight: np.ndarray, delta: float, basis: np.ndarray | None = None
) -> np.ndarray:
    """The stationary point next to `theta`, shape (1, p), to the last digits.

    Near a minimum the value is flat to rounding long before the gradient is, so here the gradient decides.
    """
    basis = np.eye(theta.shape[1]) if basis is None else basis

    def gradient_norm(at: Evaluation) -> float:
        return float(np.linalg.norm(basis.T @ at.gradient))

    here = objective.evaluate(theta, weight, delta)
    for _ in range(20):
        hessian = basis.T @ here.hessian[:, :, 0] @ basis
        step = np.linalg.lstsq(hessian, -basis.T @ here.gradient[:, 0], rcond=1e-15)[0]
        if np.abs(step).max() > 1e-3:  # not next to it: keep the minimum that was found
            break
        there = objective.evaluate(theta + basis @ step, weight, delta)
        if not gradient_norm(there) < gradient_norm(here):
            break
        theta, here = theta + basis @ step, there
    return theta


def _follow(
    objective: Objective,
    theta: np.ndarray,
    weight: np.ndarray,
    deltas: Sequence[float],
    basis: np.ndarray | None,
    steps: tuple[int, int],
    tolerance: float,
) -> np.ndarray:
    theta = theta.copy()
    damping = np.full(len(theta), 1e-3)
    for delta in deltas:
        moving = np.arange(len(theta))
        own, here = weight, _project(objective.evaluate(theta, weight, delta), basis)
        for _ in range(steps[delta == deltas[-1]]):
            step = _descend(here.hessian, here.gradient, damping[moving])
            step *= np.minimum(1, MAX_STEP / np.maximum(np.abs(step).max(axis=0), 1e-300))
            promised = -(here.gradient * step).sum(axis=0)
            trial = theta[moving] + (step if basis is None else basis @ step).T
            there = _project(objective.evaluate(trial, own, delta), basis)
            better = there.value < here.value
            theta[moving[better]] = trial[better]
            damping[moving] = np.clip(damping[moving] * np.where(better, 0.1, 10.0), 1e-12, 1e8)
            here = Evaluation(*(np.where(better, new, old) for new, old in zip(there, here, strict=True)))
            going = (promised > tolerance * here.value) & (damping[moving] < 1e7)
            if not going.any():
                break
            if going.mean() < 0.7:  # dropping rows costs copies: only when it saves more
                moving, own = moving[going], own if own.ndim == 1 else own[going]
                here = Evaluation(*(values[..., going] for values in here))
        damping = np.minimum(damping, 1.0)
    return theta


def _project(at: Evaluation, basis: np.ndarray | None) -> Evaluation:
    if basis is None:
        return at
    return Evaluation(at.value, basis.T @ at.gradient, np.einsum("ip,ijk,jq->pqk", basis, at.hessian, basis))


def _descend(hessian: np.ndarray, gradient: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """-(H + damping diag|H|)^-1 gradient by LDL', with negative pivots made positive, so that it always descends.

    Written out over the batch, the last axis: the overhead of a LAPACK call is many times the arithmetic of a 5 x 5 system.
    """
    size = len(gradient)
    scale = np.abs(hessian[range(size), range(size)])
    scale = scale + 1e-12 * scale.max(axis=0) + 1e-300
    pivot = np.empty_like(gradient)
    lower = np.empty_like(hessian)
    for j in range(size):
        d = hessian[j, j] + damping * scale[j]
        for k in range(j):
            d = d - lower[j, k] ** 2 * pivot[k]
        pivot[j] = np.maximum(np.abs(d), 1e-12 * scale[j])
        for i in range(j + 1, size):
            entry = hessian[i, j]
            for k in range(j):
                entry = entry - lower[i, k] * lower[j, k] * pivot[k]
            lower[i, j] = entry / pivot[j]
    step = -gradient
    for i in range(size):
        for k in range(i):
            step[i] -= lower[i, k] * step[k]
    step /= pivot
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            step[i] -= lower[k, i] * step[k]
    return step
