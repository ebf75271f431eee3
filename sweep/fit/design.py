"""What to run next: the runs that tell most about a target for the FLOPs that are left.

For independent errors of log L of one size, runs with gradients J_i of log L in the surface's constants hold the information
M = sum_i J_i J_i' / sd^2, and a target with gradient g has the variance g' M^-1 g: what c-optimal design minimises (Atkinson,
Donev and Tobias 2007, chapter 10). It needs no losses, so runs can be judged before they are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.parametric import ParametricFit
from sweep.fit.result import positive
from sweep.fit.solver.newton import EVERYTHING
from sweep.fit.surface import Surface
from sweep.tables.table import RunsLike, RunTable, as_runs

TARGETS = ("a", "loss")
SAME_RUN = 0.05  # in log N and log D: nearer than this to a run, a new one is the same
ENOUGH_RESAMPLES = 50  # to know a spread by
BELIEFS, PASSES = 16, 10
STEPS = 1e-5  # of the central differences in log-constants and exponents


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """The runs to make.

    Attributes:
        N, D: of each, shape (runs,), in the order in which they pay.
        C: FLOPs of each.
        target: what they were chosen for.
        sd_before, sd_after: standard deviation of the target, now and with them, if they scatter as the present ones do.
    """

    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    target: str
    sd_before: float
    sd_after: float

    def to_dict(self) -> dict[str, Any]:
        runs = [{"N": float(N), "D": float(D), "C": float(C)} for N, D, C in zip(self.N, self.D, self.C, strict=True)]
        return {"target": self.target, "sd_before": self.sd_before, "sd_after": self.sd_after, "runs": runs}

    def summary(self) -> str:
        """For a reader."""
        lines = [
            f"{len(self.N)} runs of {self.C.sum():.3g} FLOPs take the standard deviation of {self.target} from "
            f"{self.sd_before:.4f} to {self.sd_after:.4f}"
        ]
        lines += [
            f"  N = {N:.4g}, D = {D:.4g} ({D / N:.3g} tokens per parameter, {C:.3g} FLOPs)"
            for N, D, C in zip(self.N, self.D, self.C, strict=True)
        ]
        return "\n".join(lines)

    def grid(self, earlier: Sequence[tuple[float, float]] = ()) -> str:
        """The runs, after the (N, D) of `earlier` ones, as a file for conf/grid/, in Hydra's YAML."""
        named = [*earlier, *zip(self.N, self.D, strict=True)]
        rows = "".join(f"  - {{N: {N:.8g}, D: {D:.8g}}}\n" for N, D in named)
        return (
            f"# The last {len(self.N)} runs, of {self.C.sum():.3g} FLOPs, were chosen to shrink the standard deviation of "
            f"{self.target} from {self.sd_before:.4f} to {self.sd_after:.4f}.\nruns:\n{rows}"
        )


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

    Candidates span the sizes and the tokens per parameter of the present runs; none is cheaper than the cheapest there is,
    below which the surface may not hold, and none costs more than `reach` times the largest. They are taken one by one, in two
    ways: by what each takes off the log of the target's variance, and by the same per FLOP; then replaced one by one while that
    helps. The better result is returned.
    What is best on one surface need not be on another, so gains are means over the fit's surface and some of its replicates.

    Args:
        fit: of the present runs; its surface and replicates are what is believed.
        runs: the present runs.
        flops: allowance for all new runs together.
        target: "a", the exponent of N_opt; or "loss", the frontier's loss at `target_C`.
        sizes: N that exist, such as a ladder's; log-spaced ones if left out.
        most: how many runs at most.
        most_tokens: the longest horizon that the data allow.
        reach, candidates: how far beyond the present C, and how many log-spaced sizes and ratios to consider.

    Raises:
        LawError: if an option is out of range, or no candidate fits the allowance.
    """
    runs = as_runs(runs)
    if target not in TARGETS:
        raise LawError("bad_option", f"target={target!r} is none of {', '.join(TARGETS)}")
    if (target == "loss") != (target_C is not None):
        raise LawError("bad_option", "target_C is the budget for target='loss'; give both or neither")
    for name, value in (
        ("flops", flops),
        ("target_C", target_C or 1),
        ("most", most),
        ("reach", reach),
        ("sizes", sizes or [1]),
    ):
        positive(name, value)
    N, D = _candidates(fit.surface, runs, sizes, candidates, min(flops, reach * runs.C.max()), most_tokens)
    if not len(N):
        cheapest = runs.C.min()
        raise LawError(
            "too_small",
            f"an allowance of {flops:.3g} FLOPs buys no run; the smallest present one took {cheapest:.3g}: raise it",
        )
    C = np.asarray(fit.surface.compute.flops(N, D))
    sd = _error(fit, runs)
    believed = [_Belief(surface, fit.free, runs, N, D, sd, target, target_C) for surface in _surfaces(fit)]
    plans = [_greedy(believed, C, flops, most, per_flop=per_flop) for per_flop in (False, True)]
    plans = [_exchange(believed, C, flops, plan) for plan in plans]
    chosen = min(plans, key=lambda plan: _mean_log_variance(believed, plan))
    before, after = believed[0].variance(), believed[0].variance(chosen)
    return NextRuns(
        N=N[chosen],
        D=D[chosen],
        C=C[chosen],
        target="a" if target_C is None else f"the loss at {target_C:.3g} FLOPs",
        sd_before=float(np.sqrt(before)),
        sd_after=float(np.sqrt(after)),
    )


def expected_sd(
    surface: Surface,
    N: np.ndarray,
    D: np.ndarray,
    *,
    sd: float,
    target: str = "a",
    target_C: float | None = None,
    free: np.ndarray = EVERYTHING,
) -> float:
    """Standard deviation of the target after runs at (N, D) whose log L scatters by `sd`, by the Fisher information about the
    constants in the `free` directions."""
    J = _gradients(surface, N, D) @ free / sd
    g = _target_gradient(surface, target, target_C) @ free
    return float(np.sqrt(g @ np.linalg.inv(J.T @ J) @ g))


def _error(fit: ParametricFit, runs: RunTable) -> float:
    """What one run's log L is worth as a measurement: the standard deviation that, by the Fisher information, gives `a` the
    spread of its bootstrap. It holds the fit's inefficiency and the residuals' tails, which their own deviation does not."""
    sd = max(fit.residual_sd, 1e-6)
    drawn = fit.replicates.a[np.isfinite(fit.replicates.a)]
    if len(drawn) < ENOUGH_RESAMPLES:
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


def _surfaces(fit: ParametricFit) -> list[Surface]:
    """The fit's surface, and up to `BELIEFS` - 1 of its replicates that are surfaces too."""
    constants = {name: getattr(fit.replicates, name) for name in ("E", "A", "B", "alpha", "beta")}
    sound = np.isfinite(np.stack(list(constants.values()))).all(axis=0)
    sound &= (np.minimum(constants["alpha"], constants["beta"]) > 0.05) & (
        np.maximum(constants["alpha"], constants["beta"]) < 2
    )
    chosen = np.flatnonzero(sound)[: BELIEFS - 1]
    others = [
        Surface(**{name: float(values[i]) for name, values in constants.items()}, compute=fit.surface.compute) for i in chosen
    ]
    return [fit.surface, *others]


class _Belief:
    """One surface that may be true: what the runs tell about its constants, and what candidates would."""

    def __init__(
        self,
        surface: Surface,
        free: np.ndarray,
        runs: RunTable,
        N: np.ndarray,
        D: np.ndarray,
        sd: float,
        target: str,
        target_C: float | None,
    ) -> None:
        present = _gradients(surface, runs.N, runs.D) @ free / sd
        self.information = present.T @ present
        self.g = _target_gradient(surface, target, target_C) @ free
        self.J = _gradients(surface, N, D) @ free / sd

    def variance(self, chosen: Sequence[int] = ()) -> float:
        """Of the target, with the candidates `chosen`."""
        return float(self.g @ self.with_runs(chosen) @ self.g)

    def with_runs(self, chosen: Sequence[int]) -> np.ndarray:
        """Covariance of the constants with the candidates `chosen`, shape (5, 5)."""
        J = self.J[list(chosen)]
        return np.linalg.inv(self.information + J.T @ J)

    def gains(self, covariance: np.ndarray) -> np.ndarray:
        """What each candidate would take off the log of the target's variance, were `covariance` that of the constants."""
        reach = self.J @ covariance  # Sherman and Morrison
        share = (reach @ self.g) ** 2 / (1 + np.einsum("ij,ij->i", reach, self.J)) / (self.g @ covariance @ self.g)
        return -np.log1p(-share)


def _greedy(believed: Sequence[_Belief], C: np.ndarray, flops: float, most: int, *, per_flop: bool) -> list[int]:
    """Candidates taken one by one while they fit, each once."""
    left = flops
    free = np.ones(len(C), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < most and (free & (left >= C)).any():
        gain = np.mean([belief.gains(belief.with_runs(chosen)) for belief in believed], axis=0)
        best = int(np.where(free & (left >= C), gain / C if per_flop else gain, -1.0).argmax())
        chosen.append(best)
        free[best], left = False, left - C[best]
    return chosen


def _exchange(believed: Sequence[_Belief], C: np.ndarray, flops: float, chosen: list[int]) -> list[int]:
    """`chosen` with single candidates replaced by others while that helps and fits (Fedorov 1972): one at a time, greed
    spends too much on its first runs."""
    for _ in range(PASSES):
        before = list(chosen)
        for place in range(len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            gain = np.mean([belief.gains(belief.with_runs(rest)) for belief in believed], axis=0)
            gain[(C > flops - C[rest].sum()) | np.isin(np.arange(len(C)), rest)] = -1.0
            chosen = [*chosen[:place], int(gain.argmax()), *chosen[place + 1 :]]
        if chosen == before:
            break
    return chosen


def _mean_log_variance(believed: Sequence[_Belief], chosen: Sequence[int]) -> float:
    return float(np.mean([np.log(belief.variance(chosen)) for belief in believed]))


def _gradients(surface: Surface, N: np.ndarray, D: np.ndarray) -> np.ndarray:
    """d log L / d (log A, log B, log E, alpha, beta) of runs, shape (runs, 5)."""
    of_N, of_D = surface.A / N**surface.alpha, surface.B / D**surface.beta
    columns = [of_N, of_D, np.full_like(of_N, surface.E), -np.log(N) * of_N, -np.log(D) * of_D]
    return np.stack(columns, axis=1) / (surface.E + of_N + of_D)[:, None]


def _target_gradient(surface: Surface, target: str, target_C: float | None) -> np.ndarray:
    """The same of the target, by central differences, shape (5,)."""

    def value(shift: np.ndarray) -> float:
        moved = Surface(
            A=surface.A * np.exp(shift[0]),
            B=surface.B * np.exp(shift[1]),
            E=surface.E * np.exp(shift[2]),
            alpha=surface.alpha + shift[3],
            beta=surface.beta + shift[4],
            compute=surface.compute,
        )
        return float(moved.a if target == "a" else moved.frontier_loss(target_C))

    return np.array([(value(STEPS * row) - value(-STEPS * row)) / (2 * STEPS) for row in np.eye(5)])
