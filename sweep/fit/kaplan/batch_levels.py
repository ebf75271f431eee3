"""One level of loss: the line S = S_min + E_min / B through the steps S that batches of B tokens took to reach it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.fit.kaplan.law_fit import distinct

MIN_BATCHES = 2
NEGLIGIBLE_PART = 1e-3  # of the steps


@dataclass(frozen=True, kw_only=True)
class BatchLevel:
    """The line S = S_min + E_min / B through the measurements of one loss.

    Attributes:
        loss: the level.
        batches: how many different batch sizes reached it.
        status: "converged", or why the law does not use it: "too_few_batches", "small_batches" or "large_batches".
        reason: the same in words.
        S_min, E_min, B_crit: least steps, least tokens and their ratio; NaN unless converged.
    """

    loss: float
    batches: int
    status: str
    reason: str = ""
    S_min: float = np.nan
    E_min: float = np.nan
    B_crit: float = np.nan

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {"loss": self.loss, "batches": self.batches, "status": self.status}
        if self.status == "converged":
            return values | {"S_min": self.S_min, "E_min": self.E_min, "B_crit": self.B_crit}
        return values | {"reason": self.reason}

    def __str__(self) -> str:
        if self.status != "converged":
            return f"L = {self.loss:.4g}: {self.reason}"
        return f"L = {self.loss:.4g}: S_min = {self.S_min:.4g}, E_min = {self.E_min:.4g}, B_crit = {self.B_crit:.4g}"


def fit_level(loss: float, B: np.ndarray, S: np.ndarray) -> BatchLevel:
    """The line through the rows of one level, B and S of shape (rows,)."""
    if (batches := len(np.unique(B))) < MIN_BATCHES:
        return BatchLevel(
            loss=loss, batches=batches, status="too_few_batches", reason=f"{batches} batch size; a line needs {MIN_BATCHES}"
        )
    B_crit, S_min, E_min = (float(of[0]) for of in lines(B, S, np.ones((1, len(B)))))
    if np.isfinite(B_crit):
        return BatchLevel(loss=loss, batches=batches, status="converged", S_min=S_min, E_min=E_min, B_crit=B_crit)
    if (S_min / S).max() < NEGLIGIBLE_PART:
        reason = f"S_min = {S_min:.3g}: batches so small that steps fall as fast as they grow, or faster; add larger ones"
        return BatchLevel(loss=loss, batches=batches, status="small_batches", reason=reason)
    reason = f"E_min = {E_min:.3g}: batches so large that steps hardly fall as they grow; add smaller ones"
    return BatchLevel(loss=loss, batches=batches, status="large_batches", reason=reason)


def lines(B: np.ndarray, S: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B_crit, S_min and E_min of least squares in (S_min + E_min / B) / S - 1, each (K,); B, S (rows,), weight (K, rows).

    B_crit is NaN where S_min or E_min is not positive or nowhere a thousandth of the steps, or there are not two batch sizes.
    """
    scale = np.exp(np.log(B).mean())  # brings both unknowns to one size
    p, q = 1 / S, scale / (B * S)
    pp, pq, qq = (weight @ product for product in (p * p, p * q, q * q))
    P, Q = weight @ p, weight @ q
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = pp * qq - pq**2
        S_min, E_min = (P * qq - Q * pq) / determinant, scale * (Q * pp - P * pq) / determinant
        parts = np.stack([S_min[:, None] * p, E_min[:, None] * q / scale])
        shown = (np.where(weight > 0, parts, 0).max(axis=2) >= NEGLIGIBLE_PART).all(axis=0)
        B_crit = np.where(shown & (distinct(B, weight) >= MIN_BATCHES), E_min / S_min, np.nan)
    return B_crit, S_min, E_min
