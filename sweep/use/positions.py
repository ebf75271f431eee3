"""The loss by position in blocks of held-out sequences, with less noise of the text."""

import numpy as np

from sweep.fit.kaplan.position import bin_means

BLOCKS = 32  # of sequences, whose losses are kept apart, for the noise between them


def position_blocks(losses: np.ndarray, sequences: np.ndarray | None) -> np.ndarray:
    """Mean losses of blocks of sequences in the bins of `position_edges(T)`, shape (blocks, bins).

    Which tokens happen to stand at a position is most of the noise between positions. A control variate takes it out: how
    surprising a token is after the one before it, by how often both stand in this text. Its mean does not depend on the
    position, so what it is off at one is chance, and so is the part of the loss that goes with it.

    Args:
        losses: in nats, shape (sequences, T).
        sequences: token ids, shape (sequences, T + 1), consecutive in the text; None of a model that reads them otherwise: then
            the noise stays.
    """
    count = min(BLOCKS, len(losses))

    def in_blocks(values: np.ndarray) -> np.ndarray:
        binned = bin_means(values[: len(values) // count * count])
        return binned.reshape(count, -1, binned.shape[1]).mean(axis=1)

    blocks = in_blocks(losses)
    if sequences is None:
        return blocks
    surprise = surprisal(sequences)
    control = in_blocks(surprise)
    apart = control - control.mean(axis=0)
    spread = (apart**2).sum()
    slope = ((blocks - blocks.mean(axis=0)) * apart).sum() / spread if spread > 0 else 0.0
    return blocks - slope * (control - surprise.mean())


def surprisal(sequences: np.ndarray) -> np.ndarray:
    """-log of the share of each token among those that follow the token before it, shape (sequences, T)."""
    before, pairs = sequences[:, :-1].astype(np.int64), sequences[:, :-1].astype(np.int64) << 32 | sequences[:, 1:]
    of_token, of_pair = (_counts(each) for each in (before, pairs))
    return np.log(of_token / of_pair)


def _counts(values: np.ndarray) -> np.ndarray:
    """How often each value is there, in its place."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[place].reshape(values.shape)
