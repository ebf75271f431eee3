"""Which tokens step k sees: a pure function of (corpus, seed, k), so that nothing about the order needs saving."""

from functools import lru_cache

import numpy as np

from sweep.errors import InputError
from sweep.plan.run import count_sequences


class TrainingSequences:
    """Sequences of T + 1 tokens, each visited once per epoch in an order drawn from (seed, epoch).

    Args:
        tokens: flat ids, shape (tokens,).
        context_length: T, inputs per sequence; consecutive sequences share one token, the last target of the first.
        batch_size: sequences per step, B.
        seed: of the order.

    Raises:
        InputError: if the tokens do not fill one sequence.
    """

    def __init__(self, tokens: np.ndarray, *, context_length: int, batch_size: int, seed: int) -> None:
        self.tokens, self.context_length, self.batch_size, self.seed = tokens, context_length, batch_size, seed
        self.sequences = count_sequences(len(tokens), context_length)
        self._offsets = np.arange(context_length + 1)
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch can straddle two epochs

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.sequences)

    def starts(self, step: int, count: int = 1) -> np.ndarray:
        """Where in the tokens the sequences of steps `step` (from 0) to `step + count - 1` begin, shape (count, B), int64."""
        visits = np.arange(step * self.batch_size, (step + count) * self.batch_size)
        first, last = visits[0] // self.sequences, visits[-1] // self.sequences
        chosen = np.concatenate([self._order(int(epoch)) for epoch in range(first, last + 1)])[visits - first * self.sequences]
        return chosen.reshape(count, self.batch_size) * self.context_length

    def batch(self, step: int) -> np.ndarray:
        """Ids of step `step`, shape (B, T + 1), int64: inputs are [:, :-1], targets [:, 1:]."""
        return self.tokens[self.starts(step)[0, :, None] + self._offsets].astype(np.int64)


def validation_sequences(tokens: np.ndarray, context_length: int) -> np.ndarray:
    """All whole sequences of the held-out tokens in their own order, shape (sequences, T + 1), int64.

    Raises:
        InputError: if there are fewer than two, whose loss would have no standard error.
    """
    if (sequences := count_sequences(len(tokens), context_length)) < 2:
        raise InputError(
            f"data: {len(tokens):,} held-out tokens are one sequence of data.context_length={context_length:,}; raise "
            "data.validation_tokens to two or more"
        )
    starts = np.arange(sequences)[:, None] * context_length
    return tokens[starts + np.arange(context_length + 1)].astype(np.int64)
