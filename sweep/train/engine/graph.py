"""The step as one CUDA graph: all kernels of the eager step, replayed by a single call.

The values that change from step to step are copied to the device ahead of time: the positions of each batch's sequences and the
learning rate, for some hundred steps at a time, with a counter that each step increments. The tokens are kept on the device if
they fit.
"""

import logging
import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweep.data import TrainingSequences
from sweep.plan.run import RunConfig
from sweep.train.engine.autograd import AutogradEngine, to_device
from sweep.train.schedule import learning_rate

log = logging.getLogger(__name__)

EAGER_STEPS = 3  # before the capture, so that libraries are initialised and the memory needed is known
STEPS_AHEAD = 512
MEMORY_FOR_TOKENS = 0.25  # fraction of the free memory


class GraphEngine(AutogradEngine):
    """See `sweep.train.engine.Engine`; one process on one GPU. On a CPU it does the same, uncaptured: for tests."""

    def __init__(self, run: RunConfig, sequences: TrainingSequences, *, device: str, **options: Any) -> None:
        self.lr: Tensor = torch.zeros((), device=device)
        super().__init__(run, sequences, device=device, **options)
        self.name += ", graph"
        self.feed = Feed(run, sequences, device)
        self.result = torch.zeros(2, device=device)
        self.captures = device == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager_steps = 0

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        for group in self.optimizer.param_groups:  # loading copies the tensors
            group["lr"] = self.lr

    def step(self, step: int) -> Tensor:
        self.feed.prepare(step)
        if not self.captures:
            self._one_step()
        elif self.graph is not None:
            self.graph.replay()
        elif self.eager_steps < EAGER_STEPS:
            self.eager_steps += 1
            stream = _side_stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._one_step()
            torch.cuda.current_stream().wait_stream(stream)
        else:
            self._capture()
        return self.result.clone()

    def _capture(self) -> None:
        """Capture this step as a graph; without enough memory for a graph, take all steps eagerly from now on."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=_side_stream()):
                self._one_step()
        except torch.OutOfMemoryError:
            log.warning("%s: no memory for a CUDA graph beside the rest; its steps stay eager", self.run.run_id)
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            self.captures = False
            self._one_step()
            return
        self.graph = graph
        graph.replay()  # a capture does not execute anything

    def _one_step(self) -> None:
        batch_BS, lr = self.feed.next()
        self.lr.copy_(lr)
        self.result.copy_(self._step_on(batch_BS))


@lru_cache
def _side_stream() -> torch.cuda.Stream:
    """The stream for warm-up and capture; all runs share it, because memory is cached per stream."""
    return torch.cuda.Stream()


class Feed:
    """The batches and learning rates of a run, from buffers on the device, "cpu" or "cuda"."""

    def __init__(self, run: RunConfig, sequences: TrainingSequences, device: str) -> None:
        self.run, self.sequences, self.device = run, sequences, device
        self.offsets = torch.arange(run.model.context_length + 1, device=device)
        self.rates = torch.zeros(STEPS_AHEAD, device=device)
        self.starts = torch.zeros(STEPS_AHEAD, run.batch_size, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.expected: int | None = None  # the current step, and the first step beyond the tables
        self.end = 0
        # All tokens, if they fit. Ids are signed, because not every device can index uint16.
        dtype = np.int16 if run.model.vocab_size <= 2**15 else np.int32
        free = torch.cuda.mem_get_info()[0] if device == "cuda" else math.inf
        fit = len(sequences.tokens) * np.dtype(dtype).itemsize <= MEMORY_FOR_TOKENS * free
        self.tokens = torch.from_numpy(sequences.tokens.astype(dtype)).to(device) if fit else None
        self.batch_BS = torch.zeros(run.batch_size, len(self.offsets), dtype=torch.int64, device=device)

    def prepare(self, step: int) -> None:
        """Copy what step `step` needs to the device, if it is not there; outside the graph and without waiting."""
        if step != self.expected or step >= self.end:
            count = min(STEPS_AHEAD, self.run.steps - step)
            peak, schedule = self.run.optimizer.peak_lr, self.run.schedule
            rates = [learning_rate(later, self.run.steps, peak, schedule) for later in range(step, step + count)]
            self.rates[:count].copy_(to_device(np.array(rates, np.float32), self.device))
            self.starts[:count].copy_(to_device(self.sequences.starts(step, count), self.device))
            self.position.zero_()
            self.end = step + count
        if self.tokens is None:
            self.batch_BS.copy_(to_device(self.sequences.batch(step), self.device))
        self.expected = step + 1

    def next(self) -> tuple[Tensor, Tensor]:
        """Ids of the next batch, shape (B, T + 1), and its learning rate, of shape ()."""
        rate = self.rates[self.position].squeeze(0)
        if self.tokens is not None:
            starts_B = self.starts[self.position].squeeze(0)
            self.batch_BS.copy_(self.tokens[starts_B[:, None] + self.offsets])
        self.position.add_(1)
        return self.batch_BS, rate
