"""What follows from the laws of Kaplan et al. 2020 (arXiv 2001.08361): the best use of compute, and where the laws collide."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from sweep.errors import LawError
from sweep.fit.bootstrap import resample_counts
from sweep.fit.kaplan.fits import fit_scale_law
from sweep.fit.kaplan.laws import PF_DAY, Contradiction, CriticalBatch, OptimalExponents, contradiction, optimal_exponents
from sweep.fit.kaplan.table import unbeaten
from sweep.fit.result import NO_INTERVALS, Estimate, Intervals, PowerLaw, Record, Refused, attempt
from sweep.tables.table import RunTable

NO_BATCH_LAW = (
    "B_crit(L) is not known; measure it (isosweep launch experiment=kaplan_batch) and give "
    "fit.critical_batch={B_star: …, alpha_B: …}"
)


@dataclass(frozen=True, kw_only=True)
class Optimum(Record):
    """Exponents of C_min along the compute-efficient frontier, as `OptimalExponents` has them. Intervals are those of L(N, S);
    alpha_B is taken as exact."""

    fitted: ClassVar[bool] = True
    alpha_C: Estimate
    N: Estimate
    B: Estimate
    S: Estimate
    D: Estimate

    def summary(self) -> str:
        grown = ", ".join(f"{name} as C^{getattr(self, name)}" for name in ("N", "B", "S"))
        return f"{grown}; the loss falls as C^-{self.alpha_C}"


@dataclass(frozen=True, kw_only=True)
class Meeting(Record):
    """Where L(C) falls below L(D) of the data that its optimum uses: C in FLOPs, N, D in tokens, the loss, and C over the
    largest C of the runs."""

    fitted: ClassVar[bool] = True
    C: Estimate
    N: Estimate
    D: Estimate
    loss: Estimate
    beyond: float

    def summary(self) -> str:
        where = f"C = {self.C} FLOPs, N = {self.N}, D = {self.D}, loss {self.loss}"
        return f"{where}, at {self.beyond:.3g} times the largest C of the runs"


@dataclass(frozen=True, kw_only=True)
class Follows(Record):
    """The optimum by L(N, S_min) and B_crit(L) (equations 6.4, 6.5, B.7 to B.10), and where the laws contradict each other
    (section 6.3); or why there is none."""

    optimum: Optimum | Refused
    meeting: Meeting | Refused

    def lines(self, a: Any, *, full: bool) -> list[str]:
        """What is printed: all of it, or only what there is. `a` is the exponent of N that was measured, or None."""
        lines = []
        if full or self.optimum.fitted:
            beside = f"; measured, a = {a}" if a is not None and self.optimum.fitted else ""
            lines.append(f"  by L(N, S_min) and B_crit(L): {self.optimum.summary()}{beside}")
        if full or self.meeting.fitted:
            lines.append(f"  L(C) falls below L(D) of its own data: {self.meeting.summary()}")
        return ["What follows from Kaplan's laws", *lines] if lines else []


def what_follows(
    runs: RunTable,
    laws: Mapping[str, Any],
    *,
    critical_batch: CriticalBatch | None = None,
    intervals: Intervals = Intervals(),
) -> Follows:
    """What follows from the laws that `fit_kaplan` fitted to `runs`, with its other arguments."""
    return Follows(
        optimum=attempt(lambda: _optimum(laws["L_NS"], critical_batch)),
        meeting=attempt(lambda: _meeting(runs, laws, intervals)),
    )


def _optimum(steps: Any, critical_batch: CriticalBatch | None) -> Optimum:
    """Raises LawError if L(N, S) is not fitted or B_crit(L) not known."""
    if not steps.fitted:
        raise LawError(steps.status, f"L(N, S) is not fitted: {steps.reason}")
    if critical_batch is None:
        raise LawError("no_critical_batch", NO_BATCH_LAW)

    def exponents(alpha_N: float, alpha_S: float) -> list[float]:
        return list(asdict(optimal_exponents(alpha_N, alpha_S, critical_batch.alpha_B)).values())

    value = exponents(steps.law.alpha_N, steps.law.alpha_S)
    replicas = np.array([exponents(*row) for row in steps.replicas[:, 2:]]).reshape(-1, len(value))
    names = [each.name for each in fields(OptimalExponents)]
    estimates = {name: Estimate.from_resamples(value[i], replicas[:, i], steps.level) for i, name in enumerate(names)}
    return Optimum(**estimates)


def _meeting(runs: RunTable, laws: Mapping[str, Any], intervals: Intervals) -> Meeting:
    """Raises LawError if L(C) or L(D) is not fitted, they never meet, or they meet among the runs."""
    for name in ("L_C", "L_D"):
        if not laws[name].fitted:
            raise LawError(laws[name].status, f"{name[0]}({name[2]}) is not fitted: {laws[name].reason}")
    found, largest = _collide(runs), float(runs.C.max())
    if found.C * PF_DAY <= largest:
        where = f"L(C) and L(D) meet at C = {found.C * PF_DAY:.3g}, among the runs, which reach {largest:.3g} and obey both"
        raise LawError("among_the_runs", f"{where}: in L(D) more than data was scarce; add larger models at the same D")
    resampled = np.full((intervals.resamples, 4), np.nan)
    for row, counts in zip(resampled, resample_counts(len(runs), intervals.resamples, seed=intervals.seed), strict=True):
        try:
            row[:] = list(asdict(_collide(runs.where(np.repeat(np.arange(len(runs)), counts.astype(int))))).values())
        except LawError as error:
            if error.status == "never_meet":
                row[:] = np.inf, np.inf, np.inf, 0.0
    if (apart := np.isinf(resampled[:, 0]).mean() if len(resampled) else 0.0) > (1 - intervals.level) / 2:
        reason = f"{apart:.0%} of resamples have laws that never meet, or beyond all numbers: add runs, or widen their range"
        raise LawError("unidentified", reason)
    values, resampled[:, 0] = asdict(found), resampled[:, 0] * PF_DAY
    values["C"] *= PF_DAY
    level = intervals.level
    estimates = {name: Estimate.from_resamples(values[name], resampled[:, i], level) for i, name in enumerate(values)}
    return Meeting(**estimates, beyond=values["C"] / largest)


def _collide(runs: RunTable) -> Contradiction:
    """The point of section 6.3, by power laws through unbeaten runs: L(D), and the loss, N and D of the best run at each C.
    Raises LawError if one cannot be fitted or they never meet."""
    of_C, of_D = unbeaten(runs.C, runs.loss), unbeaten(runs.D, runs.loss)
    C = runs.C[of_C] / PF_DAY
    L_C = fit_scale_law(C, runs.loss[of_C], intervals=NO_INTERVALS).law
    L_D = fit_scale_law(runs.D[of_D], runs.loss[of_D], intervals=NO_INTERVALS).law
    with np.errstate(over="ignore"):  # laws that are almost parallel
        return contradiction(L_C=L_C, L_D=L_D, N_of_C=_growth(C, runs.N[of_C]), D_of_C=_growth(C, runs.D[of_C]))


def _growth(C: np.ndarray, y: np.ndarray) -> PowerLaw:
    """y = k C^p by least squares in logs."""
    slope, intercept = np.polyfit(np.log(C), np.log(y), 1)
    return PowerLaw(coefficient=float(np.exp(intercept)), exponent=float(slope))
