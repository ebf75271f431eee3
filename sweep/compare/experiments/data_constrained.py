"""The data-constrained scaling law of Muennighoff et al. 2023 (arXiv 2305.16264): what repeated tokens are worth."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit import Estimate, Intervals
from sweep.fit.result import Record
from sweep.words import counted

R_STAR = 15.387756  # of data, as published
BETA, RETURNS = np.geomspace(0.05, 2.5, 90), np.geomspace(0.1, 1000, 200)  # where beta and R_star are looked for
MIN_REPEATED = 3  # runs of more than one and a half epochs


@dataclass(frozen=True, kw_only=True)
class DataConstrainedFit(Record):
    """L = E_N + B / D'^beta with the effective tokens D' = U + U R_star (1 - exp(-R / R_star)), R = D / U - 1: equations 4, 5.

    E_N is a constant of each size, so that nothing is assumed of how the loss depends on N (in the paper E + A / N'^alpha).
    The effective parameters N' are left out: here repetition costs a larger model the same share of its tokens.

    Attributes:
        R_star: repetitions (epochs after the first) beyond which they hardly teach anything, with its interval.
        beta: with its interval.
        B: in nats at D' = 1.
        floors: E_N by N.
        runs: how many it was fitted to.
        rms: root mean square of the residuals, in nats.
    """

    R_star: Estimate
    beta: Estimate
    B: float
    floors: dict[float, float]
    runs: int
    rms: float

    def predict(self, N: float, U: Any, D: Any) -> Any:
        """Loss of a size that was fitted, on U unique of D tokens."""
        return self.floors[N] + self.B / effective_tokens(U, D, self.R_star.value) ** self.beta.value

    def summary(self) -> str:
        law = f"L = E_N + B / D'^beta, D' = U + U R* (1 - exp(-R / R*)); {counted(self.runs, 'run')}"
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
        LawError: "too_few_runs" if there are fewer than five more than sizes, or none that repeat data; "unidentified" if the
            best R_star or beta lies at an end of where it is looked for.
    """
    N, U, D, loss = (np.asarray(values, dtype=float) for values in (N, U, D, loss))
    sizes, repeated = np.unique(N), int((D > 1.5 * U).sum())
    if repeated < MIN_REPEATED or len(loss) < len(sizes) + 5:
        shown = (
            f"{counted(len(loss), 'run')} of {counted(len(sizes), 'size')} before overfitting, {repeated} of them repeat data"
        )
        raise LawError("too_few_runs", f"{shown}; R* needs {MIN_REPEATED} that do and {len(sizes) + 5} in all: add runs")
    problem = _Problem(N=N, U=U, D=D)
    (beta,), (R_star,), (B,) = problem.solve(loss[None])
    if beta in BETA[[0, -1]] or R_star in RETURNS[[0, -1]]:
        reason = f"the best fit is at an end of the range searched (R* = {R_star:.3g}, beta = {beta:.3g})"
        raise LawError("unidentified", f"{reason}: add runs of fewer tokens in one epoch, or of more epochs")
    term = B * effective_tokens(U, D, R_star) ** -beta
    floors = {float(size): float((loss - term)[size == N].mean()) for size in sizes}
    fitted = np.array([floors[size] for size in N]) + term
    residual, freedom = loss - fitted, len(loss) - len(sizes) - 3
    drawn = np.random.default_rng(intervals.seed).choice(residual, (intervals.resamples, len(loss)))
    betas, returns, _ = problem.solve(fitted + drawn * np.sqrt(len(loss) / freedom))
    returns = np.select([returns == RETURNS[-1], returns == RETURNS[0]], [np.inf, 0.0], returns)
    return DataConstrainedFit(
        R_star=Estimate.from_resamples(R_star, returns, intervals.level),
        beta=Estimate.from_resamples(beta, betas, intervals.level),
        B=float(B),
        floors=floors,
        runs=len(loss),
        rms=float(np.sqrt((residual**2).mean())),
    )


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """The runs. Given beta and R_star the law is linear: these two are searched on a grid, which ends in no local optimum."""

    N: np.ndarray
    U: np.ndarray
    D: np.ndarray

    def solve(self, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """beta, R_star and B of the best fit to each row of `loss`, shape (K, runs); each (K,)."""
        beta, R_star = (grid.ravel()[:, None] for grid in np.meshgrid(BETA, RETURNS))
        scale = np.exp(np.log(self.D).mean())  # keeps the powers near one
        x = self._centred((effective_tokens(self.U, self.D, R_star) / scale) ** -beta)
        y = self._centred(loss)
        slope = np.maximum(y @ x.T, 0) / (x**2).sum(axis=1)  # with B < 0 more data would hurt
        best = ((slope**2) * (x**2).sum(axis=1)).argmax(axis=1)  # what the term explains of the sum of squares
        return beta[best, 0], R_star[best, 0], slope[np.arange(len(y)), best] * scale ** beta[best, 0]

    def _centred(self, values: np.ndarray) -> np.ndarray:
        """`values`, shape (rows, runs), less their mean over the runs of the same size."""
        _, member = np.unique(self.N, return_inverse=True)
        of_size = np.eye(member.max() + 1)[member]
        return values - (values @ of_size / of_size.sum(axis=0))[:, member]
