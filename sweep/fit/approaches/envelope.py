"""Approach 1: the lower envelope of all training curves (Hoffmann et al. 2022, section 3.1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sweep.errors import LawError
from sweep.fit.approaches.approach import Options, PowerLaws
from sweep.fit.approaches.between_sizes import Slices, read_between_sizes
from sweep.fit.approaches.lower_envelope import MIN_WINNERS, Curvature, LowerEnvelope, power_laws, statistics
from sweep.fit.result import Estimate, Intervals, PowerLaw, count_distinct, positive
from sweep.fit.surface import Compute
from sweep.store.curves import smooth_curve
from sweep.tables.curves import Curve, as_curves

if TYPE_CHECKING:
    import pandas as pd

    from sweep.fit.approaches import Laws

MIN_POINTS = 30
MIN_SIZES = 4  # a parabola has three constants
METHODS = ("between_sizes", "interpolated", "bins", "hull")
CurvesLike: TypeAlias = "Sequence[Curve] | pd.DataFrame | Mapping[str, ArrayLike]"


@dataclass(frozen=True, kw_only=True, eq=False)
class EnvelopeFit(PowerLaws):
    """Power laws through the best sizes at log-spaced FLOPs, from training losses.

    Attributes:
        flops, loss, N, D: the lowest loss at each C and the size that has it, shape (points,), where others compete.
        a_points, a_hull: a by "interpolated", as in the paper, and "hull", without intervals; None if under three sizes win.
        curvature: whether one power law is enough.
        envelope: where a is read off, one of `METHODS`.
        slices: the optima between sizes, and how much of C has one.
    """

    name: ClassVar[str] = "envelope"
    number: ClassVar[int] = 1
    method: ClassVar[str] = "envelope of the training curves"
    resampled: ClassVar[str] = "the curves' deviations"
    reads_curves: ClassVar[bool] = True
    variants: ClassVar[dict[str, str]] = {"envelope": "a", "the paper's points": "a_points", "convex hull": "a_hull"}

    flops: np.ndarray
    loss: np.ndarray
    N: np.ndarray
    D: np.ndarray
    a_points: Estimate | None
    a_hull: Estimate | None
    curvature: Curvature
    envelope: str
    slices: Slices = field(repr=False)

    @classmethod
    def fit(cls, laws: "Laws") -> "EnvelopeFit":
        options = laws.options
        return fit_envelope(laws.curves, method=options.envelope, points=options.envelope_points, intervals=options.intervals)

    @property
    def largest(self) -> float:
        return float(np.exp(self.slices.x[-1]))

    reach = largest

    def optimal_loss(self, C: Any) -> Any:
        """The lowest training loss: the envelope's own in the range of C that was fitted, and the power law beyond."""
        return self._loss(C, self.slices.log_loss, self.loss_law)

    def resampled_at(self, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        N, D, _ = super().resampled_at(C)
        laws = self.replicates["loss"]
        each = zip(self.slices.drawn_log_loss, laws.coefficient, laws.exponent, strict=True)
        return N, D, np.array([self._loss(C, log_loss, PowerLaw(coefficient=k, exponent=g)) for log_loss, k, g in each])

    def _loss(self, C: Any, log_loss: np.ndarray, law: PowerLaw) -> Any:
        """The loss of the slices at `C`; beyond them by `law`, shifted to meet it."""
        x = np.log(positive("C", C))
        inside = np.clip(x, self.slices.x[0], self.slices.x[-1])
        return (np.exp(np.interp(inside, self.slices.x, log_loss)) * law(np.exp(x)) / law(np.exp(inside)))[()]

    def predict(self, N: Any, D: Any) -> Any:
        """The lowest training loss that the FLOPs of (N, D) buy, at their best split; any other split has a higher loss."""
        return self.optimal_loss(self.compute.flops(positive("N", N), positive("D", D)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "loss": "train",  # under any convention: curves have no other
            **self.laws_to_dict(),
            **self.pick("a_points", "a_hull"),
            **{name: getattr(self.slices, name) for name in ("decades", "of_decades", "lift", "misfit")},
            "flops_range": [float(np.exp(x)) for x in self.slices.x[[0, -1]]],
            "method": self.envelope,
            "curvature": self.curvature.to_dict(),
        }

    def remarks(self) -> list[str]:
        thirds = ", ".join(f"{third.value:.3g}" for third in self.curvature.thirds)
        verdict = {True: "the frontier bends", False: "no sign that the frontier bends", None: "no interval"}
        points, hull = (f"{each.value:.4g}" if each else "too few sizes win" for each in (self.a_points, self.a_hull))
        of = self.slices
        lifted = f", less {of.lift:.2g} nats before the learning rate has decayed" if of.lift > 0 else ""
        misfit = [
            f"the optima are {of.misfit:.2g} times as far off one law as the curves' noise explains: intervals are as wide"
        ]
        return [
            f"training losses{lifted}; the best size has smaller and larger ones beside it at {of.decades:.1f} of "
            f"{of.of_decades:.1f} decades of C, and only these count",
            f"a along the best runs themselves, as in the paper: {points}; along the convex hull: {hull}",
            f"a in the first, middle and last third of log C: {thirds}",
            f"d²log N_opt/d(log C)² = {self.curvature.second}: {verdict[self.curvature.bends]}",
            *(misfit if of.misfit > 1 else []),
        ]

    def choices(self, options: Options, unit: str) -> Iterator[tuple[str, str]]:
        yield "Approach 1's envelope", options.envelope.replace("_", " ")


def fit_envelope(
    curves: CurvesLike,
    *,
    method: str = "between_sizes",
    smoothing: float = 0,
    points: int = 1500,
    intervals: Intervals = Intervals(),
) -> EnvelopeFit:
    """Fit the best size at each C.

    C at which the best size is the smallest or the largest that runs are left out, since a better one may be missing. Intervals
    draw new deviations of the curves, as large and as correlated along a curve as theirs are.

    Args:
        curves: `Curve`s, or a table with columns run_id, N, tokens and loss (and flops_per_token, by default 6 N). Their
            order and their names do not matter.
        method: "between_sizes": the minima of parabolas through the losses of all runs near the optimum; "interpolated": the
            best of all curves at `points` log-spaced FLOPs, as in the paper; "bins": the lowest point in each of 50 bins
            of log C; "hull": the vertices of the lower convex hull of all points in log C and log L. Only the first has
            intervals: resampling a few winners does not tell how far they are off.
        smoothing: standard deviation, in points of a curve, of the Gaussian to smooth with; the paper takes 10 steps. 0 for
            curves that are already smooth, such as those in a sweep's curves.parquet.
        points: along the envelope.
        intervals: see `Intervals`.

    Raises:
        LawError: "bad_option" if an option is out of range, "no_curves" without curves, "too_few_sizes" if the best size is
            the smallest or the largest at nearly all C, "undecayed" if all losses are in mid-schedule.
    """
    if method not in METHODS:
        raise LawError("bad_option", f"method={method!r} is none of {', '.join(METHODS)}")
    if points < MIN_POINTS:
        raise LawError("bad_option", f"points={points} is out of range; it must be at least {MIN_POINTS}")
    known = sorted(as_curves(curves), key=lambda of: (of.N, of.tokens[-1], of.loss.tobytes(), of.tokens.tobytes()))
    if not known:
        raise LawError("no_curves", "there are no training curves; Approach 1 needs them beside the table of runs")
    N = np.array([curve.N for curve in known])
    if (sizes := count_distinct(N)) < MIN_SIZES:
        raise LawError("too_few_sizes", f"sizes with curves: {sizes}; Approach 1 needs {MIN_SIZES} or more: add sizes")
    compute = Compute.of_runs(N, np.ones_like(N), np.array([curve.flops_per_token for curve in known]))
    losses = [smooth_curve(curve.loss, smoothing) for curve in known]
    slices = read_between_sizes(known, losses, resamples=intervals.resamples, seed=intervals.seed)
    lower = LowerEnvelope(known, losses, slices.x[0], slices.x[-1])
    if method == "between_sizes":
        x, weight, log_N, log_loss = slices.x, slices.weight, slices.log_N, slices.log_loss
        found = statistics(x, np.vstack([log_N, slices.drawn_log_N]), np.vstack([log_loss, slices.drawn_log_loss]), weight)
    else:
        x, log_N, log_loss = lower.points(method, points)
        if (winners := count_distinct(np.exp(log_N))) < MIN_WINNERS:
            reason = f"only {winners} sizes are ever best by fit.envelope={method}: leave it at between_sizes"
            raise LawError("too_few_sizes", reason)
        found = np.full((1 + intervals.resamples, 8), np.nan)
        found[0] = statistics(x, log_N[None], log_loss[None], np.ones_like(x))[0]
    first, replicates = power_laws(found, compute)
    a, b, *bends = (
        Estimate.from_resamples(column[0], column[1:], intervals.level)
        for column in (found[:, 0], 1 - compute.eta * found[:, 0], *found[:, 4:].T)
    )
    return EnvelopeFit(
        a=a,
        b=b,
        N_law=first["N"],
        D_law=first["D"],
        loss_law=first["loss"],
        flops=np.exp(x),
        loss=np.exp(log_loss),
        N=np.exp(log_N),
        D=compute.tokens(np.exp(log_N), np.exp(x)),
        a_points=lower.exponent("interpolated", points),
        a_hull=lower.exponent("hull", points),
        curvature=Curvature.of(*bends),
        envelope=method,
        slices=slices,
        compute=compute,
        replicates=replicates,
        level=intervals.level,
    )
