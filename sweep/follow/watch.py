"""A running sweep: its speed, the time left, and the IsoFLOP minima as they form.

Each look reads little: of a run in training its status and a few rows of throughput.jsonl, which has one per logging interval;
of a finished run nothing after the first look. Files may be half written.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models import count_parameters, flops_per_token
from sweep.config import FitConfig
from sweep.fit import NO_INTERVALS, Estimate, LawError, fit_isoflop
from sweep.fit.approaches.profile import Profile, fit_profile
from sweep.follow.status import Overview, RunView, overview
from sweep.plan.written import SweepPlan
from sweep.store import Store, states

POINTS = 24  # of a curve
ROW_BYTES = 512  # more than the longest row of throughput.jsonl


@dataclass(frozen=True, kw_only=True)
class Valley:
    """The runs of one budget so far.

    Attributes:
        budget: planned FLOPs.
        losses: held-out loss of every size planned for it, N ascending; None for runs that are not done.
        profile: the parabola through the runs that are done.
    """

    budget: float
    losses: tuple[float | None, ...]
    profile: Profile


@dataclass(frozen=True, kw_only=True)
class Snapshot(Overview):
    """The sweep at one moment.

    Attributes:
        curves: losses at log-spaced steps of the runs in training, by run_id.
        valleys: one for each budget.
        a: the exponent of N_opt in C through the minima so far; None if there are too few.
    """

    curves: dict[str, tuple[float, ...]]
    valleys: tuple[Valley, ...]
    a: Estimate | None

    @property
    def over(self) -> bool:
        """Whether all runs are done, failed or diverged."""
        return all(view.state in (*states.FINAL_STATES, states.FAILED) for view in self.runs)


class Watcher:
    """Takes snapshots of a sweep, and reads only files that can have changed."""

    def __init__(self, plan: SweepPlan, store: Store, fit: FitConfig) -> None:
        self.plan, self.planned, self.store, self.fit = plan, plan.runs, store, fit
        self.final: dict[str, RunView] = {}
        self.losses: dict[str, float] = {}  # held-out, of the runs that are done
        self._count()

    def look(self) -> Snapshot:
        """A snapshot of the sweep."""
        left = [p for p in self.planned if p.run.run_id not in self.final]
        fresh = {view.planned.run.run_id: view for view in overview(left, self.store, self.speed).runs}
        ended = {run_id: view for run_id, view in fresh.items() if view.state in states.FINAL_STATES}
        if ended:
            self.final |= ended
            self.losses |= {run_id: view.val_loss for run_id, view in ended.items() if view.val_loss is not None}
            self._count()
        rows = {
            run_id: sample_rows(self.store.run(run_id).throughput)
            for run_id, view in fresh.items()
            if view.state == states.RUNNING
        }
        runs = tuple(self.final.get(p.run.run_id) or fresh[p.run.run_id] for p in self.planned)
        return Snapshot(
            runs=runs,
            curves={run_id: tuple(row["loss"] for row in found if "loss" in row) for run_id, found in rows.items()},
            valleys=self.valleys,
            a=self.a,
        )

    def _count(self) -> None:
        """Update the speed and the valleys after runs have ended."""
        runs = [planned.run for planned in self.planned]
        self.speed = self.store.speed_seen(
            runs, self.plan.device, self.plan.config.data.validation_tokens, self.plan.config.cluster.threads
        )
        valleys = [self._valley(budget) for budget in sorted({p.budget for p in self.planned if p.budget})]
        profiles, self.a = _fitted([valley.profile for valley in valleys])
        self.valleys = tuple(replace(valley, profile=profile) for valley, profile in zip(valleys, profiles, strict=True))

    def _valley(self, budget: float) -> Valley:
        fit = self.fit
        planned = [p.run for p in self.planned if p.budget == budget and p.label == self.plan.labels[0]]
        sizes = {run.run_id: count_parameters(run.model).by_convention(fit.parameters) for run in planned}
        planned.sort(key=lambda run: sizes[run.run_id])
        done = [run for run in planned if run.run_id in self.losses]
        D = np.array([run.D for run in done], dtype=float)
        per_token = np.array([flops_per_token(run.model, fit.flops) for run in done])
        N, loss = (np.array([of[run.run_id] for run in done], dtype=float) for of in (sizes, self.losses))
        return Valley(
            budget=budget,
            losses=tuple(self.losses.get(run.run_id) for run in planned),
            profile=fit_profile(budget, N, D, per_token * D, loss),
        )


def _fitted(profiles: Sequence[Profile]) -> tuple[Sequence[Profile], Estimate | None]:
    """The profiles as Approach 2 fits them together, and a through their minima; None if these are too few, or show no law."""
    runs = [profile for profile in profiles if len(profile.N)]
    if not runs:
        return profiles, None
    columns = {name: np.concatenate([getattr(profile, name) for profile in runs]) for name in ("N", "D", "C", "loss")}
    columns["budget"] = np.concatenate([np.full(len(profile.N), profile.budget) for profile in runs])
    try:
        fit = fit_isoflop(columns, intervals=NO_INTERVALS)
    except LawError as error:
        found, a = getattr(error, "profiles", ()), None
    else:
        found, a = fit.profiles, fit.a
    known = {profile.budget: profile for profile in found}
    return [known.get(profile.budget, profile) for profile in profiles], a


def sample_rows(path: Path, points: int = POINTS) -> list[dict[str, Any]]:
    """Rows at log-spaced places of a growing file of JSON lines, including the last whole row, with one short read each.

    Where steps were repeated after a resume from a checkpoint, the rows of the later pass are returned, in order.
    """
    found: list[dict[str, Any]] = []
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            for place in dict.fromkeys(np.geomspace(ROW_BYTES / 4, max(size, ROW_BYTES), points).astype(int).tolist()):
                start = max(0, min(place, size) - ROW_BYTES)
                file.seek(start)
                lines = file.read(min(place, size) - start).split(b"\n")[0 if start == 0 else 1 : -1]
                with suppress(ValueError):  # half a line that a full disk left
                    found += [json.loads(lines[-1])] if lines else []
    except OSError:
        return []
    kept: list[dict[str, Any]] = []
    for row in reversed(found):
        if not kept or row["step"] < kept[-1]["step"]:
            kept.append(row)
    return kept[::-1]
