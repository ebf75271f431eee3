"""The questions that a sweep is run for, and what each approach answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.frontier import (
    Allocation,
    Footprint,
    LifetimeOptimum,
    SizePenalty,
    allocate,
    budget_for_loss,
    footprint,
    lifetime_optimum,
    size_penalty,
)
from sweep.fit.result import Estimate, Record, plain, positive

FACTORS = (0.5, 2.0)  # times N_opt: sizes whose cost is given
DECADES = (1, 10, 100)  # times the largest C


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked.

    Attributes:
        budgets: FLOPs to spend; if empty, 1, 10 and 100 times the largest C of a run.
        losses: to reach, nats per token.
        inference_tokens: served by the model of each loss over its life; 0 if only training counts.
        flops_per_second: achieved by one GPU, for GPU-hours and energy; None to leave them out.
        watts: of one GPU.
    """

    budgets: Sequence[float] = ()
    losses: Sequence[float] = ()
    inference_tokens: float = 0
    flops_per_second: float | None = None
    watts: float = 700


@dataclass(frozen=True, kw_only=True)
class Goal(Record):
    """How to reach a loss: C with its N and D, and, if use was asked about, the cheapest model over training and use. `reason`
    says why no budget reaches it."""

    loss: float
    C: Estimate | None = None
    N: float | None = None
    D: float | None = None
    lifetime: LifetimeOptimum | None = None
    reason: str | None = None

    def lines(self) -> list[str]:
        if self.C is None:
            return [f"  loss {self.loss:g}: {self.reason}"]
        found = [f"  loss {self.loss:g}: C = {self.C}, N = {self.N:.4g}, D = {self.D:.4g}"]
        if self.lifetime:
            model = f"N = {self.lifetime.N:.4g} on D = {self.lifetime.D:.4g}"
            found.append(f"    with inference: {model} saves {self.lifetime.saving:.0%} of all FLOPs")
        return found


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the fits answer to `Questions`.

    Attributes:
        allocations: the optimum at each budget, by each approach that was fitted.
        penalties: the cost of 0.5 and 2 times N_opt, by the parametric surface; by budget.
        goals: how to reach each loss, by the parametric surface.
        footprints: GPU-hours, kWh and CO2; by budget.
    """

    allocations: tuple[Allocation, ...]
    penalties: dict[float, tuple[SizePenalty, ...]]
    goals: tuple[Goal, ...]
    footprints: dict[float, Footprint]

    def to_dict(self) -> dict[str, Any]:
        return {
            "allocations": plain(self.allocations),
            "penalties": [{"C": C, **penalty.to_dict()} for C, penalties in self.penalties.items() for penalty in penalties],
            "goals": plain(self.goals),
            "footprints": [{"C": C, **cost.to_dict()} for C, cost in self.footprints.items()],
        }

    def summary(self) -> str:
        lines = ["Compute-optimal runs"]
        for C in dict.fromkeys(row.C for row in self.allocations):
            lines += [f"  {row.line()}" for row in self.allocations if row.C == C]
            for penalty in self.penalties.get(C, ()):
                compute = f"{penalty.compute - 1:.0%} more compute" if np.isfinite(penalty.compute) else "no compute is enough"
                lines.append(f"    {penalty.factor:g} x N_opt: loss {penalty.loss:+.4f}, or {compute} for the same loss")
            if C in self.footprints:
                cost = self.footprints[C]
                lines.append(f"    {cost.gpu_hours:.3g} GPU-hours, {cost.kWh:.3g} kWh, {cost.kg_CO2:.3g} kg CO2")
        return "\n".join(lines + [line for goal in self.goals for line in goal.lines()])


def answer(fits: Sequence[Any], questions: Questions, *, largest: float) -> Answers:
    """Ask all `fits`, fitted or refused; `largest` is the largest C of a run. Raises LawError if a budget, loss or token count
    is out of range."""
    for name, values in (("budgets", questions.budgets), ("losses", questions.losses)):
        positive(f"ask.{name}", list(values))
    budgets = [float(C) for C in questions.budgets] or [factor * largest for factor in DECADES]
    fitted, rate = [fit for fit in fits if fit.fitted], questions.flops_per_second
    surface = next((fit for fit in fitted if fit.has_surface), None)
    return Answers(
        allocations=tuple(row for C in budgets for fit in fitted for row in allocate(fit, [C])),
        penalties={C: tuple(size_penalty(surface.surface, C, k) for k in FACTORS) for C in budgets} if surface else {},
        goals=tuple(_goal(surface, loss, questions.inference_tokens) for loss in questions.losses) if surface else (),
        footprints={C: footprint(C, flops_per_second=rate, watts=questions.watts) for C in budgets} if rate else {},
    )


def _goal(fit: Any, loss: float, inference_tokens: float) -> Goal:
    try:
        C = budget_for_loss(fit, loss)
    except LawError as error:
        return Goal(loss=loss, reason=str(error))
    N, D = fit.optimal(C.value)
    lifetime = lifetime_optimum(fit.surface, loss, inference_tokens) if inference_tokens > 0 else None
    return Goal(loss=loss, C=C, N=float(N), D=float(D), lifetime=lifetime)
