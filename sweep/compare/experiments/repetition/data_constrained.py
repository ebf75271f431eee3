"""The data-constrained scaling law of Muennighoff et al. 2023 (arXiv 2305.16264): what repeated tokens are worth."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit import Estimate, Intervals
from sweep.fit.result import Record
from sweep.fit.span import MIN_SPAN
from sweep.words import counted

R_STAR = 15.387756  # of data, as published
BETA, RETURNS = np.geomspace(0.05, 2.5, 90), np.geomspace(0.1, 1000, 200)  # where beta and R_star are looked for
MIN_REPEATED = 3  # runs of more than one and a half epochs


@dataclass(frozen=True, kw_only=True)
class DataConstrainedFit(Record):
    """L = E_N + B_N / D'^beta with the effective tokens D' = U + U R* (1 - exp(-R / R*)), R = D / U - 1: equations 4 and 5.

    E_N and B_N are constants of each size, so that nothing is assumed of how the loss depends on N (in the paper one B, and
    E + A / N'^alpha). The effective parameters N' are left out: repetition costs a larger model the same share of its tokens.

    Attributes:
        R_star: repetitions (epochs after the first) beyond which they hardly teach anything, with its interval.
        beta: with its interval; where it is at the end of the range searched, the loss is nearly linear in log D'.
        E_N: in nats, by N.
        B_N: in nats at D' = 1, by N.
        runs: how many it was fitted to.
        rms: root mean square of the residuals, in nats.
    """

    R_star: Estimate
    beta: Estimate
    E_N: dict[float, float]
    B_N: dict[float, float]
    runs: int
    rms: float

    def predict(self, N: float, U: Any, D: Any) -> Any:
        """Loss of a size that was fitted, on U unique of D tokens."""
        return self.E_N[N] + self.B_N[N] / effective_tokens(U, D, self.R_star.value) ** self.beta.value

    def summary(self) -> str:
        law = f"L = E_N + B_N / D'^beta, D' = U + U R* (1 - exp(-R / R*)); {counted(self.runs, 'run')}"
        return f"{law}\n  R*       = {self.R_star}\n  beta     = {self.beta}\n  residuals of {self.rms:.4f} nats"


def effective_tokens(U: Any, D: Any, R_star: Any) -> np.ndarray:
    """D': the tokens, all different, that D tokens of which U are unique are worth; D itself where nothing is repeated."""
    U = np.minimum(U, D)
    return U * (1 - R_star * np.expm1(-(D / U - 1) / R_star))


def fit_data_constrained(N: Any, U: Any, D: Any, loss: Any, intervals: Intervals = Intervals()) -> DataConstrainedFit:
    """The law by least squares in L, with intervals from a bootstrap of the residuals, which keeps the design as it is.

    Args:
        N: parameters, U: unique tokens, D: tokens seen, loss: nats per token at the end of runs that do not overfit yet; each
            of shape (runs,).
        intervals: see `Intervals`.

    Raises:
        LawError: "too_few_runs" if there are fewer than four more than twice as many as sizes, or fewer than three that repeat
            data; "one_horizon" if the runs of a size that repeat nothing have one horizon, for then they show no beta;
            "unidentified" if the best R_star lies at an end of where it is looked for.
    """
    N, U, D, loss = (np.asarray(values, dtype=float) for values in (N, U, D, loss))
    sizes, repeated, constants = np.unique(N), int((D > 1.5 * U).sum()), 2 * len(np.unique(N)) + 2
    if repeated < MIN_REPEATED or len(loss) < constants + 2:
        shown = f"{counted(len(loss), 'run')} of {counted(len(sizes), 'size')}, {repeated} of which repeat data"
        raise LawError("too_few_runs", f"{shown}; R* needs {MIN_REPEATED} that do and {constants + 2} in all: add runs")
    for size in sizes:
        new = D[(size == N) & (D <= 1.5 * U)]
        if len(new) == 0 or new.max() < MIN_SPAN * new.min():
            reason = f"N = {size:,.0f} has no two horizons without repetition, which show what fewer tokens cost"
            raise LawError("one_horizon", f"{reason}: add a shorter one")
    problem = _Problem(N=N, U=U, D=D)
    (beta,), (R_star,) = problem.solve(loss[None])
    if R_star in RETURNS[[0, -1]]:
        reason = f"the best R* = {R_star:.3g} is at an end of the range searched"
        raise LawError("unidentified", f"{reason}: add runs of more epochs, and of fewer tokens in one epoch")
    power, lines = effective_tokens(U, D, R_star) ** -beta, {}
    for size in sizes:
        slope, floor = np.polyfit(power[size == N], loss[size == N], 1)
        lines[float(size)] = float(floor), float(slope)
    fitted = np.array([lines[size][0] + lines[size][1] * each for size, each in zip(N, power, strict=True)])
    residual, freedom = loss - fitted, len(loss) - constants
    drawn = np.random.default_rng(intervals.seed).choice(residual, (intervals.resamples, len(loss)))
    betas, returns = problem.solve(fitted + drawn * np.sqrt(len(loss) / freedom))
    returns = np.select([returns == RETURNS[-1], returns == RETURNS[0]], [np.inf, 0.0], returns)
    return DataConstrainedFit(
        R_star=Estimate.from_resamples(R_star, returns, intervals.level),
        beta=Estimate.from_resamples(beta, betas, intervals.level),
        E_N={size: floor for size, (floor, _) in lines.items()},
        B_N={size: slope for size, (_, slope) in lines.items()},
        runs=len(loss),
        rms=float(np.sqrt((residual**2).mean())),
    )


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """The runs. Given beta and R_star the law is linear: these two are searched on a grid, which ends in no local optimum."""

    N: np.ndarray
    U: np.ndarray
    D: np.ndarray

    def solve(self, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """beta and R_star of the best fit to each row of `loss`, shape (K, runs); each (K,)."""
        beta, R_star = (grid.ravel()[:, None] for grid in np.meshgrid(BETA, RETURNS))
        power = (effective_tokens(self.U, self.D, R_star) / self.D.max()) ** -beta  # of the maximum: powers near one
        explained = np.zeros((len(loss), len(beta)))  # of the sum of squares, by the lines of all sizes
        for size in np.unique(self.N):
            x, y = (values[:, size == self.N] for values in (power, loss))
            x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
            explained += np.maximum(y @ x.T, 0) ** 2 / (x**2).sum(axis=1)  # with B < 0 more data would hurt
        best = explained.argmax(axis=1)
        return beta[best, 0], R_star[best, 0]
