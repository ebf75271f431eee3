"""How long runs take, from the runs that this store has seen."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sweep.run import RunConfig
from sweep.store import DONE, RunDirectory

# Parameters and training tokens/s of a whole run, fp32 on one thread of an AMD EPYC (AVX-512) core, batch 512 x context 128.
REFERENCE_N = (2_252, 4_872, 11_216, 40_160, 107_952, 221_888, 714_144)
REFERENCE_TOKENS_PER_S = (300_000, 270_000, 220_000, 85_000, 40_000, 22_000, 9_000)


@dataclass(frozen=True)
class Speed:
    """Tokens/s by model size on one device: the reference's shape in N, at the speed seen here.

    Attributes:
        scale: speed relative to the reference; None where nothing was measured and the reference says nothing.
    """

    scale: float | None

    @classmethod
    def measured(cls, runs: Iterable[tuple[RunConfig, RunDirectory]], device: str) -> "Speed":
        """From those of `runs` that are done; without any, the reference itself on a CPU and nothing on a GPU."""
        ratios = []
        for run, directory in runs:
            status = directory.status()
            if status["state"] == DONE and status["elapsed_s"] > 0 and status.get("device") == device:
                ratios.append(status["tokens"] / status["elapsed_s"] / _reference(run.N))
        if ratios:
            return cls(float(np.median(ratios)))
        return cls(1.0 if device == "cpu" else None)

    def seconds(self, run: RunConfig, tokens_done: int = 0) -> float | None:
        """Time that the rest of `run` takes alone on one worker; None if unknown."""
        return None if self.scale is None else (run.D - tokens_done) / (_reference(run.N) * self.scale)


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
