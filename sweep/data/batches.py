"""The batch of step k is a pure function of (corpus, seed, k), so that a resumed run needs no saved state of the data."""

from functools import lru_cache

import numpy as np

from sweep.errors import InputError
from sweep.plan.run import count_sequences


class TrainingSequences:
    """Batches of sequences of T + 1 tokens. Each epoch visits every sequence once, in an order drawn from (seed, epoch).

    Args:
        tokens: flat ids, shape (tokens,); InputError is raised if they do not fill one sequence.
        context_length: T, inputs per sequence. The last target of a sequence is the first input of the next.
        batch_size: B, sequences per step.
        seed: of the order.
    """

    def __init__(self, tokens: np.ndarray, *, context_length: int, batch_size: int, seed: int) -> None:
        self.tokens, self.context_length, self.batch_size, self.seed = tokens, context_length, batch_size, seed
        self.sequences = count_sequences(len(tokens), context_length)
        self._offsets = np.arange(context_length + 1)
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch can straddle two epochs

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.sequences)

    def starts(self, step: int, count: int = 1) -> np.ndarray:
        """Positions where the sequences of steps `step` (from 0) to `step + count - 1` begin, shape (count, B), int64."""
        visits = np.arange(step * self.batch_size, (step + count) * self.batch_size)
        first, last = visits[0] // self.sequences, visits[-1] // self.sequences
        chosen = np.concatenate([self._order(int(epoch)) for epoch in range(first, last + 1)])[visits - first * self.sequences]
        return chosen.reshape(count, self.batch_size) * self.context_length

    def batch(self, step: int) -> np.ndarray:
        """Ids of step `step`, shape (B, T + 1), int64: inputs are [:, :-1], targets [:, 1:]."""
        return self.tokens[self.starts(step)[0, :, None] + self._offsets].astype(np.int64)


def validation_sequences(tokens: np.ndarray, context_length: int) -> np.ndarray:
    """All complete sequences of the held-out tokens in their order, shape (sequences, T + 1), int64. Raises InputError if there
    are fewer than two: the held-out loss would have no standard error."""
    if (sequences := count_sequences(len(tokens), context_length)) < 2:
        raise InputError(
            f"data: {len(tokens):,} held-out tokens make only one sequence of data.context_length={context_length:,}; raise "
            "data.validation_tokens to at least two sequences"
        )
    starts = np.arange(sequences)[:, None] * context_length
    return tokens[starts + np.arange(context_length + 1)].astype(np.int64)
