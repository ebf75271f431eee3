"""Points and curves that obey the published laws of Kaplan et al. 2020, for the tests of these laws."""

from typing import Any

import numpy as np

from sweep.fit.kaplan.critical_batch import fit_critical_batch
from sweep.fit.kaplan.fits import fit_scale_law, fit_size_data_law, fit_size_steps_law
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.laws import (
    B_CRIT,
    L_N,
    L_ND,
    L_NS,
    CriticalBatch,
)
from sweep.fit.kaplan.table import BatchCurve

SIZES, TOKENS, STEPS = np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 3e10, 6), np.geomspace(3e3, 2e5, 6)
N, D = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS))
_, S = (grid.ravel() for grid in np.meshgrid(SIZES, STEPS))
BATCHES, LEVELS = np.geomspace(3e4, 8e6, 6), np.array([4.5, 4.0, 3.5, 3.0, 2.7])


def noise(sigma: float, shape: Any = N.shape, seed: int = 0) -> np.ndarray:
    return np.exp(sigma * np.random.default_rng(seed).standard_normal(shape))


def measured(law: CriticalBatch = B_CRIT, batches: np.ndarray = BATCHES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (B, S, L) of runs that obey `law`, with S_min a power of the loss."""
    B, loss = (grid.ravel() for grid in np.meshgrid(batches, LEVELS))
    return B, 3e3 * (5 / loss) ** 4 * (1 + law.predict(loss) / B), loss


def fitted(kind: str, sigma: float = 0.0, seed: int = 0, **settings: Any) -> LawFit:
    """The fit of each law to points that the published one makes, times noise."""
    if kind == "scale":
        return fit_scale_law(N, L_N.predict(N) * noise(sigma, seed=seed), **settings)
    if kind == "size_data":
        return fit_size_data_law(N, D, L_ND.predict(N, D) * noise(sigma, seed=seed), **settings)
    if kind == "size_steps":
        return fit_size_steps_law(N, S, L_NS.predict(N, S) * noise(sigma, seed=seed), **settings)
    B, steps, loss = measured()
    return fit_critical_batch(B, steps * noise(sigma, B.shape, seed), loss, **settings)


PUBLISHED = {"scale": L_N, "size_data": L_ND, "size_steps": L_NS, "critical_batch": B_CRIT}


def batch_curves(sigma: float = 0.0) -> list[BatchCurve]:
    """Curves on which S_min(L) is a power law, at several batch sizes."""
    loss = np.geomspace(5.5, 2.5, 400)
    return [
        BatchCurve(
            batch_tokens=float(B),
            steps=3e3 * (5 / loss) ** 4 * (1 + B_CRIT.predict(loss) / B),
            loss=loss * noise(sigma, loss.shape, seed=i),
        )
        for i, B in enumerate(BATCHES)
    ]
