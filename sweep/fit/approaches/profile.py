"""One IsoFLOP profile: the runs of one budget, and where their loss is lowest."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweep.fit.result import SAME, Record, count_distinct
from sweep.fit.solver.valley import valley

NEIGHBOURS = 7  # runs around the minimum, for a local cubic
MIN_FOR_CUBIC = 5  # one more than it has coefficients
RECENTRED = 5  # times that a cubic's neighbourhood moves to its minimum
SAME_BUDGET = 1.3  # ratio of the quartiles of C; above it the runs have different budgets


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile(Record):
    """The runs of one budget, the valley through them, and beside it the paper's parabola.

    Attributes:
        budget: planned FLOPs.
        N, D, C, loss: the runs, shape (runs,), N ascending.
        status: "converged", or why there is no minimum: "too_few_sizes", "not_isoflop", "concave", "edge" or "not_bracketed".
        reason: the same in words, with a remedy.
        centre, coefficients: of the parabola loss = c0 + c1 x + c2 x^2, x = log N - centre; empty if there are too few sizes.
        N_opt, D_opt, C_opt, loss_opt: the minimum of the valley; NaN unless converged.
        N_se, loss_se: standard errors of log N_opt and loss_opt; NaN if not known.
        curvature, log_shape: of the valley; see `valley`.
        weight: how much each run counts in the valley, 0 to 1, shape (runs,).
        N_parabola: the minimum of the parabola through all runs; NaN if it has none between the sizes.
        N_bias: log(N_parabola / true N_opt) on the fitted parametric surface; NaN if that does not fit.
        N_cubic: the minimum of a cubic through the nearest runs; NaN if there is none.
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
    N_se: float = np.nan
    loss_se: float = np.nan
    curvature: float = np.nan
    log_shape: tuple[float, ...] = ()
    weight: np.ndarray | None = None
    N_parabola: float = np.nan
    N_bias: float = np.nan
    N_cubic: float = np.nan

    @property
    def x(self) -> np.ndarray:
        """log N - centre of the runs."""
        return np.log(self.N) - self.centre

    def at(self, log_N: float, **found: Any) -> "Profile":
        """The profile with its minimum at `log_N`, and what else was `found` there."""
        x = np.log(self.N)
        D_opt, C_opt = (float(np.exp(np.interp(log_N, x, np.log(values)))) for values in (self.D, self.C))
        return replace(self, N_opt=float(np.exp(log_N)), D_opt=D_opt, C_opt=C_opt, **found)

    def curve(self, N: np.ndarray) -> np.ndarray:
        """Loss of the fitted valley at sizes `N`, or of the parabola if there is no minimum."""
        if not self.log_shape:
            return self.parabola(N)
        return self.loss_opt + self.curvature * valley(np.log(N / self.N_opt), np.array(self.log_shape))[0]

    def parabola(self, N: np.ndarray) -> np.ndarray:
        """Loss of the fitted parabola at sizes `N`."""
        return np.polynomial.polynomial.polyval(np.log(N) - self.centre, self.coefficients)

    def to_dict(self) -> dict[str, Any]:
        """The minimum if there is one, else the reason."""
        minimum = ("N_opt", "D_opt", "C_opt", "loss_opt", "N_se", "loss_se", "N_parabola", "N_cubic")
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
    """The parabola through the runs of one budget, all of shape (runs,).

    The profile has converged if the lowest loss lies inside its sizes and a parabola through all runs, or through the nearest
    five, has its minimum there: a first estimate, from which the valleys of all profiles start.
    """
    order = np.argsort(N, kind="stable")
    N, D, C, loss = N[order], D[order], C[order], loss[order]
    runs: dict[str, Any] = {"budget": budget, "N": N, "D": D, "C": C, "loss": loss}
    if count_distinct(N) < 3:
        return Profile(**runs, status="too_few_sizes", reason="a valley needs 3 sizes: add some")
    low, high = np.quantile(C, [0.25, 0.75])
    if high > SAME_BUDGET * low:
        reason = f"C differs {high / low:.2g}-fold between its quartiles: the grid was laid in another convention"
        return Profile(**runs, status="not_isoflop", reason=reason)
    centre = float(np.log(N).mean())
    x = np.log(N) - centre
    runs |= {"centre": centre, "coefficients": tuple(np.polynomial.polynomial.polyfit(x, loss, 2).tolist())}
    at, lowest, curvature = vertex(x, loss)
    runs["N_parabola"] = float(np.exp(centre + at))
    smallest, largest = N <= N[0] * (1 + SAME), N >= N[-1] * (1 - SAME)
    ends = smallest | largest
    inside = loss[ends].min() >= loss[~ends].min() * (1 - SAME)  # a tie is no sign of a minimum further out
    if inside and not np.isfinite(at) and len(N) > MIN_FOR_CUBIC:
        near = np.argsort(np.abs(x - x[loss.argmin()]), kind="stable")[:MIN_FOR_CUBIC]
        at, lowest, curvature = vertex(x[near], loss[near])
    if np.isnan(curvature):
        reason = "the losses do not bend upwards: sizes too close, or noise; widen the grid"
        return Profile(**runs, status="concave", reason=reason)
    if not np.isfinite(at):
        side = "smaller" if np.polyfit(x, loss, 1)[0] > 0 else "larger"
        return Profile(**runs, status="edge", reason=f"the minimum is not bracketed: add {side} sizes")
    if not inside:
        which, side = ("smallest", "smaller") if smallest[loss.argmin()] else ("largest", "larger")
        reason = f"the {which} size has the lowest loss: add {side} sizes"
        return Profile(**runs, status="not_bracketed", reason=reason)
    return Profile(**runs, status="converged", loss_opt=lowest, curvature=curvature).at(centre + at)


def vertex(x: np.ndarray, loss: np.ndarray) -> tuple[float, float, float]:
    """Where the parabola through the losses at `x` is lowest, NaN if not inside; how low; and its curvature, NaN if it does not
    bend upwards."""
    centre = x.mean()
    c0, c1, c2 = np.polynomial.polynomial.polyfit(x - centre, loss, 2)
    if c2 * np.ptp(x) ** 2 <= SAME * loss.mean():  # flat to rounding is no valley either
        return np.nan, np.nan, np.nan
    at = centre - c1 / (2 * c2)
    return float(at) if x.min() < at < x.max() else np.nan, float(c0 - c1**2 / (4 * c2)), float(2 * c2)


def minimum_of_cubic(x: np.ndarray, loss: np.ndarray, near: float) -> tuple[float, float]:
    """The minimum of the cubic through the runs nearest to it, found from `near` by moving there, and its variance for losses
    of variance 1 (by the delta method); NaN if there is none."""
    for _ in range(RECENTRED):
        chosen = np.argsort(np.abs(x - near), kind="stable")[:NEIGHBOURS]
        if len(np.unique(x[chosen])) < MIN_FOR_CUBIC:
            return np.nan, np.nan
        t = x[chosen] - near
        inverse = np.linalg.pinv(np.vander(t, 4, increasing=True))
        _, c1, c2, c3 = inverse @ loss[chosen]
        # The root of the derivative where the second one is positive, in the form that survives c3 = 0.
        root = 4 * c2**2 - 12 * c3 * c1
        at = -2 * c1 / (2 * c2 + np.sqrt(root)) if root >= 0 and c2 + np.sqrt(max(root, 0)) / 2 != 0 else np.nan
        bend = 2 * c2 + 6 * c3 * at
        if not (bend > 0 and t.min() < at < t.max()):
            return np.nan, np.nan
        gradient = np.array([0, 1, 2 * at, 3 * at**2]) / bend
        near, moved = near + at, abs(at)
        if moved < SAME:
            break
    return float(near), float(gradient @ inverse @ inverse.T @ gradient)
