"""What the laws are for: how large a model, on how many tokens, at what loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches import Approach
from sweep.fit.approaches.parametric import ParametricFit
from sweep.fit.result import Estimate, PowerLaw, positive
from sweep.fit.surface import Surface


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The compute-optimal run at one budget, by one approach; `loss` is in nats per token. Beyond twice the largest C fitted,
    Approaches 1 and 2 give no loss: theirs is a power law without E, which falls below any E."""

    approach: str
    C: float
    N: Estimate
    D: Estimate
    tokens_per_parameter: Estimate
    loss: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        names = ("N", "D", "tokens_per_parameter")
        values = {"approach": self.approach, "C": self.C} | {name: getattr(self, name).to_dict() for name in names}
        return values | {"loss": self.loss.to_dict() if self.loss else None}

    def line(self) -> str:
        """For a reader."""
        return (
            f"C = {self.C:.3g}: N = {self.N}, D = {self.D}, {self.tokens_per_parameter} tokens per parameter, "
            f"{f'loss {self.loss}' if self.loss else 'too far for a loss'} ({self.approach})"
        )


def allocate(fit: Approach, budgets: Sequence[float]) -> list[Allocation]:
    """N_opt, D_opt, their ratio and the loss at each of `budgets` FLOPs, with the fit's intervals."""
    rows = []
    for C in map(float, positive("budgets", list(budgets))):
        (N, D), loss = fit.optimal(C), fit.optimal_loss(C)
        drawn_N, drawn_D, drawn_loss = fit.resampled_at(C)
        pairs = ((N, drawn_N), (D, drawn_D), (D / N, drawn_D / drawn_N), (loss, drawn_loss))
        estimates = [Estimate.from_resamples(float(value), drawn, fit.level) for value, drawn in pairs]
        rows.append(
            Allocation(
                approach=fit.name,
                C=float(C),
                N=estimates[0],
                D=estimates[1],
                tokens_per_parameter=estimates[2],
                loss=estimates[3] if fit.reach >= C else None,
            )
        )
    return rows


def allocate_sizes(law: PowerLaw | Surface, sizes: Sequence[float]) -> list[tuple[float, float, float]]:
    """(N, C, D) at which each of `sizes` is optimal, for a law of N_opt in C = 6 N D or a surface."""
    positive("sizes", list(sizes))
    if isinstance(law, Surface):
        return [(float(N), float(C := law.budget_for_size(N)), float(law.compute.tokens(N, C))) for N in sizes]
    budgets = [(N / law.coefficient) ** (1 / law.exponent) for N in sizes]
    return [(float(N), float(C), float(C / (6 * N))) for N, C in zip(sizes, budgets, strict=True)]


def budget_for_loss(fit: ParametricFit, loss: float) -> Estimate:
    """The least C that reaches `loss`.

    Raises:
        LawError: if `loss` is not above E, which no budget reaches.
    """
    C = fit.surface.budget_for_loss(positive("loss", loss))
    if not np.isfinite(C):
        raise LawError("unreachable", f"a loss of {loss:g} is not above E = {fit.E.value:.4g}: no budget reaches it")
    drawn = fit.replicates.budget_for_loss(loss)
    # Where a resample's E is above the target, no budget is enough.
    return Estimate.from_resamples(float(C), np.where(np.isnan(drawn), np.inf, drawn), fit.level)
