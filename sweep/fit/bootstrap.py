"""Resampling: how much each run counts in each bootstrap resample."""

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError

MIN_CLUSTERS = 3


def check_clusters(clusters: ArrayLike | None, runs: int, status: str = "bad_option") -> np.ndarray | None:
    """The label of each run, shape (runs,). Raises LawError `status` if there are fewer than three, or not one for each run."""
    if clusters is None:
        return None
    labels = np.asarray(clusters)
    if labels.shape != (runs,):
        raise LawError(status, f"clusters has shape {labels.shape}; give one label for each of the {runs} runs")
    if (different := len(np.unique(labels.astype(str)))) < MIN_CLUSTERS:
        reason = f"clusters has {different} different labels; intervals need {MIN_CLUSTERS}: add runs, or leave clusters out"
        raise LawError(status, reason)
    return labels


def resample_counts(runs: int, resamples: int, *, seed: int, clusters: np.ndarray | None = None) -> np.ndarray:
    """Multiplicities of `runs` drawn with replacement, shape (resamples, runs), floats.

    Args:
        runs: how many runs there are.
        resamples: how many resamples to draw.
        seed: of the draws; the same on every machine.
        clusters: a label for each run, shape (runs,). Labels are drawn instead of runs, each with all of its runs: points that
            share a training trajectory are not independent, and resampling them one by one makes intervals too narrow.
    """
    rng = np.random.default_rng(seed)
    if clusters is None:
        return rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples).astype(float)
    labels, member = np.unique(clusters, return_inverse=True)
    return rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples).astype(float)[:, member]


def resample_weights(runs: int, resamples: int, *, seed: int, clusters: np.ndarray | None = None) -> np.ndarray:
    """Weights of `runs` in each resample of the Bayesian bootstrap (Rubin 1981), shape (resamples, runs), of mean 1 in each.

    `resample_counts` leaves out a third of the runs; here all stay, with exponentially distributed weights, which vary as much
    as the counts. For many runs both are equivalent; for forty runs and a loss close to |r|, intervals from counts are too
    wide. The arguments are those of `resample_counts`.
    """
    rng = np.random.default_rng(seed)
    labels, member = np.unique(np.arange(runs) if clusters is None else clusters, return_inverse=True)
    weights = rng.exponential(size=(resamples, len(labels)))[:, member]
    return weights / weights.mean(axis=1, keepdims=True)
