"""Kaplan against Chinchilla, explained on your own runs: the same table under each convention and protocol.

Kaplan et al. 2020 found N_opt ∝ C^0.73, Hoffmann et al. 2022 C^0.50. Most of the difference is accounting (Porian et al.
2024, arXiv 2406.19146; Pearce and Song 2024, arXiv 2406.12907): whether N counts embeddings, whether C counts the output layer
and attention, and whether losses are read off one long schedule or each run has its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweep.fit.approaches import APPROACHES, Laws, Options
from sweep.fit.approaches.envelope import CurvesLike
from sweep.fit.result import Estimate, Intervals, Record, Tell, told
from sweep.tables.curves import Curve, as_curves
from sweep.tables.table import RunsLike, RunTable, as_runs

AS_RUN, MATCHED, FIXED = "as run", "matched schedules", "one fixed schedule"


@dataclass(frozen=True, kw_only=True)
class ConventionRow(Record):
    """a under one convention and protocol, by one approach.

    Attributes:
        convention: what N and C are.
        protocol: "matched schedules": every loss is the end of its own run's schedule; "one fixed schedule": losses at the same
            N and D, read off the middle of each size's longest run, as Kaplan et al. did; "as run": the final losses of all
            runs.
        approach: its name.
        a: exponent of N_opt in C; None if it could not be fitted, for `reason`.
        runs: points fitted.
    """

    convention: str
    protocol: str
    approach: str
    a: Estimate | None
    reason: str | None = None
    runs: int

    def line(self) -> str:
        value = self.a if self.a is not None else f"not fitted: {self.reason}"
        return f"{self.convention:48}  {self.protocol:18}  {self.approach:10}  {value}"


def compare_conventions(
    tables: Mapping[str, RunsLike],
    curves: CurvesLike = (),
    *,
    delta: float = 1e-3,
    intervals: Intervals = Intervals(),
    tell: Tell | None = None,
) -> tuple[ConventionRow, ...]:
    """a under each convention, by every approach that does not depend on planned budgets; and, where sizes ran to several
    horizons, by the parametric surface on the same (N, D) under either protocol.

    Args:
        tables: the same runs under each convention, as `tables_by_convention` gives them.
        curves: training curves of the runs; their N and FLOPs per token are replaced by those of each table.
        delta: of the Huber loss, as in `fit_parametric`.
        intervals: see `Intervals`.
        tell: is told how far this is; see `Tell`.
    """
    options = Options(delta=delta, intervals=intervals)
    rows = []
    for convention, given in told(tell, "a under other conventions", list(tables.items())):
        table = as_runs(given)
        own = _recount(as_curves(curves), table)
        chosen = [approach for approach in reversed(APPROACHES.values()) if approach.by_convention]
        tried = [
            (AS_RUN, approach, table, len(own) if approach.reads_curves else len(table))
            for approach in chosen
            if own or not approach.reads_curves
        ]
        for protocol, points in by_protocol(table, own).items():
            tried += [(protocol, approach, points, len(points)) for approach in chosen if approach.has_surface]
        for protocol, approach, points, used in tried:
            law = Laws(runs=points, curves=own, options=options)[approach.name]
            a, reason = (law.a, None) if law.fitted else (None, law.reason)
            labels = {"convention": convention, "protocol": protocol, "approach": approach.name}
            rows.append(ConventionRow(**labels, a=a, reason=reason, runs=used))
    return tuple(rows)


def by_protocol(table: RunTable, curves: Sequence[Curve]) -> dict[str, RunTable]:
    """Training losses at the (N, D) of all sizes that ran to several horizons, by either protocol; empty if there are none.

    Only the losses differ: that at the end of the run planned for D, or that of the same size's longest run at D.
    """
    ends = {curve.run_id: curve for curve in curves}
    chosen, matched, fixed = [], [], []
    for N in np.unique(table.N):
        own = [i for i in np.flatnonzero(table.N == N) if str(table.run_id[i]) in ends]
        if len(np.unique(table.D[own])) < 2:
            continue
        longest = ends[str(table.run_id[max(own, key=lambda i: table.D[i])])]
        for i in own:
            chosen.append(i)
            matched.append(float(ends[str(table.run_id[i])].loss[-1]))
            fixed.append(float(np.exp(np.interp(np.log(table.D[i]), np.log(longest.tokens), np.log(longest.loss)))))
    if not chosen:
        return {}
    part = table.where(np.array(chosen))
    return {MATCHED: replace(part, loss=np.array(matched)), FIXED: replace(part, loss=np.array(fixed))}


def _recount(curves: Sequence[Curve], table: RunTable) -> list[Curve]:
    """The curves of the table's runs, with N and FLOPs per token as the table counts them."""
    row = {str(run_id): i for i, run_id in enumerate(table.run_id)}
    known = [(curve, row[curve.run_id]) for curve in curves if curve.run_id in row]
    return [replace(curve, N=float(table.N[i]), flops_per_token=float(table.C[i] / table.D[i])) for curve, i in known]
