"""The step as one CUDA graph: all kernels of the eager step, replayed by a single call.

The values that change from step to step are copied to the device ahead of time, for some hundred steps, with a counter that
each step increments: the positions of each batch's sequences, their keys of dropout, and the learning rate. The tokens are kept
on the device if they fit.
"""

import logging
import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.dropout import keys
from sweep.data import TrainingSequences
from sweep.plan.cost import token_bytes
from sweep.plan.run import RunConfig
from sweep.train.engine.autograd import AutogradEngine, out_of_memory, to_device
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
        self.feed = Feed(run, sequences, device)
        self.result = torch.zeros(2, device=device)
        self.captures = device == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager_steps = 0

    @property
    def name(self) -> str:
        return f"{super().name}, graph" if self.captures else super().name

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
            self.graph = self._captured()
            if self.graph is None:
                return self._without_graph(step)
            self.graph.replay()  # a capture does not execute anything
        return self.result.clone()

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """This step as a graph; None if there is not enough memory for that beside the rest."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=_side_stream()):
                self._one_step()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return None
        return graph

    def _without_graph(self, step: int) -> Tensor:
        """Take `step` after a capture that failed, and whose memory is free again: with smaller micro-batches, of which a graph
        is captured later, or eagerly from now on."""
        self.optimizer.zero_grad()  # gradients that were never computed
        torch.cuda.empty_cache()
        self.first, self.eager_steps = True, 0
        self.captures = self.may_shrink and self._shrink()
        remedy = f"{self.micro_batch} sequences at a time from now on" if self.captures else "its steps stay eager"
        log.warning("%s: no memory for a CUDA graph beside the rest; %s", self.run.run_id, remedy)
        return self.step(step)

    def _one_step(self) -> None:
        batch_BS, lr, key_B = self.feed.next()
        self.lr.copy_(lr)
        self.result.copy_(self._step_on(batch_BS, key_B))


@lru_cache
def _side_stream() -> torch.cuda.Stream:
    """The stream for warm-up and capture; all runs share it, because memory is cached per stream."""
    return torch.cuda.Stream()


_held: dict[str, tuple[np.ndarray, Tensor | None]] = {}  # by device: an array of tokens and its copy there


def tokens_on(device: str, tokens: np.ndarray, vocab_size: int) -> Tensor | None:
    """All tokens on the device, where they stay for the next run of this process; None if they do not fit."""
    if device not in _held or _held[device][0] is not tokens:
        _held.pop(device, None)
        free = torch.cuda.mem_get_info()[0] if device == "cuda" else math.inf
        fit = token_bytes(len(tokens), vocab_size) <= MEMORY_FOR_TOKENS * free
        dtype = np.int16 if token_bytes(1, vocab_size) == 2 else np.int32  # signed: not every device can index uint16
        _held[device] = tokens, torch.from_numpy(tokens.astype(dtype)).to(device) if fit else None
    return _held[device][1]


class Feed:
    """The batches and learning rates of a run, from buffers on the device, "cpu" or "cuda"."""

    def __init__(self, run: RunConfig, sequences: TrainingSequences, device: str) -> None:
        self.run, self.sequences, self.device = run, sequences, device
        self.offsets = torch.arange(run.model.context_length + 1, device=device)
        self.rates = torch.zeros(STEPS_AHEAD, device=device)
        self.starts = torch.zeros(STEPS_AHEAD, run.batch_size, dtype=torch.int64, device=device)
        self.keys = torch.zeros(STEPS_AHEAD, run.batch_size, dtype=torch.int32, device=device) if run.model.dropout else None
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.expected: int | None = None  # the current step, and the first step beyond the tables
        self.end = 0
        self.tokens = tokens_on(device, sequences.tokens, run.model.vocab_size)
        self.batch_BS = torch.zeros(run.batch_size, len(self.offsets), dtype=torch.int64, device=device)

    def prepare(self, step: int) -> None:
        """Copy what step `step` needs to the device, if it is not there; outside the graph and without waiting."""
        if step != self.expected or step >= self.end:
            count = min(STEPS_AHEAD, self.run.steps - step)
            peak, schedule = self.run.optimizer.peak_lr, self.run.schedule
            rates = [learning_rate(later, self.run.steps, peak, schedule) for later in range(step, step + count)]
            self.rates[:count].copy_(to_device(np.array(rates, np.float32), self.device))
            self.starts[:count].copy_(to_device(self.sequences.starts(step, count), self.device))
            if self.keys is not None:
                drawn = [keys(self.run.seed, later, self.run.batch_size) for later in range(step, step + count)]
                self.keys[:count].copy_(to_device(np.stack(drawn), self.device))
            self.position.zero_()
            self.end = step + count
        if self.tokens is None:
            self.batch_BS.copy_(to_device(self.sequences.batch(step), self.device))
        self.expected = step + 1

    def next(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Ids of the next batch, shape (B, T + 1), its learning rate, of shape (), and its keys of dropout, if any, (B,)."""
        rate = self.rates[self.position].squeeze(0)
        if self.tokens is not None:
            starts_B = self.starts[self.position].squeeze(0)
            self.batch_BS.copy_(self.tokens[starts_B[:, None] + self.offsets])
        key_B = None if self.keys is None else self.keys[self.position].squeeze(0)
        self.position.add_(1)
        return self.batch_BS, rate, key_B
