"""Which tokens step k sees: a pure function of (corpus, seed, k), so that nothing about the order needs saving."""

from functools import lru_cache

import numpy as np

from sweep.errors import InputError


class TrainingWindows:
    """Windows of T + 1 tokens, each visited once per epoch in an order drawn from (seed, epoch).

    Args:
        tokens: flat ids, shape (tokens,).
        context_length: T, inputs per window; consecutive windows share one token, the last target of the first.
        batch_size: windows per step, B.
        seed: of the order.

    Raises:
        InputError: if the tokens do not fill one window.
    """

    def __init__(self, tokens: np.ndarray, *, context_length: int, batch_size: int, seed: int) -> None:
        self.tokens, self.context_length, self.batch_size, self.seed = tokens, context_length, batch_size, seed
        self.windows = count_windows(len(tokens), context_length)
        self._offsets = np.arange(context_length + 1)
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch can straddle two epochs

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.windows)

    def starts(self, step: int, count: int = 1) -> np.ndarray:
        """Where in the tokens the windows of steps `step` (from 0) to `step + count - 1` begin, shape (count, B), int64."""
        visits = np.arange(step * self.batch_size, (step + count) * self.batch_size)
        first, last = visits[0] // self.windows, visits[-1] // self.windows
        chosen = np.concatenate([self._order(int(epoch)) for epoch in range(first, last + 1)])[visits - first * self.windows]
        return chosen.reshape(count, self.batch_size) * self.context_length

    def batch(self, step: int) -> np.ndarray:
        """Ids of step `step`, shape (B, T + 1), int64: inputs are [:, :-1], targets [:, 1:]."""
        return self.tokens[self.starts(step)[0, :, None] + self._offsets].astype(np.int64)


def count_windows(tokens: int, context_length: int) -> int:
    """Whole windows in `tokens` tokens; InputError if there is none."""
    windows = (tokens - 1) // context_length
    if windows < 1:
        raise InputError(
            f"data: {tokens:,} tokens do not fill one window of data.context_length={context_length:,}; "
            "shorten the context or bring more text"
        )
    return windows


def validation_windows(tokens: np.ndarray, context_length: int) -> np.ndarray:
    """All whole windows of the held-out tokens in their own order, shape (windows, T + 1), int64.

    Raises:
        InputError: if there are fewer than two, whose loss would have no standard error.
    """
    if (windows := count_windows(len(tokens), context_length)) < 2:
        raise InputError(
            f"data: {len(tokens):,} held-out tokens are one window of data.context_length={context_length:,}; raise "
            "data.validation_tokens to two or more"
        )
    starts = np.arange(windows)[:, None] * context_length
    return tokens[starts + np.arange(context_length + 1)].astype(np.int64)
