"""Fit of the critical batch size, B_crit(L) = B_star / L^(1 / alpha_B): Kaplan et al. 2020 (arXiv 2001.08361), section 5.1.

A loss takes S steps of B tokens, E = B S tokens in all, where (S / S_min - 1)(E / E_min - 1) = 1: equation 5.1. Multiplied out,
S = S_min + E_min / B, a line in 1 / B at each loss, and B_crit = E_min / S_min.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.law_fit import MAX_EXPONENT, LawFit, columns, distinct, draw, line, require_exponent
from sweep.fit.kaplan.laws import CriticalBatch
from sweep.fit.result import Intervals, Record, plain

MIN_LEVELS = 2
MIN_BATCHES = 2
NEGLIGIBLE_PART = 1e-3  # of the steps


@dataclass(frozen=True, kw_only=True)
class BatchLevel(Record):
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
        found = ("S_min", "E_min", "B_crit") if self.status == "converged" else ("reason",)
        return self.pick("loss", "batches", "status", *found)

    def __str__(self) -> str:
        if self.status != "converged":
            return f"L = {self.loss:.4g}: {self.reason}"
        return f"L = {self.loss:.4g}: S_min = {self.S_min:.4g}, E_min = {self.E_min:.4g}, B_crit = {self.B_crit:.4g}"


@dataclass(frozen=True, kw_only=True)
class CriticalBatchFit(LawFit[CriticalBatch]):
    """The law with intervals; `points` and `rms` are of the levels it uses, and `levels` has all, by loss descending."""

    levels: tuple[BatchLevel, ...]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | self.pick("levels")

    def summary(self) -> str:
        return "\n".join([super().summary(), *(f"  {level}" for level in self.levels)])


class TooFewLevels(LawError):
    """Fewer than two losses have a critical batch size; `levels` says what became of each."""

    def __init__(self, reason: str, levels: tuple[BatchLevel, ...]) -> None:
        super().__init__("too_few_levels", reason)
        self.levels = levels

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "levels": plain(self.levels)}


def fit_critical_batch(batch_tokens: Any, steps: Any, loss: Any, *, intervals: Intervals = Intervals()) -> CriticalBatchFit:
    """Fit B_crit(L) from how long it took to reach several losses with several batch sizes.

    At each loss S_min and E_min come from least squares of the relative residuals of S; the law is a line through the levels'
    log B_crit. Rows with one batch size are assumed to come from the same runs and are resampled together. Intervals therefore
    need three batch sizes, and with few they are too narrow: with six, an 80 % interval holds the truth in two of three trials.

    Args:
        batch_tokens: B, tokens per step, shape (rows,).
        steps: S, steps to reach `loss`, shape (rows,).
        loss: the level, shape (rows,); rows whose loss agrees to nine digits are one level.
        intervals: see `Intervals`; of bootstrap resamples of the batch sizes.

    Raises:
        LawError: "bad_input" if a value is not positive and finite; "unidentified" if B_crit does not grow as the loss falls.
        TooFewLevels: if fewer than two levels have a positive S_min and E_min.
    """
    data = columns(batch_tokens=batch_tokens, steps=steps, loss=loss)
    B, S = data["batch_tokens"], data["steps"]
    _, first, member = np.unique(np.round(-np.log(data["loss"]), 9), return_index=True, return_inverse=True)
    losses = data["loss"][first]
    rows = [np.flatnonzero(member == i) for i in range(len(losses))]
    levels = tuple(fit_level(float(L), B[i], S[i]) for L, i in zip(losses, rows, strict=True))
    good = np.array([of.status == "converged" for of in levels], dtype=bool)
    if good.sum() < MIN_LEVELS:
        refused = "; ".join(str(of) for of, used in zip(levels, good, strict=True) if not used)
        reason = f"{good.sum()} of {len(levels)} losses have a critical batch size; the law needs at least {MIN_LEVELS}"
        raise TooFewLevels(f"{reason} ({refused or 'add levels'})", levels)

    def solve(B_crit: np.ndarray) -> np.ndarray:
        """Rows (B_star, alpha_B) through the levels' B_crit, shape (K, levels), NaN where there is none."""
        used = np.isfinite(B_crit)
        intercept, slope = line(np.log(losses), np.log(np.where(used, B_crit, 1)), used.astype(float))
        with np.errstate(over="ignore", divide="ignore"):
            return np.stack([np.exp(intercept), -1 / slope], axis=1)

    B_crit = np.array([[of.B_crit for of in levels]])
    B_star, alpha_B = map(float, solve(B_crit)[0])
    require_exponent("alpha_B", alpha_B)
    if not np.isfinite(B_star):
        raise LawError("unidentified", f"B_star is not finite at alpha_B = {alpha_B:.3g}: add levels further apart")
    law = CriticalBatch(B_star=B_star, alpha_B=alpha_B)

    # Two batch sizes always lie on a line: resampling them varies nothing.
    counts = draw(len(B), B, intervals) if len(np.unique(B)) > MIN_BATCHES else np.zeros((0, len(B)))
    drawn = np.stack([distinct(B[i], counts[:, i]) for i in rows], axis=1) >= MIN_BATCHES
    counts = counts[(drawn & good).sum(axis=1) >= MIN_LEVELS]
    resampled = np.stack([lines(B[i], S[i], counts[:, i])[0] for i in rows], axis=1)
    resampled[:, ~good] = np.nan
    replicas = solve(resampled)
    return CriticalBatchFit.from_resamples(
        law,
        replicas,
        np.isfinite(replicas).all(axis=1) & (replicas[:, 1] > 0) & (replicas[:, 1] < MAX_EXPONENT),
        log_residuals=np.log(law.predict(losses[good])) - np.log(B_crit[0, good]),
        level=intervals.level,
        levels=levels,
    )


def fit_level(loss: float, B: np.ndarray, S: np.ndarray) -> BatchLevel:
    """The line through the rows of one level, B and S of shape (rows,)."""
    if (batches := len(np.unique(B))) < MIN_BATCHES:
        reason = f"{batches} batch size; a line needs {MIN_BATCHES}"
        return BatchLevel(loss=loss, batches=batches, status="too_few_batches", reason=reason)
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
