"""The questions that a sweep is run for, and what each approach answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweep.errors import LawError
from sweep.fit.frontier import (
    Allocation,
    LifetimeOptimum,
    SizePenalty,
    allocate,
    budget_for_loss,
    lifetime_optimum,
    size_penalty,
)
from sweep.fit.questions.asked import Questions
from sweep.fit.questions.footprint import Footprint, footprint
from sweep.fit.questions.improve import Gain, Improvement, doubling, improvement
from sweep.fit.questions.standing import PUBLISHED, Growth, Placement, SizedRun, growth, place, sized_runs
from sweep.fit.result import Estimate, Record, plain

FACTORS = (0.5, 2.0)  # times N_opt: sizes whose cost is given
DECADES = (1, 10, 100)  # times the largest C
NO_SURFACE = "this needs the surface L(N, D) of Approach 3, which could not be fitted"


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
            found.append(f"    with inference: {model} saves {self.lifetime.saving:z.0%} of all FLOPs")
        return found


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the fits answer to `Questions`.

    Attributes:
        allocations: the optimum at each budget, by each approach that was fitted.
        growth: of N_opt and D_opt per tenfold of compute, by each approach.
        sizes: the run at which each size is optimal, by each approach.
        penalties: the cost of 0.5 and 2 times N_opt, by the profiles, or without any by the surface; by budget.
        gains: what a doubling of N, D or C buys at each budget, by the parametric surface.
        goals: how to reach each loss, by the parametric surface.
        improvements: what each share of less loss takes, by the parametric surface.
        placements: the named models against the frontier, by the parametric surface.
        missing: what was asked and not answered, and why, by the name of the field.
        footprints: GPU-hours, kWh and CO2; by budget.
    """

    allocations: tuple[Allocation, ...]
    growth: tuple[Growth, ...]
    sizes: tuple[SizedRun, ...]
    penalties: dict[float, tuple[SizePenalty, ...]]
    gains: tuple[Gain, ...]
    goals: tuple[Goal, ...]
    improvements: tuple[Improvement, ...]
    placements: tuple[Placement, ...]
    missing: dict[str, str]
    footprints: dict[float, Footprint]

    @property
    def all_growth(self) -> tuple[Growth, ...]:
        """That of the approaches, and beside it what Kaplan et al. and Chinchilla published."""
        return (*self.growth, *PUBLISHED)

    def to_dict(self) -> dict[str, Any]:
        return {
            "allocations": plain(self.allocations),
            "growth_per_tenfold": plain(self.all_growth),
            "sizes": plain(self.sizes),
            "penalties": [{"C": C, **penalty.to_dict()} for C, penalties in self.penalties.items() for penalty in penalties],
            "gains_of_doubling": plain(self.gains),
            "goals": plain(self.goals),
            "improvements": plain(self.improvements),
            "models": plain(self.placements),
            "missing": self.missing,
            "footprints": [{"C": C, **cost.to_dict()} for C, cost in self.footprints.items()],
        }

    def summary(self) -> str:
        lines = ["Compute-optimal runs"] * bool(self.allocations)
        for C in dict.fromkeys(row.C for row in self.allocations):
            lines += [f"  {row.line()}" for row in self.allocations if row.C == C]
            for penalty in self.penalties.get(C, ()):
                lines.append(f"    {penalty.line()}")
            if C in self.footprints:
                lines.append(f"    {self.footprints[C].line()}")
        parts: dict[str, list[str]] = {
            "": [line for goal in self.goals for line in goal.lines()],
            "Per tenfold of compute": [row.line() for row in self.all_growth],
            "What a doubling still buys in loss, at the optimum": [gain.line() for gain in self.gains],
            "Sizes, and the runs at which they are optimal": [row.line() for row in self.sizes],
            "Less loss": [line for each in self.improvements for line in each.lines()],
            "Models against the frontier": [line for each in self.placements for line in each.lines()],
            "Not answered": [f"ask.{name}: {reason}" for name, reason in self.missing.items()],
        }
        for heading, found in parts.items():
            lines += [heading] * bool(heading and found) + [f"  {line}" if heading else line for line in found]
        return "\n".join(lines)


def answer(
    fits: Sequence[Any],
    questions: Questions,
    *,
    largest: float | None = None,
    best: tuple[float, float] | None = None,
) -> Answers:
    """Ask all `fits`, fitted or refused; `largest` is the largest C of a run, and `best` the (N, D) of the lowest loss, both
    None without runs. Raises LawError if neither `best` nor `questions.at` says from where to improve."""
    budgets = [float(C) for C in questions.budgets] or [factor * largest for factor in DECADES if largest]
    fitted, rate = [fit for fit in fits if fit.fitted], questions.flops_per_second
    surface = next((fit for fit in fitted if fit.has_surface), None)
    valley = next((fit for fit in fitted if fit.has_other_sizes), None)
    start = questions.at or best
    if questions.improve and start is None:
        raise LawError("bad_option", "ask.improve needs a run to improve on: give ask.at, an N and a D")
    needs = {name: NO_SURFACE for name in ("losses", "improve", "models") if getattr(questions, name) and surface is None}
    if questions.sizes and not fitted:
        needs["sizes"] = "no approach could be fitted"
    power = {"watts": questions.watts, "pue": questions.pue, "tonnes_per_MWh": questions.tonnes_per_MWh}
    return Answers(
        allocations=tuple(row for C in budgets for fit in fitted for row in allocate(fit, [C])),
        growth=tuple(growth(fit) for fit in fitted),
        sizes=tuple(row for N in questions.sizes for fit in fitted for row in sized_runs(fit, [N])),
        penalties={C: tuple(size_penalty(valley, C, k) for k in FACTORS) for C in budgets} if valley else {},
        gains=tuple(doubling(surface, C) for C in budgets) if surface else (),
        goals=tuple(_goal(surface, loss, questions.inference_tokens) for loss in questions.losses) if surface else (),
        improvements=tuple(improvement(surface, less, *start) for less in questions.improve) if surface and start else (),
        placements=tuple(
            place(surface, name, *run, gpu_hours=questions.gpu_hours.get(name), flops_per_second=rate, **power)
            for name, run in questions.models.items()
        )
        if surface
        else (),
        missing=needs,
        footprints={C: footprint(C, flops_per_second=rate, **power) for C in budgets} if rate else {},
    )


def _goal(fit: Any, loss: float, inference_tokens: float) -> Goal:
    try:
        C = budget_for_loss(fit, loss)
    except LawError as error:
        return Goal(loss=loss, reason=str(error))
    N, D = fit.optimal(C.value)
    lifetime = lifetime_optimum(fit.surface, loss, inference_tokens) if inference_tokens > 0 else None
    return Goal(loss=loss, C=C, N=float(N), D=float(D), lifetime=lifetime)
