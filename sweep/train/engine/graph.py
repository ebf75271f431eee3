"""The step as one CUDA graph: everything that the eager step launches, replayed by a single call.

What changes from step to step is on the device before the graph needs it: which sequences a batch has, and its learning rate,
some hundred steps of both at a time, and a counter that every step moves on. The tokens lie there too if there is room.
"""

import logging
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweep.data import TrainingSequences
from sweep.plan.run import RunConfig
from sweep.train.engine.autograd import AutogradEngine, to_device
from sweep.train.engine.optimizer import build_optimizer
from sweep.train.schedule import learning_rate

log = logging.getLogger(__name__)

EAGER_STEPS = 3  # before the capture: libraries set themselves up, and the memory it needs is known
STEPS_AHEAD = 512
MEMORY_FOR_TOKENS = 0.25  # of what is free


class GraphEngine(AutogradEngine):
    """See `sweep.train.engine.Engine`; one process on one GPU. On a CPU it does the same, uncaptured: for tests."""

    def __init__(
        self,
        run: RunConfig,
        sequences: TrainingSequences,
        *,
        device: str = "cuda",
        compiled: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        self.lr = torch.zeros((), device=device)
        super().__init__(run, sequences, device=device, compiled=compiled, micro_batch=micro_batch)
        self.name += ", graph"
        self.feed = Feed(run, sequences, device)
        self.result = torch.zeros(2, device=device)
        self.captures = device == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager_steps = 0

    def _make_optimizer(self) -> torch.optim.AdamW:
        return build_optimizer(self.model, self.run, self.lr)

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        for group in self.optimizer.param_groups:  # loading makes copies
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
        """Take this step as a graph, or, if the memory that a graph keeps for itself is not there, eagerly from now on."""
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
        graph.replay()  # a capture runs nothing

    def _one_step(self) -> None:
        batch_BS, lr = self.feed.next()
        self.lr.copy_(lr)
        self.result.copy_(self._step_on(batch_BS))


@lru_cache
def _side_stream() -> torch.cuda.Stream:
    """For what comes before a capture, and the capture; one for all runs, as memory is kept for each stream."""
    return torch.cuda.Stream()


class Feed:
    """The batches and learning rates of a run, from the device itself.

    Args:
        run, sequences: what is trained, and on what.
        device: "cpu" or "cuda".
    """

    def __init__(self, run: RunConfig, sequences: TrainingSequences, device: str) -> None:
        self.run, self.sequences, self.device = run, sequences, device
        self.offsets = torch.arange(run.model.context_length + 1, device=device)
        self.rates = torch.zeros(STEPS_AHEAD, device=device)
        self.starts = torch.zeros(STEPS_AHEAD, run.batch_size, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.expected: int | None = None  # the step that `position` is at, and the first that the tables lack
        self.end = 0
        self.tokens = self._tokens_on_device()
        self.batch_BS = torch.zeros(run.batch_size, len(self.offsets), dtype=torch.int64, device=device)

    def _tokens_on_device(self) -> Tensor | None:
        """All tokens, if they fit. uint16 has no indexing on every device, so ids are signed."""
        dtype = np.int16 if self.run.model.vocab_size <= 2**15 else np.int32
        if self.device == "cuda":
            free, _ = torch.cuda.mem_get_info()
            if len(self.sequences.tokens) * np.dtype(dtype).itemsize > MEMORY_FOR_TOKENS * free:
                return None
        return torch.from_numpy(self.sequences.tokens.astype(dtype)).to(self.device)

    def prepare(self, step: int) -> None:
        """Make sure that the device has what step `step` needs; outside the graph, and without waiting for the device."""
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
