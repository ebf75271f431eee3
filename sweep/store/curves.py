"""Reading and smoothing the training curves of finished runs."""

import json

import numpy as np

from sweep.errors import InputError
from sweep.store.runs import RunDirectory


def read_curve(directory: RunDirectory, steps: int) -> np.ndarray:
    """Training losses of a finished run of so many steps, shape (steps,). Raises InputError if a line is damaged, or a step
    is missing or there twice."""
    remedy = f"delete {directory.path} to train the run again"
    try:
        rows = [json.loads(line) for line in directory.curve.read_bytes().splitlines()]
        trained = np.array([(row["step"], row["loss"]) for row in rows if row.get("loss") is not None], dtype=float)
    except (ValueError, OSError, KeyError, AttributeError) as error:
        raise InputError(f"{directory.curve} is damaged ({error}); {remedy}") from error
    if trained.shape != (steps, 2) or (trained[:, 0] != np.arange(1, steps + 1)).any():
        raise InputError(f"{directory.curve} does not hold every step of its finished run once; {remedy}")
    return trained[:, 1]


def smooth_curve(loss: np.ndarray, sigma: float) -> np.ndarray:
    """`loss`, shape (steps,), smoothed by a Gaussian of `sigma` steps, which is cut off and renormalised at the ends."""
    if sigma <= 0:
        return loss
    from scipy.ndimage import gaussian_filter1d

    weight = gaussian_filter1d(np.ones_like(loss, dtype=float), sigma, mode="constant")
    return gaussian_filter1d(loss.astype(float), sigma, mode="constant") / weight
