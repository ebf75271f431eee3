"""The batch of step k is a pure function of (corpus, seed, k), so that a resumed run needs no saved state of the data."""

from functools import lru_cache

import numpy as np

from sweep.errors import InputError
from sweep.plan.run import check_unique_tokens, count_sequences

UNIQUE_SEED = 0x5EED  # of the choice of unique sequences: not the run's, so that all runs of one `unique_tokens` see one text


class TrainingSequences:
    """Batches of sequences of T + 1 tokens. Each epoch visits every sequence once, in an order drawn from (seed, epoch).

    Args:
        tokens: flat ids, shape (tokens,).
        context_length: T, inputs per sequence. The last target of a sequence is the first input of the next.
        batch_size: B, sequences per step.
        seed: of the order.
        unique_tokens: train on only so many of the tokens, in whole sequences that are drawn at random; a smaller number gives
            a part of the sequences of a larger one. None for all.

    Raises:
        InputError: if the tokens do not fill one sequence, or `unique_tokens` are fewer than a batch or more than there are.
    """

    def __init__(
        self, tokens: np.ndarray, *, context_length: int, batch_size: int, seed: int, unique_tokens: int | None = None
    ) -> None:
        self.tokens, self.context_length, self.batch_size, self.seed = tokens, context_length, batch_size, seed
        self.sequences = count_sequences(len(tokens), context_length)
        self._unique: np.ndarray | None = None
        if unique_tokens is not None:
            check_unique_tokens(unique_tokens, batch_size * context_length, self.sequences * context_length)
            order = np.random.default_rng(UNIQUE_SEED).permutation(self.sequences)
            self.sequences = unique_tokens // context_length
            self._unique = order[: self.sequences]
        self._offsets = np.arange(context_length + 1)
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch can straddle two epochs

    def _draw_order(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.sequences)
        return order if self._unique is None else self._unique[order]

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
