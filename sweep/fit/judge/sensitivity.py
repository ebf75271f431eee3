"""How firm the answer is: the exponent a under every other choice that a reader might have made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.fit.approaches import APPROACHES, Laws, Options
from sweep.fit.approaches.envelope import CurvesLike
from sweep.fit.approaches.parametric import fit_parametric
from sweep.fit.result import Estimate, Intervals, Record, Tell, attempt, positive, told
from sweep.tables.curves import as_curves
from sweep.tables.table import RunsLike, RunTable, as_runs

DELTAS = (1e-4, 1e-3, 1e-2, 1e-1)
OBJECTIVES = {"lad": "absolute log residuals", "log_mse": "squared log residuals", "linear_mse": "squared residuals"}
HIGHEST_LOSSES = 5  # dropped by Besiroglu et al. 2024
FAR = 3  # robust standard deviations


@dataclass(frozen=True, kw_only=True)
class Variant(Record):
    """One choice, and the a that it leads to.

    Attributes:
        group: which kind of choice: "approach", "loss function", "outliers", "sizes", "budgets" or "convention".
        label: the choice.
        runs: how many were fitted.
        a: exponent of N_opt; None if it could not be fitted.
        reason: why not.
        law: what was fitted; None if nothing could be.
    """

    group: str
    label: str
    runs: int
    a: Estimate | None
    reason: str | None = None
    law: Any = None

    def to_dict(self) -> dict[str, Any]:
        return self.pick("group", "label", "runs", "a", "reason")

    def line(self) -> str:
        return f"{self.group:13}  {self.label:38}  {self.a if self.a is not None else f'not fitted: {self.reason}'}"


def sensitivity(
    runs: RunsLike,
    *,
    curves: CurvesLike = (),
    conventions: Mapping[str, RunTable] | None = None,
    delta: float = 1e-3,
    intervals: Intervals = Intervals(),
    laws: Laws | None = None,
    tell: Tell | None = None,
) -> tuple[Variant, ...]:
    """a by every approach, loss function, selection of runs and convention.

    All but the approaches and the first loss function are variants of Approach 3 with the Huber loss of width `delta`.

    Args:
        runs: the table.
        curves: for Approach 1.
        conventions: the same runs with N, C or the loss counted otherwise, by name.
        delta: of the Huber loss, as in `fit_parametric`.
        intervals: see `Intervals`.
        laws: of the same runs and curves, fitted before; used if their options are the ones above.
        tell: is told how far this is; see `Tell`.
    """
    positive("delta", delta)
    options = Options(delta=delta, intervals=intervals)
    if laws is None or laws.options != options:
        laws = Laws(runs=as_runs(runs), curves=as_curves(curves), options=options)
    table, base = laws.runs, laws["parametric"]

    def surface(group: str, label: str, of: RunTable, **changes: Any) -> Variant:
        known = changes == {"delta": delta}
        law: Any = base if known else attempt(lambda: fit_parametric(of, **options.surface | changes))
        a, reason = (law.a, None) if law.fitted else (None, law.reason)
        return Variant(group=group, label=label, runs=len(of), a=a, reason=reason, law=law if law.fitted else None)

    choices: list[tuple[str, str, RunTable, dict[str, Any]]] = [
        *(("loss function", f"Huber, delta = {width:g}", table, {"delta": width}) for width in DELTAS),
        *(("loss function", label, table, {"objective": kind}) for kind, label in OBJECTIVES.items()),
        *((group, label, part, {}) for group, label, part in _selections(table, base)),
        *(("convention", label, other, {}) for label, other in (conventions or {}).items()),
    ]
    found = [surface(group, label, of, **changes) for group, label, of, changes in told(tell, "a under other choices", choices)]
    return (*_by_approach(laws), *found)


def _by_approach(laws: Laws) -> Iterator[Variant]:
    """Every estimate of a by every approach."""
    for name, law in laws.items():
        for label, attribute in APPROACHES[name].variants.items():
            a = getattr(law, attribute) if law.fitted else None
            reason = None if a else "too few profiles, or no surface" if law.fitted else law.reason
            numbered = f"{APPROACHES[name].number}, {label}"
            yield Variant(
                group="approach", label=numbered, runs=len(laws.runs), a=a, reason=reason, law=law if law.fitted else None
            )


def _selections(table: RunTable, base: Any) -> Iterator[tuple[str, str, RunTable]]:
    """Parts of the table with some runs left out; `base` is the surface of all."""
    kept = np.argsort(table.loss, kind="stable")[: len(table) - HIGHEST_LOSSES]
    yield "outliers", f"without the {HIGHEST_LOSSES} highest losses", table.where(np.sort(kept))
    if base.fitted:  # without a surface there are no residuals
        residual = np.log(table.loss / base.predict(table.N, table.D))
        near = np.abs(residual - np.median(residual)) <= FAR * base.residual_sd
        if not near.all():
            yield "outliers", f"without the {(~near).sum()} runs beyond {FAR} sd", table.where(near)
    sizes = np.unique(table.N)
    for share in (0.1, 0.25):
        dropped = max(1, round(share * len(sizes)))
        if dropped < len(sizes):
            yield "sizes", f"without the smallest {dropped} of {len(sizes)}", table.where(table.N >= sizes[dropped])
    budgets = np.unique(table.budget[np.isfinite(table.budget)])
    if len(budgets) > 2:
        for label, budget in (("smallest", budgets[0]), ("largest", budgets[-1])):
            yield "budgets", f"without the {label}", table.where(table.budget != budget)
