"""How long runs take, from the runs that this store has seen, from `isosweep bench`, or from a reference machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.config import SweepConfig
from sweep.plan.device import resolve_device
from sweep.plan.run import RunConfig
from sweep.store import RunDirectory, Store
from sweep.store.states import DONE
from sweep.train.bench import PLAIN, load

# tokens/s by parameters: the native engine in fp32, one thread of an AMD EPYC core (AVX-512), 512 tokens per step.
REFERENCE = {
    4_872: 1_000_000,
    26_280: 330_000,
    100_280: 90_000,
    473_544: 23_000,
    857_912: 12_800,
    5_166_560: 2_700,
}
EVALUATION_SPEEDUP = 3.3  # tokens/s of an evaluation over those of training: no backward pass


@dataclass(frozen=True)
class Speed:
    """How long runs take on one device.

    Attributes:
        evaluation_tokens: held-out tokens of each evaluation.
        rates: tokens/s of one run beside the others, by parameters; empty where nothing is known.
        scale: speed of the runs seen here relative to `rates`.
    """

    evaluation_tokens: int
    rates: Mapping[int, float]
    scale: float = 1.0

    @classmethod
    def of_sweep(cls, runs: Iterable[RunConfig], store: Store, config: SweepConfig) -> "Speed":
        """As the finished ones of a sweep's runs, or else benchmarks in the same store, show it."""
        device = resolve_device(config.device)
        pairs = [(run, store.run(run.run_id)) for run in runs]
        return cls.measured(pairs, device, config.data.validation_tokens, load(store.bench))

    @classmethod
    def measured(
        cls,
        runs: Iterable[tuple[RunConfig, RunDirectory]],
        device: str,
        evaluation_tokens: int,
        benchmarks: Sequence[dict[str, Any]] = (),
    ) -> "Speed":
        """From those of `runs` that are done; their dependence on N, or everything if none is done, from `benchmarks` (rows of
        `sweep.train.bench`). With neither, the reference on a CPU and nothing on a GPU."""
        rates = _benchmarked(benchmarks, device) or REFERENCE
        shape = cls(evaluation_tokens, rates)
        statuses = [(run, directory.status()) for run, directory in runs]
        ratios = [
            (shape.seconds(run) or 0.0) / status["elapsed_s"]
            for run, status in statuses
            if status["state"] == DONE and status["elapsed_s"] > 0 and status["device"] == device
            if status.get("ranks", 1) == 1
        ]
        if not ratios and rates is REFERENCE and device != "cpu":
            return cls(evaluation_tokens, {})
        return cls(evaluation_tokens, rates, float(np.median(ratios)) if ratios else 1.0)

    def seconds(self, run: RunConfig, steps_done: int = 0) -> float | None:
        """Time that the rest of `run` takes on one worker; None if unknown."""
        if not self.rates:
            return None
        work = run.D + run.evaluation_points * self.evaluation_tokens / EVALUATION_SPEEDUP
        return work * (1 - steps_done / run.steps) / (self._rate(run.N) * self.scale)

    def _rate(self, N: float) -> float:
        """tokens/s at `N`: log-log between the sizes that are known, beyond them as its FLOPs."""
        sizes = sorted(self.rates)
        x, y, at = np.log(sizes), np.log([self.rates[size] for size in sizes]), np.log(N)
        return float(np.exp(np.interp(at, x, y) - max(at - x[-1], 0)))


def _benchmarked(rows: Sequence[dict[str, Any]], device: str) -> dict[int, float]:
    """tokens/s of one process, by N: of the fastest engine with the most processes that were measured together."""
    rates: dict[int, tuple[int, float]] = {}
    for row in rows:
        if row["engine"] != PLAIN and ("CPU" in row["device"]) == (device == "cpu"):
            found = (row["processes"], row["tokens_per_s"] / row["processes"])
            rates[row["N"]] = max(rates.get(row["N"], (0, 0.0)), found)
    return {N: rate for N, (_, rate) in rates.items()}


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Time for a pool of `workers` to finish jobs of these lengths, each taken by the first free worker in order."""
    free = np.zeros(workers)
    for job in seconds:
        free[free.argmin()] += job
    return float(free.max())
