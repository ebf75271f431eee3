"""Engines: ways to compute the optimizer steps of a run. The choice of engine changes results only by rounding.

native    CPU: matrix products by torch, the rest by our own kernels (`native`)
eager     any device, any number of processes: autograd and torch.optim.AdamW or Adam (`autograd`)
compiled  the same through torch.compile, where a shape has enough FLOPs to repay the minute that compiling takes
graph     CUDA, one process: the eager or compiled step captured as a CUDA graph (`graph`)
"""

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from sweep.data import TrainingSequences
from sweep.plan.run import RunConfig
from sweep.train.engine.autograd import AutogradEngine
from sweep.train.engine.graph import GraphEngine
from sweep.train.engine.native import NativeEngine
from sweep.train.objective import Batches
from sweep.train.ranks import ALONE, Parallel


class Engine(Protocol):
    """A model in training. The state is the same for all engines, so one can resume what another has saved."""

    @property
    def name(self) -> str: ...

    def step(self, step: int) -> Tensor:
        """Train step `step` (from 0). The batch's mean loss, in nats per token and to be averaged over processes, and the
        norm of the gradient before clipping: a tensor of shape (2,) on the device. This does not wait for the device."""

    def sequence_losses(self, sequences: np.ndarray) -> Tensor:
        """Mean loss in each of `sequences`, ids of shape (sequences, T + 1), or examples of blanks: nats per token, shape
        (sequences,), double."""

    def state(self) -> dict[str, Any]:
        """Weights and the optimizer's moments for a checkpoint: "model" and "optimizer" as torch's state_dict() has them,
        without the latter's settings, which are the run's."""

    def load(self, state: dict[str, Any]) -> None:
        """Load what `state()` of any engine returned; only before the first step."""


def make_engine(
    name: str,
    run: RunConfig,
    sequences: Batches,
    *,
    device: str,
    micro_batch: int | None = None,
    parallel: Parallel = ALONE,
) -> Engine:
    """The engine of that name (see `sweep.plan.cost.choose_engine`), with the initial weights of `run`."""
    options: dict[str, Any] = {
        "device": device,
        "compiled": name.startswith("compiled"),
        "micro_batch": micro_batch,
        "parallel": parallel,
    }
    if isinstance(sequences, TrainingSequences):
        if name == "native":
            return NativeEngine(run, sequences)
        if name.endswith("graph"):
            return GraphEngine(run, sequences, **options)
    return AutogradEngine(run, sequences, **options)
