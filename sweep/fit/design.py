"""What to run next: the runs that tell most about a target for the FLOPs that are left."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.parametric import ParametricFit
from sweep.fit.information import Belief, expected_sd, surfaces_of
from sweep.fit.questions.expectation import Expectation, expectation
from sweep.fit.result import positive
from sweep.fit.surface import Surface
from sweep.tables.table import RunsLike, RunTable, as_runs
from sweep.words import counted

TARGETS = ("a", "loss")
SAME_RUN = 0.05  # in log N and log D: a candidate nearer than this to a run is the same run
MIN_RESAMPLES = 50  # to estimate a spread
MAX_PASSES = 10


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """The runs to train next.

    Attributes:
        N, D: of each, shape (runs,), the most useful first.
        C: FLOPs of each, shape (runs,).
        target: what they were chosen for.
        sd_before, sd_after: standard deviation of the target, now and with the new runs, if they scatter as the present ones
            do.
        now, then: what the present runs tell about a on the fit's surface, and what they tell with the new ones.
    """

    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    target: str
    sd_before: float
    sd_after: float
    now: Expectation
    then: Expectation

    def to_dict(self) -> dict[str, Any]:
        runs = [{"N": float(N), "D": float(D), "C": float(C)} for N, D, C in zip(self.N, self.D, self.C, strict=True)]
        spread = {"sd_before": self.sd_before, "sd_after": self.sd_after}
        return {"target": self.target, **spread, "now": self.now.to_dict(), "then": self.then.to_dict(), "runs": runs}

    def summary(self) -> str:
        spread = f"{self.target} goes from {self.sd_before:.4f} to {self.sd_after:.4f}"
        lines = [f"{counted(len(self.N), 'run')} of {self.C.sum():.3g} FLOPs: the standard deviation of {spread}"]
        for N, D, C in zip(self.N, self.D, self.C, strict=True):
            lines.append(f"  N = {N:.4g}, D = {D:.4g} ({D / N:.3g} tokens per parameter, {C:.3g} FLOPs)")
        return "\n".join([*lines, f"now:  {self.now.line()}", f"then: {self.then.line()}"])

    def grid(self, earlier: Sequence[Mapping[str, Any]] = (), scale: int = 1) -> str:
        """A file for conf/grid/, in Hydra's YAML: the `earlier` runs of that grid, then these, over the square of `scale`."""
        own = (f"{{N: {N / scale**2:.8g}, D: {D / scale**2:.8g}}}" for N, D in zip(self.N, self.D, strict=True))
        rows = "".join(f"  - {run}\n" for run in (*map(json.dumps, earlier), *own))
        sd = f"from {self.sd_before:.4f} to {self.sd_after:.4f}"
        chosen = f"of {self.C.sum():.3g} FLOPs, were chosen to shrink the standard deviation of {self.target} {sd}"
        return f"# The last {len(self.N)} runs, {chosen}.\nruns:\n{rows}"


def next_runs(
    fit: ParametricFit,
    runs: RunsLike,
    *,
    flops: float,
    target: str = "a",
    target_C: float | None = None,
    sizes: Sequence[float] | None = None,
    most: int = 20,
    most_tokens: float = np.inf,
    reach: float = 4.0,
    candidates: int = 24,
) -> NextRuns:
    """Choose runs within an allowance.

    Candidates span the sizes and the tokens per parameter of the present runs. None is cheaper than the cheapest present run,
    below which the surface may not hold, and none costs more than `reach` times the largest. Candidates are added one by one,
    once by how much each reduces the log of the target's variance and once by the same per FLOP; each result is then improved
    by single exchanges, and the better one is returned.
    The best runs for one surface need not be the best for another, so gains are means over the fit's surface and some of its
    replicates.

    Args:
        fit: of the present runs; its surface and replicates are what is believed.
        runs: the present runs.
        flops: allowance for all new runs together.
        target: "a", the exponent of N_opt; or "loss", the frontier's loss at `target_C` FLOPs.
        sizes: the N to choose from, such as a ladder's; log-spaced ones if left out.
        most: how many runs at most.
        most_tokens: the longest horizon that the data allow.
        reach: the largest C of a new run over the largest present one.
        candidates: how many log-spaced sizes, and ratios of D to N, to consider.

    Raises:
        LawError: "bad_option" if an option is out of range, "too_small" if no candidate fits the allowance.
    """
    runs = as_runs(runs)
    if target not in TARGETS:
        raise LawError("bad_option", f"target={target!r} is none of {', '.join(TARGETS)}")
    if (target == "loss") != (target_C is not None):
        raise LawError("bad_option", "target_C is the budget for target='loss'; give both or neither")
    options = {"flops": flops, "target_C": target_C or 1, "most": most, "reach": reach, "sizes": sizes or [1]}
    for name, value in options.items():
        positive(name, value)
    N, D = _candidates(fit.surface, runs, sizes, candidates, min(flops, reach * runs.C.max()), most_tokens)
    if not len(N):
        cheapest = f"the smallest present one took {runs.C.min():.3g}"
        raise LawError("too_small", f"an allowance of {flops:.3g} FLOPs buys no run; {cheapest}: raise it")
    C = np.asarray(fit.surface.compute.flops(N, D))
    sd = _error(fit, runs)
    if target == "a" and (fit.free[3] == fit.free[4]).all():
        reason = "a is 0.5 by construction where alpha = beta, whatever is run: fit without tied, or choose target='loss'"
        raise LawError("bad_option", reason)
    believed = [Belief(surface, fit.free, runs, N, D, sd, target, target_C) for surface in surfaces_of(fit)]
    plans = [_greedy(believed, C, flops, most, per_flop=per_flop) for per_flop in (False, True)]
    plans = [_exchange(believed, C, flops, plan) for plan in plans]
    chosen = min(plans, key=lambda plan: _mean_log_variance(believed, plan))
    assumed = f"the fit's surface, and runs that tell as much as log losses of {100 * sd:.2g} % scatter"
    now, then = (
        expectation(sizes, tokens, fit.surface, sd=sd, free=fit.free, level=fit.level, assumed=assumed)
        for sizes, tokens in ((runs.N, runs.D), (np.append(runs.N, N[chosen]), np.append(runs.D, D[chosen])))
    )
    return NextRuns(
        N=N[chosen],
        D=D[chosen],
        C=C[chosen],
        target="a" if target_C is None else f"the loss at {target_C:.3g} FLOPs",
        sd_before=believed[0].variance() ** 0.5,
        sd_after=believed[0].variance(chosen) ** 0.5,
        now=now,
        then=then,
    )


def _error(fit: ParametricFit, runs: RunTable) -> float:
    """The error of one run's log L as a measurement: the standard deviation for which the Fisher information gives `a` the
    spread of its bootstrap. Unlike that of the residuals, it includes the fit's inefficiency and the residuals' tails."""
    sd = max(fit.residual_sd, 1e-6)
    drawn = fit.replicates.a[np.isfinite(fit.replicates.a)]
    if len(drawn) < MIN_RESAMPLES:
        return sd
    low, high = np.quantile(drawn, [0.16, 0.84])
    return float(sd * (high - low) / 2 / expected_sd(fit.surface, runs.N, runs.D, sd=sd, free=fit.free)) or sd


def _candidates(
    surface: Surface, runs: RunTable, sizes: Sequence[float] | None, count: int, largest: float, most_tokens: float
) -> tuple[np.ndarray, np.ndarray]:
    if sizes is None:
        # As far beyond the largest size as the largest C goes beyond the present one.
        sizes = np.geomspace(runs.N.min(), runs.N.max() * max(1.0, largest / runs.C.max()) ** 0.5, count).tolist()
    ratio = runs.D / runs.N
    N, per_parameter = (
        grid.ravel() for grid in np.meshgrid(np.asarray(sizes, dtype=float), np.geomspace(ratio.min(), ratio.max(), count))
    )
    D = per_parameter * N
    C = np.asarray(surface.compute.flops(N, D))
    near = (np.abs(np.log(N[:, None] / runs.N)) < SAME_RUN) & (np.abs(np.log(D[:, None] / runs.D)) < SAME_RUN)
    keep = (C <= largest) & (C >= runs.C.min() * 0.99) & (D <= most_tokens) & ~near.any(axis=1)
    keep &= N >= 0.99 * runs.N.min()
    return N[keep], D[keep]


def _greedy(believed: Sequence[Belief], C: np.ndarray, flops: float, most: int, *, per_flop: bool) -> list[int]:
    """Indices of candidates, added one by one while they fit the allowance, each at most once."""
    left = flops
    free = np.ones(len(C), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < most and (free & (left >= C)).any():
        gain = np.mean([belief.gains(belief.with_runs(chosen)) for belief in believed], axis=0)
        best = int(np.where(free & (left >= C), gain / C if per_flop else gain, -1.0).argmax())
        chosen.append(best)
        free[best], left = False, left - C[best]
    return chosen


def _exchange(believed: Sequence[Belief], C: np.ndarray, flops: float, chosen: list[int]) -> list[int]:
    """`chosen` with single candidates exchanged for others while that helps and fits (Fedorov 1972): the greedy choice spends
    too much on its first runs."""
    for _ in range(MAX_PASSES):
        before = list(chosen)
        for place in range(len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            gain = np.mean([belief.gains(belief.with_runs(rest)) for belief in believed], axis=0)
            gain[(C > flops - C[rest].sum()) | np.isin(np.arange(len(C)), rest)] = -1.0
            chosen = [*chosen[:place], int(gain.argmax()), *chosen[place + 1 :]]
        if chosen == before:
            break
    return chosen


def _mean_log_variance(believed: Sequence[Belief], chosen: Sequence[int]) -> float:
    return float(np.mean([np.log(belief.variance(chosen)) for belief in believed]))
