"""How long runs take, from the runs that this store has seen."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sweep.run import RunConfig
from sweep.store import DONE, RunDirectory

# Parameters, and tokens/s of the long runs in results/cpu-python: fp32, one thread of an AMD EPYC core (AVX-512).
REFERENCE_N = (4_872, 7_932, 14_192, 26_280, 52_000, 100_280, 163_440, 249_928, 473_544)
REFERENCE_TOKENS_PER_S = (285_000, 250_000, 157_000, 118_000, 68_000, 38_000, 25_000, 16_500, 11_200)
EVALUATION_SPEEDUP = 6.5  # tokens/s of an evaluation over those of training: no backward pass, and larger batches


@dataclass(frozen=True)
class Speed:
    """How long runs take on one device: the reference's shape in N, at the speed seen here.

    Attributes:
        evaluation_tokens: held-out tokens of each evaluation.
        scale: speed relative to the reference; None where nothing was measured and the reference says nothing.
    """

    evaluation_tokens: int
    scale: float | None

    @classmethod
    def measured(cls, runs: Iterable[tuple[RunConfig, RunDirectory]], device: str, evaluation_tokens: int) -> "Speed":
        """From those of `runs` that are done; without any, the reference itself on a CPU and nothing on a GPU."""
        reference = cls(evaluation_tokens, 1.0)
        statuses = [(run, directory.status()) for run, directory in runs]
        ratios = [
            reference.seconds(run) / status["elapsed_s"]
            for run, status in statuses
            if status["state"] == DONE and status["elapsed_s"] > 0 and status["device"] == device
            if status.get("ranks", 1) == 1
        ]
        if ratios:
            return cls(evaluation_tokens, float(np.median(ratios)))
        return reference if device == "cpu" else cls(evaluation_tokens, None)

    def seconds(self, run: RunConfig, steps_done: int = 0) -> float | None:
        """Time that the rest of `run` takes alone on one worker; None if unknown."""
        if self.scale is None:
            return None
        work = run.D + run.evaluation_points * self.evaluation_tokens / EVALUATION_SPEEDUP
        return work * (1 - steps_done / run.steps) / (_reference(run.N) * self.scale)


def _reference(N: float) -> float:
    """Reference tokens/s at `N`: log-log between the measured sizes, beyond them as its FLOPs."""
    x, y = np.log(REFERENCE_N), np.log(REFERENCE_TOKENS_PER_S)
    at = np.log(N)
    return float(np.exp(np.interp(at, x, y) - max(at - x[-1], 0)))


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Time for a pool of `workers` to finish jobs of these lengths, each taken by the first free worker in order."""
    free = np.zeros(workers)
    for job in seconds:
        free[free.argmin()] += job
    return float(free.max())
