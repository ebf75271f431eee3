"""The loss by position in the context: Kaplan et al. 2020 (arXiv 2001.08361), appendix D.5 and Fig. 20.

L(t) = L_inf + c t^-gamma, for the prediction after t tokens. The paper's models of 1,024 positions have 4.0 + 3.2 t^-0.47 (the
smallest) to 2.3 + 5.4 t^-0.62 (the largest).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.result import Intervals

BINS = 24  # of the context, at most, in equal steps of log position
MIN_BINS, MIN_BLOCKS = 6, 8
GAMMAS = np.geomspace(0.01, 10, 400)  # in steps of 1.7 %, between which a parabola finds the minimum
ENDS, CERTAIN = 3, 3.0  # bins at either end of the context; standard errors by which the loss falls from one to the other
MISFIT = 0.1  # of the fall of the loss: a curve that lies further off than that, noise aside, is no such law


@dataclass(frozen=True, kw_only=True)
class PositionLaw:
    """The loss after t tokens of context, in nats: what remains with ever more context, and how fast it is approached."""

    equation: ClassVar[str] = "L(t) = L_inf + c t^-gamma"
    L_inf: float
    c: float
    gamma: float

    def predict(self, t: Any) -> Any:
        return self.L_inf + self.c * np.asarray(t, dtype=float) ** -self.gamma


def position_edges(T: int) -> np.ndarray:
    """The bins of positions 1 to T, shape (bins + 1,): bin i holds the positions from edge i to before edge i + 1."""
    return np.unique(np.geomspace(1, T + 1, BINS + 1).round().astype(int))


def bin_means(by_position: np.ndarray) -> np.ndarray:
    """Means over the bins of losses by position, shape (…, T); shape (…, bins)."""
    edges = position_edges(by_position.shape[-1])
    return np.add.reduceat(by_position, edges[:-1] - 1, axis=-1) / np.diff(edges)


def fit_position_law(blocks: Any, T: int, intervals: Intervals = Intervals()) -> LawFit[PositionLaw]:
    """L(t) = L_inf + c t^-gamma by least squares over the bins of the context, each of which counts as much.

    Intervals are of resamples of the blocks, for what is noise at one position is noise at others too. Where the losses lie
    further off the law than noise explains, the resamples lie off it as far, alike in neighbouring bins as the losses are. What
    the three constants hide of a misfit is in no interval.

    Args:
        blocks: mean losses in nats of some blocks of held-out sequences, equally many each, in the bins of `position_edges(T)`;
            shape (blocks, bins).
        T: positions in the context.
        intervals: see `Intervals`.

    Raises:
        LawError: "too_few_runs" if there are fewer than 6 bins or 8 blocks; "unidentified" if the loss does not fall, or its
            fall does not bend enough to tell L_inf; "misfit" if it lies off the law by more than a tenth of its fall.
    """
    losses = np.asarray(blocks, dtype=float)
    edges = position_edges(T)
    if losses.ndim != 2 or losses.shape[1] != len(edges) - 1:
        raise LawError("bad_input", f"blocks have shape {losses.shape}; give (blocks, {len(edges) - 1}) for {T} positions")
    if len(losses) < MIN_BLOCKS or losses.shape[1] < MIN_BINS:
        have = f"{len(losses)} blocks of sequences in {losses.shape[1]} bins of the context"
        raise LawError("too_few_runs", f"{have}; at least {MIN_BLOCKS} and {MIN_BINS} are needed: longer text or context")
    powers = _powers(T)
    mean = losses.mean(axis=0)
    L_inf, c, gamma = _solve(powers, mean[None])[0]
    falls = losses[:, :ENDS].mean(axis=1) - losses[:, -ENDS:].mean(axis=1)
    if falls.mean() < CERTAIN * falls.std(ddof=1) / len(losses) ** 0.5:
        reason = (
            f"the loss does not fall along the context beyond its noise ({falls.mean():+z.3f} nats): train longer, or larger"
        )
        raise LawError("unidentified", reason)
    if not (L_inf > 0 and c > 0 and GAMMAS[1] < gamma < GAMMAS[-2]):
        reason = f"the loss falls as evenly as a logarithm, or at once, along {T} positions, which leaves L_inf or gamma open"
        raise LawError("unidentified", f"{reason}: a longer context, longer text or more training may tell")
    law = PositionLaw(L_inf=float(L_inf), c=float(c), gamma=float(gamma))
    fitted = L_inf + c * bin_means(np.arange(1, T + 1) ** -gamma)
    residual, noise = mean - fitted, losses.var(axis=0, ddof=1) / len(losses)
    off, fall = max(0.0, float((residual**2).sum() / (len(mean) - 3) - noise.mean())) ** 0.5, float(np.ptp(fitted))
    if off > MISFIT * fall:
        reason = f"it lies {off:.3f} nats off {law.equation}, and falls by {fall:.3f}: no such law along this context"
        raise LawError("misfit", reason)
    random = np.random.default_rng(intervals.seed)
    counts = random.multinomial(len(losses), np.full(len(losses), 1 / len(losses)), intervals.resamples)
    alike = np.clip((residual[1:] * residual[:-1]).sum() / (residual**2).sum(), 0, 0.9)
    apart = np.abs(np.subtract.outer(np.arange(len(mean)), np.arange(len(mean))))
    misfit = random.multivariate_normal(np.zeros(len(mean)), off**2 * alike**apart, intervals.resamples, method="eigh")
    replicas = _solve(powers, counts @ losses / len(losses) + misfit)
    inside = (replicas[:, 2] > GAMMAS[0]) & (replicas[:, 2] < GAMMAS[-1])
    return LawFit.from_resamples(
        law,
        replicas,
        inside & (replicas[:, 0] > 0) & (replicas[:, 1] > 0),
        log_residuals=np.log(fitted / mean),
        level=intervals.level,
    )


@cache
def _powers(T: int) -> np.ndarray:
    """The bins' means of t^-gamma at each of `GAMMAS`, shape (gammas, bins)."""
    return bin_means(np.arange(1, T + 1) ** -GAMMAS[:, None])


def _solve(powers: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """L_inf, c and gamma of least squares, shape (K, 3), for `losses` of shape (K, bins), given `_powers`: for each gamma the
    rest is a line."""
    x, mean = powers - powers.mean(axis=1, keepdims=True), losses.mean(axis=1)
    c = losses @ (x / (x**2).sum(axis=1, keepdims=True)).T  # (K, gammas)
    explained = c * (losses @ x.T)
    best = explained.argmax(axis=1)
    inner, K = best.clip(1, len(GAMMAS) - 2), np.arange(len(losses))
    before, here, after = (explained[K, inner + shift] for shift in (-1, 0, 1))
    bend = before - 2 * here + after
    between = np.divide(before - after, 2 * bend, out=np.zeros(len(losses)), where=bend < 0).clip(-1, 1)
    place = inner + np.where(best == inner, between, best - inner)  # on the grid of gammas
    low = place.astype(int).clip(0, len(GAMMAS) - 2)
    part = place - low
    c = (1 - part) * c[K, low] + part * c[K, low + 1]
    centre = (1 - part) * powers.mean(axis=1)[low] + part * powers.mean(axis=1)[low + 1]
    return np.stack([mean - c * centre, c, GAMMAS[0] * (GAMMAS[1] / GAMMAS[0]) ** place], axis=1)
