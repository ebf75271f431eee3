"""How long runs take: from finished runs of the store, from `isosweep bench`, or from a reference machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sweep.plan.cost import PLAIN, Shape, shape_of
from sweep.plan.run import NOISE_SEQUENCES, RunConfig

# tokens/s by N: the native engine in fp32 on one core of an AMD EPYC (AVX-512), 512 tokens per step.
REFERENCE = {
    4_872: 1_000_000,
    26_280: 330_000,
    100_280: 90_000,
    473_544: 23_000,
    857_912: 12_800,
    5_166_560: 2_700,
}
EVALUATION_SPEEDUP = 3.3  # an evaluation needs no backward pass
GRADIENT_S = 0.006  # of a sequence by itself, besides its tokens: what autograd takes to call its operators, on a CPU core


@dataclass(frozen=True)
class Speed:
    """How long runs take on one device.

    Attributes:
        evaluation_tokens: held-out tokens per evaluation.
        rates: tokens/s of one run while others train beside it, by N; empty if unknown.
        scale: speed of the finished runs relative to the other numbers.
        shapes: tokens/s of the shapes that were measured themselves, which count instead of `rates`.
        borrowed: whether nothing was measured on this machine.
    """

    evaluation_tokens: int
    rates: Mapping[int, float]
    scale: float = 1.0
    shapes: Mapping[Shape, float] = field(default_factory=dict)
    borrowed: bool = False

    @classmethod
    def measured(
        cls,
        finished: Iterable[tuple[RunConfig, Mapping[str, Any]]],
        device: str,
        evaluation_tokens: int,
        benchmarks: Sequence[Mapping[str, Any]] = (),
        shapes: Mapping[Shape, float] | None = None,
    ) -> "Speed":
        """From finished runs, each with its status, and from `shapes`. How the rate of other shapes depends on N comes from
        `benchmarks` (rows of `isosweep bench`); without any, from the reference on a CPU, and it is unknown on a GPU without
        finished runs."""
        rates, shapes = _benchmarked(benchmarks, device) or REFERENCE, shapes or {}
        shape = cls(evaluation_tokens, rates, shapes=shapes)
        ratios = [
            (shape.seconds(run) or 0.0) / status["elapsed_s"]
            for run, status in finished
            if status["elapsed_s"] > 0 and status["device"] == device and status.get("ranks", 1) == 1
        ]
        if not ratios and rates is REFERENCE and device != "cpu":
            return cls(evaluation_tokens, {})
        scale = float(np.median(ratios)) if ratios else 1.0
        return cls(evaluation_tokens, rates, scale, shapes, borrowed=rates is REFERENCE and not ratios and not shapes)

    def corrected(self, seen: Iterable[tuple[RunConfig, float]]) -> "Speed":
        """The same if it comes from this machine; else by the tokens/s of runs that are in training here."""
        found = [(run, rate) for run, rate in seen if rate > 0]
        if not found or (self.rates and not self.borrowed):
            return self
        if not self.rates:
            return replace(self, rates={run.N: rate for run, rate in found})
        scale = float(np.median([rate / self.rate(run) for run, rate in found]))
        return replace(self, scale=scale * self.scale, borrowed=False)

    def rate(self, run: RunConfig) -> float:
        """tokens/s of `run` in training."""
        return (self.shapes.get(shape_of(run)) or self._rate(run.N)) * self.scale

    def seconds(self, run: RunConfig, steps_done: int = 0) -> float | None:
        """Time that the rest of `run` takes on one worker; None if unknown."""
        if not self.rates:
            return None
        work = run.D + run.evaluation_points * self.evaluation_tokens / EVALUATION_SPEEDUP
        if run.noise_scale:
            gradients = run.evaluation_points * NOISE_SEQUENCES
            work += gradients * (run.model.context_length + GRADIENT_S * self.rate(run) / self.scale)
        return work * (1 - steps_done / run.steps) / self.rate(run)

    def _rate(self, N: float) -> float:
        """tokens/s at `N`: log-log interpolation between known sizes, and inversely proportional to N beyond them."""
        sizes = sorted(self.rates)
        x, y, at = np.log(sizes), np.log([self.rates[size] for size in sizes]), np.log(N)
        return float(np.exp(np.interp(at, x, y) - max(at - x[-1], 0)))


def _benchmarked(rows: Sequence[Mapping[str, Any]], device: str) -> dict[int, float]:
    """tokens/s of one process, by N, for the fastest engine at the largest number of concurrent processes."""
    rates: dict[int, tuple[int, float]] = {}
    for row in rows:
        if row["engine"] != PLAIN and ("CPU" in row["device"]) == (device == "cpu"):
            found = (row["processes"], row["tokens_per_s"] / row["processes"])
            rates[row["N"]] = max(rates.get(row["N"], (0, 0.0)), found)
    return {N: rate for N, (_, rate) in rates.items()}


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Seconds until a pool of `workers` has finished jobs of these lengths, when each free worker takes the next job."""
    free = np.zeros(workers)
    for job in seconds:
        free[free.argmin()] += job
    return float(free.max())


def duration(seconds: float | None) -> str:
    """Seconds as a reader wants them: "42 s", "3.5 min", "unknown"."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
