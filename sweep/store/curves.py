"""Reading and smoothing the training curves of finished runs."""

import numpy as np

from sweep.errors import InputError
from sweep.store.runs import RunDirectory


def read_curve(directory: RunDirectory) -> tuple[np.ndarray, np.ndarray]:
    """Steps and training losses of a finished run, each of shape (steps,). Raises InputError if a line is damaged, or a
    step is missing or there twice."""
    import pandas as pd

    remedy = f"delete {directory.path} to train the run again"
    try:
        frame = pd.read_json(directory.curve, lines=True)
        trained = frame[frame["loss"].notna()]
        steps, losses = trained["step"].to_numpy(), trained["loss"].to_numpy()
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{directory.curve} is damaged ({error}); {remedy}") from error
    if not np.array_equal(steps, np.arange(1, directory.config().steps + 1)):
        raise InputError(f"{directory.curve} does not hold every step of its finished run once; {remedy}")
    return steps, losses


def smooth_curve(loss: np.ndarray, sigma: float) -> np.ndarray:
    """`loss`, shape (steps,), smoothed by a Gaussian of `sigma` steps, which is cut off and renormalised at the ends."""
    if sigma <= 0:
        return loss
    from scipy.ndimage import gaussian_filter1d

    weight = gaussian_filter1d(np.ones_like(loss, dtype=float), sigma, mode="constant")
    return gaussian_filter1d(loss.astype(float), sigma, mode="constant") / weight
