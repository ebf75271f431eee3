"""Differences in loss as factors of N and of C, through the baseline's law L(N, D) = E + A / N^alpha + B / D^beta.

A label whose loss at (N, D) is that of the baseline with f N parameters on the same tokens is worth the factor f in N. Along
the compute-optimal direction N and D grow so that both terms fall by one factor: the reducible loss A / N^alpha + B / D^beta
falls as C^-gamma, gamma = alpha beta / (alpha + beta). A label is worth the factor m in compute if its loss is the baseline's
with m times the compute spent in that direction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweep.compare.differences import EVERYWHERE, Comparison, Difference
from sweep.fit import Estimate, ParametricFit, Surface

DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What a label is worth.

    Attributes:
        label: of the runs.
        cell: of the grid; `EVERYWHERE` for all cells together: the exponents are the baseline's, and the factors the same.
        N, C: factors; None where the loss is lower than any N (or C) would bring it by the law.
        cost: the label's FLOPs over the baseline's at the same N and D.
    """

    label: str
    cell: int
    N: Estimate | None
    C: Estimate | None
    cost: float = 1.0

    @property
    def per_flop(self) -> Estimate | None:
        """The factor in C for the FLOPs that the label takes."""
        return self.C and self.C.mapped(lambda C: C / self.cost)


def factor_N(surface: Surface, N: float, difference: np.ndarray) -> np.ndarray:
    """The factor in N that changes the loss at `N` by `difference`; NaN if none does."""
    with np.errstate(invalid="ignore"):
        return (1 + difference * N**surface.alpha / surface.A) ** (-1 / surface.alpha)


def factor_C(surface: Surface, N: float, D: float, difference: np.ndarray) -> np.ndarray:
    """The factor in C that changes the loss at (`N`, `D`) by `difference`; NaN if none does."""
    gamma = surface.alpha * surface.beta / (surface.alpha + surface.beta)
    reducible = surface.A / N**surface.alpha + surface.B / D**surface.beta
    with np.errstate(invalid="ignore"):
        return (1 + difference / reducible) ** (-1 / gamma)


@dataclass(frozen=True, kw_only=True)
class Law:
    """The baseline's law.

    Attributes:
        surface: its constants.
        replicas: the constants as they may be, shape (resamples,); None if that is not known.
        source: where it is from, in words.
    """

    surface: Surface
    replicas: Surface | None
    source: str


def factors(
    comparison: Comparison, law: Law, costs: Mapping[tuple[str, int], float] | None = None, seed: int = 0
) -> tuple[Factor, ...]:
    """The factors of every difference, with intervals from the noise of the losses and the resamples of the law, for all
    comparisons together (Bonferroni's); those of all cells are the means of their logs, weighted by their errors. `costs` are
    by label and cell, 1 where there is none; that of all cells is their geometric mean."""
    costs = costs or {}
    level = 1 - (1 - comparison.level) / max(comparison.comparisons, 1)
    rng = np.random.default_rng(seed)
    found: list[Factor] = []
    labels = list(dict.fromkeys(each.label for each in comparison.differences))
    for label in labels:
        own = [each for each in comparison.differences if each.label == label and each.cell != EVERYWHERE]
        drawn = [_draw(each, law, comparison.freedom, rng) for each in own]
        found += [
            Factor(
                label=label, cell=each.cell, N=_estimate(N, level), C=_estimate(C, level), cost=costs.get((label, each.cell), 1)
            )
            for each, (N, C) in zip(own, drawn, strict=True)
        ]
        if len(own) > 1:
            N, C = (_pooled([pair[place] for pair in drawn]) for place in (0, 1))
            cost = float(np.exp(np.mean([np.log(costs.get((label, each.cell), 1)) for each in own])))
            found.append(Factor(label=label, cell=EVERYWHERE, N=_estimate(N, level), C=_estimate(C, level), cost=cost))
    return tuple(found)


def _draw(each: Difference, law: Law, freedom: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Logs of the factors in N and C, shape (1 + draws,): the best estimates, then values as they may be."""
    best = np.array([each.value])
    pairs = [(factor_N(law.surface, each.N, best), factor_C(law.surface, each.N, each.D, best))]
    if each.se is not None:
        drawn = each.value + each.se * (rng.standard_t(freedom, DRAWS) if freedom else rng.normal(size=DRAWS))
        surface = law.surface
        if law.replicas is not None:
            chosen = rng.integers(np.size(law.replicas.E), size=DRAWS)
            surface = _some(law.replicas, chosen)
        found = (factor_N(surface, each.N, drawn), factor_C(surface, each.N, each.D, drawn))
        # Where no size and no compute has so low a loss, it takes more than any; unless the resample has no law.
        unreached = [np.isnan(factor) & np.isfinite(drawn / surface.A) for factor in found]
        pairs.append((np.where(unreached[0], np.inf, found[0]), np.where(unreached[1], np.inf, found[1])))
    N, C = (np.log(np.concatenate(parts)) for parts in zip(*pairs, strict=True))
    return N, C


def _some(replicas: Surface, which: np.ndarray) -> Surface:
    """Some of many surfaces."""
    return replace(replicas, **{name: np.asarray(values)[which] for name, values in replicas.constants.items()})


def _pooled(logs: Sequence[np.ndarray]) -> np.ndarray:
    if any(len(each) < 2 or not np.isfinite(each).all() for each in logs):
        return np.mean(np.stack(logs), axis=0)
    weights = np.array([1 / max(float(each[1:].var()), 1e-12) for each in logs])
    return np.average(np.stack(logs), axis=0, weights=weights)


def _estimate(logs: np.ndarray, level: float) -> Estimate | None:
    """The factor and its interval from their logs; None if there is none."""
    if not np.isfinite(logs[0]):
        return None
    return Estimate.from_resamples(logs[0], logs[1:], level).mapped(lambda log: float(np.exp(log)))


def free_factors(own: ParametricFit, base: ParametricFit, budgets: Sequence[float]) -> tuple[Estimate, ...]:
    """What a label is worth in compute at each of `budgets`, through a law of its own, whose exponents are free: the budget at
    which the baseline's frontier has the label's lowest loss, over the label's."""
    found = []
    for C in budgets:
        value = float(base.surface.budget_for_loss(own.surface.frontier_loss(C)) / C)
        size = min(np.size(own.replicates.E), np.size(base.replicates.E))
        mine, other = (_some(law.replicates, np.arange(size)) for law in (own, base))
        found.append(Estimate.from_resamples(value, other.budget_for_loss(mine.frontier_loss(C)) / C, own.level))
    return tuple(found)
