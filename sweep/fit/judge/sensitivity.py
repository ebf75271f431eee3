"""How firm the answer is: the exponent a under every choice that a reader might have made otherwise."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.envelope import CurvesLike, fit_envelope
from sweep.fit.approaches.isoflop import IsoflopFit, fit_isoflop
from sweep.fit.approaches.parametric import fit_parametric
from sweep.fit.result import Estimate, check_intervals, positive
from sweep.tables.table import RunsLike, RunTable, as_runs

DELTAS = (1e-4, 1e-3, 1e-2, 1e-1)
HIGHEST_LOSSES = 5  # what Besiroglu et al. 2024 drop
FAR = 3  # robust standard deviations


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One choice and what it makes of a.

    Attributes:
        group: which kind of choice: "approach", "loss function", "outliers", "sizes", "budgets" or "convention".
        label: the choice.
        a: exponent of N_opt; None if it could not be fitted.
        reason: why not.
        runs: how many were fitted.
    """

    group: str
    label: str
    a: Estimate | None
    reason: str = ""
    runs: int

    def to_dict(self) -> dict[str, Any]:
        a = self.a.to_dict() if self.a is not None else None
        return {"group": self.group, "label": self.label, "runs": self.runs, "a": a, "reason": self.reason or None}

    def line(self) -> str:
        """For a reader."""
        return f"{self.group:13}  {self.label:38}  {self.a if self.a is not None else f'not fitted: {self.reason}'}"


def sensitivity(
    runs: RunsLike,
    *,
    curves: CurvesLike = (),
    conventions: Mapping[str, RunTable] | None = None,
    delta: float = 1e-3,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
) -> tuple[Variant, ...]:
    """a by every approach, loss function, selection of runs and convention.

    All but the approaches and the first loss function are variants of Approach 3 with the Huber loss of width `delta`.

    Args:
        runs: the table.
        curves: for Approach 1.
        conventions: the same runs with N, C or the loss taken otherwise, by name.
        delta, resamples, level, seed: as in `fit_parametric`.
    """
    table = as_runs(runs)
    positive("delta", delta)
    check_intervals(resamples, level, seed)
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}

    def variant(group: str, label: str, fit: Callable[[], Estimate | None], used: int) -> Variant:
        try:
            return Variant(group=group, label=label, a=fit(), runs=used)
        except LawError as error:
            return Variant(group=group, label=label, a=None, reason=str(error), runs=used)

    def surface(of: RunTable, **changes: Any) -> Callable[[], Estimate]:
        return lambda: fit_parametric(of, **{"delta": delta, **options, **changes}).a

    found = [
        variant("approach", "1, envelope", lambda: fit_envelope(curves, **options).a, len(table)),
        *_isoflop_variants(table, options),
        variant("approach", "3, parametric surface", surface(table), len(table)),
    ]
    found += [
        variant("loss function", f"Huber, delta = {width:g}", surface(table, delta=width), len(table)) for width in DELTAS
    ]
    for kind, label in (
        ("lad", "absolute log residuals"),
        ("log_mse", "squared log residuals"),
        ("linear_mse", "squared residuals"),
    ):
        found.append(variant("loss function", label, surface(table, objective=kind), len(table)))
    for group, label, part in _selections(table, delta):
        found.append(variant(group, label, surface(part), len(part)))
    for label, other in (conventions or {}).items():
        found.append(variant("convention", label, surface(other), len(other)))
    return tuple(found)


def _isoflop_variants(table: RunTable, options: dict[str, Any]) -> list[Variant]:
    labels: dict[str, Callable[[IsoflopFit], Estimate | None]] = {
        "2, parabolas": lambda fit: fit.a,
        "2, parabolas without their bias": lambda fit: fit.a_corrected,
        "2, local cubics": lambda fit: fit.a_cubic,
    }
    try:
        fit = fit_isoflop(table, **options)
    except LawError as error:
        return [Variant(group="approach", label=label, a=None, reason=str(error), runs=len(table)) for label in labels]
    return [
        Variant(group="approach", label=label, a=a, reason="" if a else "too few profiles, or no surface", runs=len(table))
        for label, pick in labels.items()
        for a in [pick(fit)]
    ]


def _selections(table: RunTable, delta: float) -> Iterator[tuple[str, str, RunTable]]:
    """Parts of the table that leave something out."""
    kept = np.argsort(table.loss, kind="stable")[: len(table) - HIGHEST_LOSSES]
    yield "outliers", f"without the {HIGHEST_LOSSES} highest losses", table.where(np.sort(kept))
    try:
        fit = fit_parametric(table, delta=delta, resamples=0)
        residual = np.log(table.loss / fit.predict(table.N, table.D))
        near = np.abs(residual - np.median(residual)) <= FAR * fit.residual_sd
        if not near.all():
            yield "outliers", f"without the {(~near).sum()} runs beyond {FAR} sd", table.where(near)
    except LawError:
        pass  # there are then no residuals to be far out by
    sizes = np.unique(table.N)
    for share in (0.1, 0.25):
        dropped = max(1, round(share * len(sizes)))
        if dropped < len(sizes):
            yield "sizes", f"without the smallest {dropped} of {len(sizes)}", table.where(table.N >= sizes[dropped])
    budgets = np.unique(table.budget[np.isfinite(table.budget)])
    if len(budgets) > 2:
        for label, budget in (("smallest", budgets[0]), ("largest", budgets[-1])):
            yield "budgets", f"without the {label}", table.where(table.budget != budget)
