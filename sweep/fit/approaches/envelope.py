"""Approach 1: the lower envelope of all training curves (Hoffmann et al. 2022, section 3.1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches.approach import Options, PowerLaws
from sweep.fit.approaches.lower_envelope import METHODS, MIN_SIZES, LowerEnvelope, statistics
from sweep.fit.result import Estimate, Intervals, PowerLaw, Record, count_distinct, positive
from sweep.fit.surface import Compute
from sweep.tables.curves import Curve, as_curves

if TYPE_CHECKING:
    import pandas as pd

    from sweep.fit.approaches import Laws

MIN_POINTS = 30  # ten in each third
CurvesLike: TypeAlias = "Sequence[Curve] | pd.DataFrame | Mapping[str, ArrayLike]"


@dataclass(frozen=True, kw_only=True)
class Curvature(Record):
    """Whether log N_opt bends in log C (Hoffmann et al. 2022, Fig. A5).

    Attributes:
        thirds: the exponent of N_opt in the first, middle and last third of log C.
        second: d^2 log N_opt / d (log C)^2 of a parabola through the envelope; negative where the frontier is concave.
        bends: whether the interval of `second` excludes zero; None if there is no interval.
    """

    thirds: tuple[Estimate, Estimate, Estimate]
    second: Estimate
    bends: bool | None


@dataclass(frozen=True, kw_only=True, eq=False)
class EnvelopeFit(PowerLaws):
    """Power laws along the envelope, at log-spaced FLOPs.

    Attributes:
        flops, loss, N, D: the envelope itself, shape (points,): the lowest loss at each C, and the run that has it.
        curvature: whether one power law is enough.
        envelope: how the envelope was drawn, one of `METHODS`.
    """

    name: ClassVar[str] = "envelope"
    number: ClassVar[int] = 1
    method: ClassVar[str] = "envelope of the training curves"
    resampled: ClassVar[str] = "curves"
    reads_curves: ClassVar[bool] = True
    variants: ClassVar[dict[str, str]] = {"envelope": "a"}

    flops: np.ndarray
    loss: np.ndarray
    N: np.ndarray
    D: np.ndarray
    curvature: Curvature
    envelope: str

    @classmethod
    def fit(cls, laws: "Laws") -> "EnvelopeFit":
        options = laws.options
        return fit_envelope(laws.curves, method=options.envelope, points=options.envelope_points, intervals=options.intervals)

    @property
    def largest(self) -> float:
        return float(self.flops[-1])

    def predict(self, N: Any, D: Any) -> Any:
        """The lowest training loss that the FLOPs of (N, D) buy, at their best split; any other split has a higher loss."""
        return self.loss_law(self.compute.flops(positive("N", N), positive("D", D)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "loss": "train",  # under any convention: curves have no other
            **self.laws_to_dict(),
            "sizes_on_envelope": len(np.unique(self.N)),
            "flops_range": [float(self.flops[0]), float(self.flops[-1])],
            "method": self.envelope,
            "curvature": self.curvature.to_dict(),
        }

    def remarks(self) -> list[str]:
        thirds = ", ".join(f"{third.value:.3g}" for third in self.curvature.thirds)
        verdict = {True: "the frontier bends", False: "no sign that the frontier bends", None: "no interval"}
        return [
            f"a in the first, middle and last third of log C: {thirds}",
            f"d²log N_opt/d(log C)² = {self.curvature.second}: {verdict[self.curvature.bends]}",
        ]

    def choices(self, options: Options, unit: str) -> Iterator[tuple[str, str]]:
        yield "Approach 1's envelope", f"{options.envelope}, {options.envelope_points} points"


def fit_envelope(
    curves: CurvesLike,
    *,
    method: str = "interpolated",
    smoothing: float = 0,
    points: int = 1500,
    intervals: Intervals = Intervals(),
) -> EnvelopeFit:
    """Fit the envelope of `curves`.

    The FLOPs run from the end of the shortest run, before which no run's learning rate has decayed, to the end of the
    third-last size: beyond it, too few sizes compete for the best to mean anything.
    Intervals come from resampling whole curves, as the points of one curve are not independent. The minimum of fewer curves
    is higher, so the resamples of the loss law are shifted to have their median at its value.

    Args:
        curves: `Curve`s, or a table with columns run_id, N, tokens and loss (and flops_per_token, by default 6 N).
        method: "interpolated": the best of all curves, read off at `points` log-spaced FLOPs, as in the paper; "bins": the
            lowest measured point of each of 50 bins of log C; "hull": the vertices of the lower convex hull of all measured
            points in log C and log L. The hull's first and last vertices depend only on the range and are left out, and it has
            no interval.
        smoothing: standard deviation, in points of a curve, of the Gaussian to smooth with; the paper takes 10 steps. 0 for
            curves that are already smooth, such as those in a sweep's curves.parquet.
        points: along the envelope.
        intervals: see `Intervals`.

    Raises:
        LawError: "bad_option" if an option is out of range, "no_curves" without curves, "too_few_sizes" if fewer than three
            sizes are ever best.
    """
    if method not in METHODS:
        raise LawError("bad_option", f"method={method!r} is none of {', '.join(METHODS)}")
    if points < MIN_POINTS:
        raise LawError("bad_option", f"points={points} is out of range; it must be at least {MIN_POINTS}")
    known = as_curves(curves)
    if not known:
        raise LawError("no_curves", "there are no training curves; Approach 1 needs them beside the table of runs")
    if count_distinct(np.array([curve.N for curve in known])) < MIN_SIZES:
        reason = f"the curves are of fewer than {MIN_SIZES} sizes; Approach 1 needs more: widen the grid"
        raise LawError("too_few_sizes", reason)
    sweep = LowerEnvelope(known, smoothing, points, method)
    everything = np.arange(len(known))
    flops, N, D, loss = sweep.of(everything)
    if (sizes := count_distinct(N)) < MIN_SIZES:
        reason = f"only {sizes} sizes are ever best; Approach 1 needs at least {MIN_SIZES}: widen the grid"
        raise LawError("too_few_sizes", reason)
    rng = np.random.default_rng(intervals.seed)
    drawn = np.full((intervals.resamples, 10), np.nan)
    # The vertices of a hull are few, and extremes: intervals from resampling them hold the truth in one case of four.
    for i in range(intervals.resamples if method != "hull" else 0):
        resample = sweep.of(np.unique(rng.choice(everything, len(known))))
        if count_distinct(resample[1]) >= MIN_SIZES:
            drawn[i] = statistics(*resample)
    value = statistics(flops, N, D, loss)
    if np.isfinite(drawn[:, 4]).any():
        drawn[:, 4:6] += np.array(value[4:6]) - np.nanmedian(drawn[:, 4:6], axis=0)
    estimates = [Estimate.from_resamples(value[i], drawn[:, i], intervals.level) for i in range(10)]
    second = estimates[9]
    N_law, D_law, loss_law = (PowerLaw(exponent=value[i], coefficient=float(np.exp(value[i + 1]))) for i in (0, 2, 4))
    resampled = [PowerLaw(exponent=drawn[:, i], coefficient=np.exp(drawn[:, i + 1])) for i in (0, 2, 4)]
    return EnvelopeFit(
        a=estimates[0],
        b=estimates[2],
        N_law=N_law,
        D_law=D_law,
        loss_law=loss_law,
        flops=flops,
        loss=loss,
        N=N,
        D=D,
        curvature=Curvature(
            thirds=(estimates[6], estimates[7], estimates[8]),
            second=second,
            bends=None if second.low is None or second.high is None else not second.low <= 0 <= second.high,
        ),
        envelope=method,
        compute=Compute.of_runs(sweep.N, np.ones_like(sweep.N), sweep.per_token),
        replicates=dict(zip(("N", "D", "loss"), resampled, strict=True)),
        level=intervals.level,
    )
