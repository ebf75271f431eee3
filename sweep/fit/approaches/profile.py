"""One IsoFLOP profile: the runs of one budget, and where their loss is lowest."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.fit.result import SAME, Record, count_distinct

NEIGHBOURS = 7  # runs around the minimum, for a local cubic
MIN_FOR_CUBIC = 5  # one more than it has coefficients
SAME_BUDGET = 1.3  # ratio of the quartiles of C; above it the runs have different budgets


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile(Record):
    """The runs of one budget and the parabola loss = c0 + c1 x + c2 x^2 through them, x = log N - centre.

    Attributes:
        budget: planned FLOPs.
        N, D, C, loss: the runs, shape (runs,), N ascending.
        status: "converged", or why there is no minimum: "too_few_sizes", "not_isoflop", "concave", "edge" or "not_bracketed".
        reason: the same in words, with a remedy.
        centre, coefficients: of the parabola (c0, c1, c2); empty if there are too few sizes.
        N_opt, D_opt, C_opt, loss_opt: its minimum; NaN unless converged.
        N_cubic: the minimum of a cubic through the nearest runs, which may be steeper on one side; NaN if there is none.
        N_bias: log(N_opt by the parabola / true N_opt) on the fitted parametric surface; NaN if not known.
        N_se: standard error of log N_opt; NaN if not known.
    """

    budget: float
    N: np.ndarray
    D: np.ndarray
    C: np.ndarray
    loss: np.ndarray
    status: str
    reason: str = ""
    centre: float = np.nan
    coefficients: tuple[float, ...] = ()
    N_opt: float = np.nan
    D_opt: float = np.nan
    C_opt: float = np.nan
    loss_opt: float = np.nan
    N_cubic: float = np.nan
    N_bias: float = np.nan
    N_se: float = np.nan

    @property
    def x(self) -> np.ndarray:
        """log N - centre of the runs."""
        return np.log(self.N) - self.centre

    @property
    def N_corrected(self) -> float:
        """N_opt without the parabola's bias."""
        return self.N_opt * float(np.exp(-self.N_bias))

    def parabola(self, N: np.ndarray) -> np.ndarray:
        """Loss of the fitted parabola at sizes `N`."""
        return np.polynomial.polynomial.polyval(np.log(N) - self.centre, self.coefficients)

    def to_dict(self) -> dict[str, Any]:
        """The minimum if there is one, else the reason."""
        minimum = ("N_opt", "D_opt", "C_opt", "loss_opt", "N_cubic", "N_corrected", "N_se")
        found = self.pick(*(minimum if self.status == "converged" else ("reason",)))
        return {"budget": self.budget, "runs": len(self.N), "status": self.status, **found}

    def line(self) -> str:
        if self.status != "converged":
            return f"C = {self.budget:.3g}: no minimum ({self.status}): {self.reason}"
        error = f" ± {self.N_se:.0%}" if np.isfinite(self.N_se) else ""
        return (
            f"C = {self.budget:.3g}: N_opt = {self.N_opt:.4g}{error}, D_opt = {self.D_opt:.4g} "
            f"({self.D_opt / self.N_opt:.3g} tokens per parameter), loss {self.loss_opt:.4f}"
        )


def fit_profile(budget: float, N: np.ndarray, D: np.ndarray, C: np.ndarray, loss: np.ndarray) -> Profile:
    """The parabola through the runs of one budget, all of shape (runs,); its extremum must be a minimum between the sizes."""
    order = np.argsort(N, kind="stable")
    N, D, C, loss = N[order], D[order], C[order], loss[order]
    runs: dict[str, Any] = {"budget": budget, "N": N, "D": D, "C": C, "loss": loss}
    if count_distinct(N) < 3:
        return Profile(**runs, status="too_few_sizes", reason="a parabola needs 3 sizes")
    low, high = np.quantile(C, [0.25, 0.75])
    if high > SAME_BUDGET * low:
        reason = f"C differs {high / low:.2g}-fold between its quartiles: the grid was laid in another convention"
        return Profile(**runs, status="not_isoflop", reason=reason)
    centre = float(np.log(N).mean())
    x = np.log(N) - centre
    coefficients = tuple(np.polynomial.polynomial.polyfit(x, loss, 2).tolist())
    fitted: dict[str, Any] = {**runs, "centre": centre, "coefficients": coefficients}
    if coefficients[2] * np.ptp(x) ** 2 <= SAME * loss.mean():  # flat to rounding is no valley either
        return Profile(**fitted, status="concave", reason="the parabola opens downwards: sizes too close, or noise")
    minimum = -coefficients[1] / (2 * coefficients[2])
    if not x[0] < minimum < x[-1]:
        side = "smaller" if minimum <= x[0] else "larger"
        return Profile(**fitted, status="edge", reason=f"the minimum is not bracketed: add {side} sizes")
    smallest, largest = N <= N[0] * (1 + SAME), N >= N[-1] * (1 - SAME)
    edge = smallest | largest
    if loss[edge].min() < loss[~edge].min() * (1 - SAME):  # a tie is no sign of a minimum further out
        which, side = ("smallest", "smaller") if smallest[loss.argmin()] else ("largest", "larger")
        reason = f"the {which} size has the lowest loss: add {side} sizes"
        return Profile(**fitted, status="not_bracketed", reason=reason)
    return Profile(
        **fitted,
        status="converged",
        N_opt=float(np.exp(centre + minimum)),
        D_opt=float(np.exp(np.interp(minimum, x, np.log(D)))),
        C_opt=float(np.exp(np.interp(minimum, x, np.log(C)))),
        loss_opt=float(np.polynomial.polynomial.polyval(minimum, coefficients)),
        N_cubic=float(np.exp(centre + minima_of_cubics(x, loss[None], minimum)[0])),
    )


def minima_of_parabolas(x: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the parabolas through `losses`, shape (replicates, runs), at `x` are lowest, and how low; NaN if not inside x."""
    c0, c1, c2 = np.linalg.pinv(np.vander(x, 3, increasing=True)) @ losses.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at = -c1 / (2 * c2)
        inside = (c2 > 0) & (at > x.min()) & (at < x.max())
        return np.where(inside, at, np.nan), np.where(inside, c0 - c1**2 / (4 * c2), np.nan)


def minima_of_cubics(x: np.ndarray, losses: np.ndarray, near: float) -> np.ndarray:
    """The same for cubics through the runs nearest to `near`, shape (replicates,)."""
    chosen = np.argsort(np.abs(x - near), kind="stable")[:NEIGHBOURS]
    if len(np.unique(x[chosen])) < MIN_FOR_CUBIC:
        return np.full(len(losses), np.nan)
    t = x[chosen] - near
    _, c1, c2, c3 = np.linalg.pinv(np.vander(t, 4, increasing=True)) @ losses[:, chosen].T
    with np.errstate(invalid="ignore", divide="ignore"):
        # The root of the derivative where the second one is positive, in the form that survives c3 = 0.
        at = -2 * c1 / (2 * c2 + np.sqrt(4 * c2**2 - 12 * c3 * c1))
        return np.where((c2 + 3 * c3 * at > 0) & (at > t.min()) & (at < t.max()), near + at, np.nan)
