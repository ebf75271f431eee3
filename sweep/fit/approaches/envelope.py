"""Approach 1: the lower envelope of all training curves (Hoffmann et al. 2022, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sweep.errors import LawError
from sweep.fit.result import Estimate, PowerLaw, check_intervals, positive
from sweep.fit.surface import Compute
from sweep.store.curves import smooth_curve
from sweep.tables.curves import Curve, as_curves

if TYPE_CHECKING:
    import pandas as pd

MIN_SIZES = 3  # two sizes make a step, not a law
METHODS = ("interpolated", "bins", "hull")
MIN_POINTS = 30  # ten in each third
BINS = 50  # wide enough that every bin has points of every size that competes there
CurvesLike: TypeAlias = "Sequence[Curve] | pd.DataFrame"


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """Whether log N_opt bends in log C (Hoffmann et al. 2022, Fig. A5).

    Attributes:
        thirds: the exponent of N_opt in the first, middle and last third of log C.
        second: d^2 log N_opt / d (log C)^2 of a parabola through the envelope; negative where the frontier is concave.
        bends: whether the interval of `second` leaves out zero; None if there is no interval.
    """

    thirds: tuple[Estimate, Estimate, Estimate]
    second: Estimate
    bends: bool | None

    def to_dict(self) -> dict[str, Any]:
        return {"thirds": [third.to_dict() for third in self.thirds], "second": self.second.to_dict(), "bends": self.bends}


@dataclass(frozen=True, kw_only=True, eq=False)
class EnvelopeFit:
    """N_opt = N_law(C) and D_opt = D_law(C), through the winners at log-spaced FLOPs.

    Attributes:
        a, b: the exponents of N_opt and D_opt in C.
        N_law, D_law, loss_law: power laws of N, D and the loss along the envelope.
        flops, loss, N, D: the envelope itself, shape (points,): at each C the lowest loss and whose it was.
        curvature: whether one power law is enough.
        method: how the envelope was drawn, one of `METHODS`.
        compute: what C the curves cost.
        replicates: the three laws for each resample, coefficients and exponents of shape (resamples,).
        level: of the intervals.
    """

    a: Estimate
    b: Estimate
    N_law: PowerLaw
    D_law: PowerLaw
    loss_law: PowerLaw
    flops: np.ndarray
    loss: np.ndarray
    N: np.ndarray
    D: np.ndarray
    curvature: Curvature
    method: str
    compute: Compute
    replicates: dict[str, PowerLaw] = field(repr=False)
    level: float
    status: str = "converged"

    def optimal(self, C: Any) -> tuple[Any, Any]:
        """(N_opt, D_opt) at budgets `C`."""
        return self.N_law(positive("C", C)), self.D_law(C)

    def predict(self, N: Any, D: Any) -> Any:
        """The lowest training loss that the FLOPs of (N, D) buy, at their best split; at any other the loss is higher."""
        return self.loss_law(self.compute.flops(positive("N", N), positive("D", D)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "loss": "train",  # under any convention: curves have no other
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "N_coefficient": self.N_law.coefficient,
            "D_coefficient": self.D_law.coefficient,
            "loss_law": dict(vars(self.loss_law)),
            "sizes_on_envelope": len(np.unique(self.N)),
            "flops_range": [float(self.flops[0]), float(self.flops[-1])],
            "method": self.method,
            "curvature": self.curvature.to_dict(),
        }

    def summary(self) -> str:
        """For a reader."""
        first, middle, last = (third.value for third in self.curvature.thirds)
        verdict = {True: "the frontier bends", False: "no sign that the frontier bends", None: "no interval"}[
            self.curvature.bends
        ]
        return "\n".join(
            [
                "Approach 1, envelope of the curves",
                f"  a = {self.a}   b = {self.b}",
                f"  a in the first, middle and last third of log C: {first:.3g}, {middle:.3g}, {last:.3g}",
                f"  d²log N_opt/d(log C)² = {self.curvature.second}: {verdict}",
            ]
        )


def fit_envelope(
    curves: CurvesLike,
    *,
    method: str = "interpolated",
    smoothing: float = 0,
    points: int = 1500,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
) -> EnvelopeFit:
    """Fit the envelope of `curves`.

    The FLOPs run from the end of the shortest run, before which no run has a decayed rate, to where the third-last size ends:
    beyond, too few sizes compete for the best to mean anything.
    Intervals come from resampling whole curves, as the points of one curve are not independent. The least of fewer curves
    is higher, so the resamples of the loss law are shifted to have their median at its value.

    Args:
        curves: `Curve`s, or a pandas table with columns run_id, N, tokens and loss (and flops_per_token, by default 6 N).
        method: "interpolated": the best of all curves, read off at `points` log-spaced FLOPs, as in the paper; "bins": the
            lowest measured point of each of 50 bins of log C; "hull": the vertices of the lower convex hull of all measured
            points in log C and log L, without the first and the last, which the range makes vertices; it has no interval.
        smoothing: standard deviation, in points of a curve, of the Gaussian to smooth with; the paper takes 10 steps. 0 for
            curves that are smooth, as those of a sweep's curves.parquet are.
        points: along the envelope.
        resamples, level, seed: of the intervals.

    Raises:
        LawError: if fewer than three sizes are ever best.
    """
    if method not in METHODS:
        raise LawError("bad_option", f"method={method!r} is none of {', '.join(METHODS)}")
    if points < MIN_POINTS:
        raise LawError("bad_option", f"points={points} is out of range; it must be at least {MIN_POINTS}")
    check_intervals(resamples, level, seed)
    known = as_curves(curves)
    if not known:
        raise LawError("no_curves", "there are no training curves; Approach 1 needs them beside the table of runs")
    if len({curve.N for curve in known}) < MIN_SIZES:
        raise LawError(
            "too_few_sizes", f"the curves are of fewer than {MIN_SIZES} sizes; Approach 1 needs more: widen the grid"
        )
    sweep = _Curves(known, smoothing, points, method)
    everything = np.arange(len(known))
    flops, N, D, loss = sweep.envelope(everything)
    if (sizes := len(np.unique(N))) < MIN_SIZES:
        raise LawError(
            "too_few_sizes", f"only {sizes} sizes are ever best; Approach 1 needs at least {MIN_SIZES}: widen the grid"
        )
    rng = np.random.default_rng(seed)
    drawn = np.full((resamples, 10), np.nan)
    # Vertices of a hull are extremes, and few: resampling them makes intervals that hold the truth in one case of four.
    for i in range(resamples if method != "hull" else 0):
        resample = sweep.envelope(np.unique(rng.choice(everything, len(known))))
        if len(np.unique(resample[1])) >= MIN_SIZES:  # nothing less is a law
            drawn[i] = _statistics(*resample)
    value = _statistics(flops, N, D, loss)
    if np.isfinite(drawn[:, 4]).any():
        drawn[:, 4:6] += np.array(value[4:6]) - np.nanmedian(drawn[:, 4:6], axis=0)
    a, b, first, middle, last, second = (Estimate.from_resamples(value[i], drawn[:, i], level) for i in (0, 2, 6, 7, 8, 9))
    laws = {
        name: (PowerLaw(exponent=value[i], coefficient=float(np.exp(value[i + 1]))), _law(drawn[:, i : i + 2]))
        for i, name in ((0, "N"), (2, "D"), (4, "loss"))
    }
    bends = None if second.low is None or second.high is None else not second.low <= 0 <= second.high
    return EnvelopeFit(
        a=a,
        b=b,
        N_law=laws["N"][0],
        D_law=laws["D"][0],
        loss_law=laws["loss"][0],
        flops=flops,
        loss=loss,
        N=N,
        D=D,
        curvature=Curvature(thirds=(first, middle, last), second=second, bends=bends),
        method=method,
        compute=_compute(known),
        replicates={name: law for name, (_, law) in laws.items()},
        level=level,
    )


def _statistics(flops: np.ndarray, N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> list[float]:
    """Exponent and log-coefficient of N, D and loss in C; the exponent of N in thirds of log C; its second derivative."""
    x = np.log(flops)
    whole = [term for y in (N, D, loss) for term in np.polyfit(x, np.log(y), 1)]
    thirds = []
    for part in range(3):
        low, high = x[0] + (x[-1] - x[0]) * np.array([part, part + 1]) / 3
        inside = (x >= low) & (x <= high)
        thirds.append(np.polyfit(x[inside], np.log(N[inside]), 1)[0] if inside.sum() > 1 else np.nan)
    centred = x - x.mean()
    return [float(v) for v in (*whole, *thirds, 2 * np.polyfit(centred, np.log(N), 2)[0] if len(x) > 2 else np.nan)]


def _compute(curves: Sequence[Curve]) -> Compute:
    N, per_token = (np.array([getattr(curve, name) for curve in curves]) for name in ("N", "flops_per_token"))
    return Compute.of_runs(N, np.ones_like(N), per_token)


def _law(exponent_and_log: np.ndarray) -> PowerLaw:
    return PowerLaw(exponent=exponent_and_log[:, 0], coefficient=np.exp(exponent_and_log[:, 1]))


class _Curves:
    """The curves, prepared so that the envelope of any of them is quick."""

    def __init__(self, curves: Sequence[Curve], smoothing: float, points: int, method: str) -> None:
        self.method = method
        self.N, self.per_token = (np.array([getattr(curve, name) for curve in curves]) for name in ("N", "flops_per_token"))
        low, high = _range_of_flops(curves)
        self.flops = np.geomspace(low, high, points)
        smooth = [smooth_curve(curve.loss, smoothing) for curve in curves]
        if method == "interpolated":
            self.losses = np.stack([_interpolate(curve, loss, self.flops) for curve, loss in zip(curves, smooth, strict=True)])
            return
        self.edges = np.geomspace(low, high, BINS + 1)
        # All measured points in the range, and whose they are, by C.
        C = np.concatenate([curve.tokens * curve.flops_per_token for curve in curves])
        owner = np.repeat(np.arange(len(curves)), [len(curve.loss) for curve in curves])
        inside = np.flatnonzero((low * (1 - 1e-9) <= C) & (high * (1 + 1e-9) >= C))
        order = inside[np.argsort(C[inside], kind="stable")]
        self.C, self.owner, self.L = C[order], owner[order], np.concatenate(smooth)[order]

    def envelope(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """C, N, D and loss along the envelope of the `chosen` curves, each of shape (points,)."""
        if self.method == "interpolated":
            winners = chosen[np.argmin(self.losses[chosen], axis=0)]
            loss = self.losses[winners, np.arange(len(self.flops))]
            reached = np.isfinite(loss)  # a resample may lack the longest run
            flops, winners, loss = self.flops[reached], winners[reached], loss[reached]
        else:
            own = np.flatnonzero(np.isin(self.owner, chosen))
            C, L = self.C[own], self.L[own]
            best = _lowest_of_bins(C, L, self.edges) if self.method == "bins" else _lower_hull(np.log(C), np.log(L))[1:-1]
            flops, winners, loss = C[best], self.owner[own][best], L[best]
        return flops, self.N[winners], flops / self.per_token[winners], loss


def _lowest_of_bins(C: np.ndarray, L: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The index of the lowest L in every bin of C that is not empty; C ascending."""
    bins = np.searchsorted(edges[1:-1], C, side="right")
    order = np.lexsort((L, bins))
    _, first = np.unique(bins[order], return_index=True)
    return order[first]


def _lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of the lower convex hull's vertices up to the lowest point, x ascending (Andrew 1979)."""
    hull: list[int] = []
    for i in range(int(y.argmin()) + 1):
        while len(hull) > 1 and (x[hull[-1]] - x[hull[-2]]) * (y[i] - y[hull[-2]]) <= (x[i] - x[hull[-2]]) * (
            y[hull[-1]] - y[hull[-2]]
        ):
            hull.pop()
        hull.append(i)
    return np.array(hull)


def _range_of_flops(curves: Sequence[Curve]) -> tuple[float, float]:
    ends: dict[float, list[float]] = {}
    for curve in curves:
        ends.setdefault(curve.N, []).append(float(curve.tokens[-1] * curve.flops_per_token))
    last_of_each_size = sorted(max(of_size) for of_size in ends.values())
    return min(min(of_size) for of_size in ends.values()), last_of_each_size[-MIN_SIZES]


def _interpolate(curve: Curve, loss: np.ndarray, flops: np.ndarray) -> np.ndarray:
    """Loss at `flops`, linear in log-log; infinite where the run was not, so that it never wins there."""
    x = np.log(curve.tokens * curve.flops_per_token)
    # A rounding error must not keep a run from the point where it ends.
    at = np.where(np.isclose(np.log(flops), x[-1], rtol=0, atol=1e-9), x[-1], np.log(flops))
    return np.exp(np.interp(at, x, np.log(loss), left=np.inf, right=np.inf))
