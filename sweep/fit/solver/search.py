"""The global search of Approach 3, for the runs and for every resample of them: follow many starts to their minima."""

from dataclasses import dataclass

import numpy as np

from sweep.fit.solver.finish import Certificate, polish_lad
from sweep.fit.solver.newton import MAX_LOOKED_AT, minimise, polish, subset
from sweep.fit.solver.objective import CONSTANTS, Objective, solve_linear

# The paper's grid has 0, 0.5, 1, 1.5 and 2; with an exponent of exactly 0 a term would be a second E.
EXPONENTS = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0])
COARSE_EXPONENTS = np.geomspace(0.08, 1.5, 10)  # for a start from each resample's own runs
MAX_DELTA = 0.1
LAD_DELTA = 1e-5  # a Huber loss this narrow, over its width, is |r| but for the last digits, which `polish_lad` finds
WIDE_STEPS, NARROW_STEPS = 12, 40  # most starts arrive within ten; one that takes longer is in no basin of its own
FOREMOST = 4
LOOK_STEPS, CLOSE = 4, 1.02  # steps of every resample's first looks, and how near the best one must be to go on
LOG_OF_NOTHING = -50.0  # log E where E is so small that it shows in no digit of a loss
SAME = 1e-6  # objectives nearer than this, relatively, belong to one basin
FLAT_GRADIENT = 1e-9  # relative to all runs pulling the same way
SINGULAR = 1e-13  # a smallest eigenvalue, relative to the largest, that is zero but for rounding


def free_directions(*, tied: bool, fixed_E: float | None) -> np.ndarray:
    """The directions of (log A, log B, log E, alpha, beta) that a fit is free to move in, as columns, shape (5, free)."""
    a, b, e, alpha, beta = np.eye(CONSTANTS)
    columns = [a, b] + ([] if fixed_E is not None else [e])
    return np.stack(columns + ([alpha + beta] if tied else [alpha, beta]), axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """The objective, and the directions in which it is minimised.

    Attributes:
        objective: the runs.
        weight: of each, shape (n,).
        delta: of the Huber loss; infinite for squares, None for absolute values.
        tied: alpha = beta.
        fixed_E: E, where it is known.
    """

    objective: Objective
    weight: np.ndarray
    delta: float | None
    tied: bool = False
    fixed_E: float | None = None

    @property
    def width(self) -> float:
        """Width of the Huber loss that is minimised."""
        return LAD_DELTA if self.delta is None else self.delta

    @property
    def basis(self) -> np.ndarray:
        """The free directions of (a, b, e, alpha, beta), as columns."""
        return free_directions(tied=self.tied, fixed_E=self.fixed_E)

    def value(self, theta: np.ndarray) -> float:
        """The objective at `theta`, shape (1, 5)."""
        if self.delta is None:
            return float((self.weight * np.abs(self.objective.residuals(theta)[0])).sum())
        return float(self.objective.values(theta, self.weight, self.delta)[0])

    def run(self) -> tuple[np.ndarray, Certificate]:
        """All minima that were found, best first, shape (minima, 5), and the evidence that the first is the global one."""
        basis, weight = self.basis, self.weight
        chosen = subset(len(weight), MAX_LOOKED_AT)
        look, own = self.objective.part(chosen), weight[chosen]
        starts, _ = solve_linear(look, own[None], EXPONENTS, tied=self.tied, fixed_E=self.fixed_E)
        wide, *narrower = _widths(MAX_DELTA, self.width)
        early = minimise(look, starts[0], own, [wide], basis=basis, last_steps=WIDE_STEPS, tolerance=1e-8)
        found, arrivals = _merge(early, np.ones(len(early), dtype=int), 2)
        found = minimise(look, found, own, narrower or [wide], basis=basis, last_steps=NARROW_STEPS)
        if len(chosen) < len(weight):
            found, arrivals = _merge(found, arrivals, 3)
            best = np.argsort(look.values(found, own, self.width))[: 2 * FOREMOST]
            found[best] = minimise(
                self.objective, found[best], weight, narrower or [wide], basis=basis, last_steps=NARROW_STEPS
            )
        order = np.argsort(self.objective.values(found, weight, self.width))
        found, arrivals = found[order], arrivals[order]
        # The best few are followed to the very end, even where E crawls to zero.
        found[:FOREMOST] = minimise(self.objective, found[:FOREMOST], weight, [self.width], basis=basis)
        found, arrivals = self._without_E(found, arrivals)
        values = self.objective.values(found, weight, self.width)
        order = np.argsort(values)
        found, values, arrivals = found[order], values[order], arrivals[order]

        subgradient = None
        if self.delta is None:
            best, subgradient = polish_lad(self.objective, found[:1], weight, basis)
        else:
            best = polish(self.objective, found[:1], weight, self.delta, basis)
        rounding = 1e-15 * min(self.width, 1.0) * weight.sum()  # decides where all residuals are zero
        winners = values <= values[0] * (1 + SAME) + rounding
        gradients = np.linalg.norm(basis.T @ self.objective.evaluate(found, weight, self.width).gradient, axis=0)
        others = ~winners & (gradients <= self._flat(self.width))
        share = float(arrivals[winners].sum() / arrivals.sum())
        proof = self._certify(best, subgradient, int(arrivals.sum()), share, values[others])
        return np.concatenate([best, found[others]]), proof

    def _without_E(self, found: np.ndarray, arrivals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`found`, with the best few refitted for E = 0, which a free E approaches but never reaches."""
        if self.fixed_E is not None:
            return found, arrivals
        closed = found[:FOREMOST].copy()
        closed[:, 2] = LOG_OF_NOTHING
        held = np.delete(self.basis, 2, axis=1)
        closed = minimise(self.objective, closed, self.weight, _widths(MAX_DELTA, self.width), basis=held)
        return np.concatenate([found, closed]), np.concatenate([arrivals, np.zeros(len(closed), dtype=int)])

    def resample(self, drawn: np.ndarray, minima: np.ndarray, spread: float) -> np.ndarray:
        """Minima of resampled problems, shape (resamples, 5): the best that any of `minima` and an own start lead to.

        Args:
            drawn: how much each run counts in each resample, shape (resamples, n).
            minima: of the full problem, shape (starts, 5).
            spread: of the residuals; Huber losses are followed from twice that.
        """
        resamples = len(drawn)
        if not resamples:
            return np.empty((0, minima.shape[1]))
        weights, basis, widths = self.weight * drawn, self.basis, _widths(2 * spread, self.width)
        chosen = subset(len(self.weight), MAX_LOOKED_AT)
        look, own = self.objective.part(chosen), weights[:, chosen]
        projected, misfit = solve_linear(look, own, COARSE_EXPONENTS, tied=self.tied, fixed_E=self.fixed_E)
        best = projected[np.arange(resamples), misfit.argmin(axis=1)]
        starts = [*(np.broadcast_to(minimum, best.shape) for minimum in minima), best]
        looks = np.stack([minimise(look, start, own, widths, basis=basis, last_steps=LOOK_STEPS) for start in starts])
        values = np.stack([look.values(at, own, self.width) for at in looks])
        # Most looks agree, or are hopeless; the best goes on, and those that may still overtake it.
        least = values.min(axis=0)
        leading = np.arange(len(starts))[:, None] == values.argmin(axis=0)
        going = leading | ((values <= least * CLOSE) & (values > least * (1 + SAME)))
        rows = np.nonzero(going)[1]
        values[:] = np.inf
        last = widths if len(chosen) < len(self.weight) else widths[-1:]
        looks[going] = minimise(self.objective, looks[going], weights[rows], last, basis=basis, steps=2, tolerance=1e-10)
        values[going] = self.objective.values(looks[going], weights[rows], self.width)
        return looks[values.argmin(axis=0), np.arange(resamples)]

    def _flat(self, slope: float) -> float:
        """The gradient's norm up to which it is zero, for losses whose slope is at most `slope`."""
        return FLAT_GRADIENT * float(self.weight.sum()) * min(slope, 1.0)

    def _certify(
        self, best: np.ndarray, subgradient: float | None, starts: int, share: float, others: np.ndarray
    ) -> Certificate:
        at = self.objective.evaluate(best, self.weight, self.width)
        gradient = float(np.linalg.norm(self.basis.T @ at.gradient)) if subgradient is None else subgradient
        eigenvalues = np.linalg.eigvalsh(self.basis.T @ at.hessian[:, :, 0] @ self.basis)
        scale = 1 / self.width if self.delta is None else 1.0
        return Certificate(
            gradient_norm=gradient,
            hessian_eigenvalues=tuple((scale * eigenvalues).tolist()),
            condition_number=float(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > SINGULAR * eigenvalues[-1] else np.inf,
            starts=starts,
            basin_share=share,
            next_basin=float(scale * others.min()) if len(others) else None,
            stationary=gradient <= self._flat(self.width if subgradient is None else 1.0),
        )


def _merge(found: np.ndarray, arrivals: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """One of each group of equal rows, to so many digits, and how many starts arrived there."""
    _, first, group = np.unique(np.round(found, digits), axis=0, return_index=True, return_inverse=True)
    return found[first], np.bincount(group.ravel(), weights=arrivals).astype(int)


def _widths(widest: float, narrowest: float) -> list[float]:
    """Widths of the Huber loss to follow, each at most about a third of the one before."""
    if not widest > narrowest:
        return [narrowest]
    steps = int(np.ceil(np.log(widest / narrowest) / np.log(10**0.5)))
    return [*np.geomspace(widest, narrowest, steps + 1)[:-1].tolist(), narrowest]
