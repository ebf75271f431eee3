"""Fit of the critical batch size, B_crit(L) = B_star / L^(1 / alpha_B): Kaplan et al. 2020 (arXiv 2001.08361), section 5.1.

A loss takes S steps of B tokens, E = B S tokens in all, where (S / S_min - 1)(E / E_min - 1) = 1: equation 5.1. Multiplied out,
S = S_min + E_min / B, a line in 1 / B at each loss, and B_crit = E_min / S_min.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.batch_levels import MIN_BATCHES, BatchLevel, fit_level, lines
from sweep.fit.kaplan.law_fit import MAX_EXPONENT, LawFit, columns, distinct, draw, line, require_exponent
from sweep.fit.kaplan.laws import CriticalBatch
from sweep.fit.result import Intervals
from sweep.store.curves import smooth_curve

MIN_LEVELS = 2


class StepsToLoss(NamedTuple):
    """Measurements, columns of shape (rows,): with batches of `batch_tokens`, `loss` was first reached after `steps`."""

    batch_tokens: np.ndarray
    steps: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True, kw_only=True)
class BatchCurve:
    """A training curve at one batch size: losses after `steps` steps, both of shape (points,), steps ascending."""

    batch_tokens: float
    steps: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CriticalBatchFit(LawFit[CriticalBatch]):
    """The law with intervals; `points` and `rms` are of the levels it uses, and `levels` has all, by loss descending."""

    levels: tuple[BatchLevel, ...]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"levels": [level.to_dict() for level in self.levels]}

    def summary(self) -> str:
        """The same for a reader."""
        return "\n".join([super().summary(), *(f"  {level}" for level in self.levels)])


class TooFewLevels(LawError):
    """Fewer than two losses have a critical batch size; `levels` says what became of each."""

    def __init__(self, reason: str, levels: tuple[BatchLevel, ...]) -> None:
        super().__init__("too_few_levels", reason)
        self.levels = levels

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "levels": [level.to_dict() for level in self.levels]}


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


def steps_to_loss(curves: Sequence[BatchCurve], losses: Any, *, sigma: float = 0) -> StepsToLoss:
    """When each curve first reached each loss, between its points linear in log S and log L.

    Args:
        curves: of one model at several batch sizes. Their rate must not decay before they reach the losses: what a schedule's
            end gains is no measure of the batch.
        losses: levels, shape (levels,).
        sigma: of the Gaussian that smooths each curve first, in points; see `smooth_curve`. The first crossing of a noisy curve
            is too early.

    Returns:
        A row for each curve and level that the curve goes through, so not those it starts below or never reaches; the
        arguments of `fit_critical_batch`.

    Raises:
        LawError: "bad_input" if a value is not a positive finite number or steps do not ascend; "unreached" if there is no row.
    """
    rows = []
    levels = columns(losses=losses)["losses"]
    for number, curve in enumerate(curves):
        name = f"curves[{number}]"
        columns(**{f"{name}.batch_tokens": [curve.batch_tokens]})
        steps, raw = columns(**{f"{name}.steps": curve.steps, f"{name}.loss": curve.loss}).values()
        if not (np.diff(steps) > 0).all():
            raise LawError("bad_input", f"{name}.steps do not ascend: sort its points, and keep one of each step")
        log_S, log_L = np.log(steps), np.log(smooth_curve(raw, sigma))
        for loss in levels:
            i = int(np.argmax(log_L <= np.log(loss)))  # 0 too if it never is
            if i > 0:
                part = (log_L[i - 1] - np.log(loss)) / (log_L[i - 1] - log_L[i])
                rows.append((curve.batch_tokens, np.exp(log_S[i - 1] + part * (log_S[i] - log_S[i - 1])), loss))
    if not rows:
        raise LawError("unreached", f"none of {len(curves)} curves goes through any of the losses: choose others")
    return StepsToLoss(*np.array(rows, dtype=float).T)
