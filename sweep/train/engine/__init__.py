"""Engines: ways to take a run's training steps. Which one takes them changes no result beyond rounding.

native    CPU: matrix products by torch, the rest by kernels of our own (`native`)
eager     any device, any number of processes: autograd and torch.optim.AdamW (`autograd`)
compiled  the same through torch.compile, where a shape's FLOPs repay the minute that it takes
graph     CUDA, one process: the eager or compiled step captured as a CUDA graph (`graph`)
"""

from typing import Any, Protocol

import numpy as np
from torch import Tensor

from sweep.data import TrainingSequences
from sweep.plan.run import RunConfig
from sweep.train.engine.autograd import AutogradEngine
from sweep.train.engine.graph import GraphEngine
from sweep.train.engine.native import NativeEngine, NoKernels, kernels
from sweep.train.ranks import ALONE, Parallel


class Engine(Protocol):
    """A model in training. Its state is the same for all engines, so that each takes up what another left."""

    @property
    def name(self) -> str: ...

    def step(self, step: int) -> Tensor:
        """Train step `step` (from 0). The batch's mean loss, in nats per token and to be averaged over processes, and the
        gradient's norm before clipping: a tensor of shape (2,) on the device, which nobody has waited for."""

    def sequence_losses(self, sequences: np.ndarray) -> Tensor:
        """Mean loss in each of `sequences`, ids of shape (sequences, T + 1): nats per token, shape (sequences,), double."""

    def state(self) -> dict[str, Any]:
        """Weights and AdamW's moments for a checkpoint: "model" and "optimizer" as torch's state_dict() has them, without the
        latter's settings, which are the run's."""

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state()` returned, from this or any other engine; before the first step."""


def native_available() -> str | None:
    """None, or why the native engine cannot be had on this machine."""
    try:
        kernels()
    except NoKernels as error:
        return str(error)
    return None


def make_engine(
    name: str,
    run: RunConfig,
    sequences: TrainingSequences,
    *,
    device: str,
    micro_batch: int | None = None,
    parallel: Parallel = ALONE,
) -> Engine:
    """The engine that `choose_engine` named, with the weights of `run` at its start."""
    if name == "native":
        return NativeEngine(run, sequences)
    compiled = name.startswith("compiled")
    if name.endswith("graph"):
        return GraphEngine(run, sequences, device=device, compiled=compiled, micro_batch=micro_batch)
    return AutogradEngine(run, sequences, device=device, compiled=compiled, micro_batch=micro_batch, parallel=parallel)
