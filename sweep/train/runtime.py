"""How a run is trained, beside what it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from sweep.train.ranks import ALONE, Parallel


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How to train, which changes no result beyond rounding. See `sweep.config.machine.ClusterConfig` and `RuntimeConfig`."""

    device: str = "cpu"
    compile: str = "auto"
    compile_pays: bool = False
    checkpoint_interval_s: float = 60
    log_interval_s: float = 1
    micro_batch: int | None = None
    keep: int = 0  # checkpoints along the run; see `sweep.config.training.EvaluationConfig`
    peaks: Mapping[str, float] | None = None  # of the device, by precision; None: to be measured
    parallel: Parallel = ALONE
