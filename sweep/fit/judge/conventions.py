"""Kaplan against Chinchilla, explained on one's own runs: the same table under each convention and protocol.

Kaplan et al. 2020 found N_opt ∝ C^0.73, Hoffmann et al. 2022 C^0.50. Most of the way between them is accounting (Porian et al.
2024, arXiv 2406.19146; Pearce and Song 2024, arXiv 2406.12907): whether N counts embeddings, whether C counts the output layer
and attention, and whether losses are read off one long schedule or each run has its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.envelope import fit_envelope
from sweep.fit.approaches.parametric import ParametricFit, fit_parametric
from sweep.fit.result import Estimate
from sweep.fit.surface import Compute
from sweep.tables.curves import Curve
from sweep.tables.table import RunsLike, RunTable, as_runs

AS_RUN, MATCHED, FIXED = "as run", "matched schedules", "one fixed schedule"


@dataclass(frozen=True, kw_only=True)
class ConventionRow:
    """a under one convention and protocol, by one approach.

    Attributes:
        convention: what N and C are.
        protocol: "matched schedules": every loss is the end of its own run's schedule; "one fixed schedule": losses at the same
            N and D, read off the middle of each size's longest run, as Kaplan et al. did; "as run" for all runs' final losses.
        approach: "envelope" or "parametric".
        a: exponent of N_opt in C; None if it could not be fitted, for `reason`.
        runs: points fitted.
    """

    convention: str
    protocol: str
    approach: str
    a: Estimate | None
    reason: str = ""
    runs: int

    def to_dict(self) -> dict[str, Any]:
        a = self.a.to_dict() if self.a is not None else None
        return {**vars(self), "a": a, "reason": self.reason or None}

    def line(self) -> str:
        """For a reader."""
        value = self.a if self.a is not None else f"not fitted: {self.reason}"
        return f"{self.convention:48}  {self.protocol:18}  {self.approach:10}  {value}"


def compare_conventions(
    tables: Mapping[str, RunsLike],
    curves: Sequence[Curve] = (),
    *,
    delta: float = 1e-3,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
) -> tuple[ConventionRow, ...]:
    """a under each convention: Approach 3 as the runs are, Approach 1 from their curves, and where sizes ran to several
    horizons, Approach 3 on the same (N, D) by either protocol.

    Args:
        tables: the same runs under each convention, as `tables_by_convention` gives them.
        curves: training curves of the runs; whose N and FLOPs per token they carry does not matter.
        delta, resamples, level, seed: as in `fit_parametric`.
    """
    options: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    surfaces: dict[tuple[str, bytes], ParametricFit | LawError] = {}

    def parametric(protocol: str, table: RunTable) -> tuple[Estimate | None, str]:
        # Two conventions with one N have one surface; only what C costs differs.
        key = (protocol, b"".join(column.tobytes() for column in (table.N, table.D, table.loss)))
        if key not in surfaces:
            try:
                surfaces[key] = fit_parametric(replace(table, C=6 * table.N * table.D), delta=delta, **options)
            except LawError as error:
                surfaces[key] = error
        fit = surfaces[key]
        if isinstance(fit, LawError):
            return None, str(fit)
        try:
            return fit.counted(Compute.of_runs(table.N, table.D, table.C)).a, ""
        except LawError as error:
            return None, str(error)

    found = []
    for name, table in ((name, as_runs(given)) for name, given in tables.items()):
        found.append((name, AS_RUN, "parametric", len(table), *parametric(AS_RUN, table)))
        own = _recount(curves, table)
        if own:
            found.append((name, AS_RUN, "envelope", len(own), *_envelope(own, options)))
        for protocol, points in by_protocol(table, own).items():
            found.append((name, protocol, "parametric", len(points), *parametric(protocol, points)))
    return tuple(
        ConventionRow(convention=name, protocol=protocol, approach=approach, a=a, reason=reason, runs=runs)
        for name, protocol, approach, runs, a, reason in found
    )


def _envelope(curves: Sequence[Curve], options: dict[str, Any]) -> tuple[Estimate | None, str]:
    try:
        return fit_envelope(curves, **options).a, ""
    except LawError as error:
        return None, str(error)


def by_protocol(table: RunTable, curves: Sequence[Curve]) -> dict[str, RunTable]:
    """Training losses at the (N, D) of all sizes that ran to several horizons, by either protocol; empty if there are none.

    Only the losses differ: the end of the run that was planned for D, or the same size's longest run read off at D.
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
    """The curves with N and FLOPs per token as the table counts them; those of no run of it are left out."""
    counts = {
        str(name): (float(N), float(C / D)) for name, N, D, C in zip(table.run_id, table.N, table.D, table.C, strict=True)
    }
    return [
        replace(curve, N=counts[curve.run_id][0], flops_per_token=counts[curve.run_id][1])
        for curve in curves
        if curve.run_id in counts
    ]
