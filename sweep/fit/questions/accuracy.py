"""What accuracy on a task does a loss give? A sigmoid between chance and a top, fitted by binomial likelihood.

    accuracy(L) = chance + (top - chance) / (1 + exp(-k (L_mid - L)))

It is the second step of Bhagia et al. 2024 (arXiv 2412.04403) and of Llama 3 (arXiv 2407.21783, section 3.2.1), with the
floor at chance. Far from the top it is the exponential of Gadre et al. 2024 (arXiv 2403.08540).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.result import Record, count_distinct

MIN_LOSSES = 4  # one more than it has parameters
MAX_STEEPNESS = 50.0  # of k, per nat
BEYOND = 10.0  # how far the middle may lie outside the losses, in nats
AT_BOUND = 1e-3  # closer than this, the top is said to be at its bound
STARTS = [(share, k, place) for share in (0.2, 0.9) for k in (0.5, 2.0, 8.0) for place in (0.0, 0.5, 1.0)]
TRIED = 4  # of them, the most likely
WORST = 1e-9  # the smallest probability, so that no likelihood is infinite


@dataclass(frozen=True, kw_only=True)
class AccuracyLaw(Record):
    """The law of a task's accuracy.

    Attributes:
        chance: the accuracy of a guess.
        top: the accuracy where the loss is low.
        k: the steepness, per nat.
        L_mid: the loss in the middle between both, nats per token.
    """

    chance: float
    top: float
    k: float
    L_mid: float

    def predict(self, loss: Any) -> Any:
        """The accuracy at a `loss` in nats per token, 0 to 1."""
        return _curve(self._parameters(), np.asarray(loss, dtype=float), self.chance)[0]

    def _parameters(self) -> np.ndarray:
        return np.array([(self.top - self.chance) / (1 - self.chance), np.log(self.k), self.L_mid])

    def __str__(self) -> str:
        top = f"1, its bound, - {self.chance:.3g}" if 1 - self.top < AT_BOUND else f"{self.top:.3g} - {self.chance:.3g}"
        return f"{self.chance:.3g} + ({top}) / (1 + exp(-{self.k:.3g} ({self.L_mid:z.3g} - L)))"


def fit_accuracy(
    loss: np.ndarray, accuracy: np.ndarray, chance: float, weight: np.ndarray | None = None, start: AccuracyLaw | None = None
) -> AccuracyLaw:
    """The law that makes the answers most likely; chance <= top <= 1 and 0 < k <= 50.

    Args:
        loss: of each run, nats per token, shape (runs,).
        accuracy: share of right answers, shape (runs,); all runs have answered as many items.
        chance: the accuracy of a guess.
        weight: how often each run counts; once, if left out.
        start: a law of nearly the same runs, near which the best is sought.

    Raises:
        LawError: "too_few_losses" if fewer than four runs with different losses count.
    """
    from scipy.optimize import minimize

    weight = np.ones_like(loss) if weight is None else weight
    counted = weight > 0
    if (distinct := count_distinct(loss[counted])) < MIN_LOSSES:
        raise LawError("too_few_losses", f"{distinct} different losses; a law of accuracy needs at least {MIN_LOSSES}")
    L, right, weight = loss[counted], accuracy[counted], weight[counted] / weight.sum()

    def objective(z: np.ndarray) -> tuple[float, np.ndarray]:
        p, slopes = _curve(z, L, chance)
        p = p.clip(WORST, 1 - WORST)
        value = -(weight * (right * np.log(p) + (1 - right) * np.log1p(-p))).sum()
        return float(value), -((weight * (right - p) / (p * (1 - p)))[:, None] * slopes).sum(axis=0)

    low, high = float(L.min()), float(L.max())
    bounds = [(0.0, 1.0), (-7.0, np.log(MAX_STEEPNESS)), (low - BEYOND, high + BEYOND)]
    starts = [np.array([share, np.log(k), low + place * (high - low)]) for share, k, place in STARTS]
    starts = sorted(starts, key=lambda z: objective(z)[0])[:TRIED] if start is None else [start._parameters()]
    found = [minimize(objective, z, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13}) for z in starts]
    share, log_k, middle = min(found, key=lambda each: each.fun).x.tolist()
    return AccuracyLaw(chance=chance, top=chance + share * (1 - chance), k=float(np.exp(log_k)), L_mid=middle)


def _curve(z: np.ndarray, loss: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """The accuracy at each loss, and its derivatives in the parameters, shape (losses, 3): the share of what is above chance,
    log k, L_mid."""
    share, k, middle = z[0], np.exp(z[1]), z[2]
    sigmoid = 0.5 * (1 + np.tanh(0.5 * k * (middle - loss)))
    bend = share * sigmoid * (1 - sigmoid) * k
    slopes = np.stack([sigmoid, bend * (middle - loss), bend], axis=-1)
    return chance + (1 - chance) * share * sigmoid, (1 - chance) * slopes
