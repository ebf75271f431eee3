"""Approach 1: the lower envelope of all training curves (Hoffmann et al. 2022, section 3.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from sweep.errors import LawError
from sweep.fit.approaches.approach import Options, PowerLaws
from sweep.fit.approaches.between_sizes import Slices, read_between_sizes
from sweep.fit.approaches.lower_envelope import LowerEnvelope
from sweep.fit.result import Estimate, Intervals, PowerLaw, Record, count_distinct, positive
from sweep.fit.surface import Compute
from sweep.store.curves import smooth_curve
from sweep.tables.curves import Curve, as_curves

if TYPE_CHECKING:
    import pandas as pd

    from sweep.fit.approaches import Laws

MIN_POINTS = 30
MIN_SIZES = 4  # a parabola has three constants
MIN_WINNERS = 3  # two sizes make a step, not a law
METHODS = ("between_sizes", "interpolated", "bins", "hull")
CurvesLike: TypeAlias = "Sequence[Curve] | pd.DataFrame"


@dataclass(frozen=True, kw_only=True)
class Curvature(Record):
    """Whether log N_opt bends in log C (Hoffmann et al. 2022, Fig. A5).

    Attributes:
        thirds: the exponent of N_opt in the first, middle and last third of log C.
        second: d^2 log N_opt / d (log C)^2 of a parabola through the optima; negative where the frontier is concave.
        bends: whether the interval of `second` excludes zero; None if there is no interval.
    """

    thirds: tuple[Estimate, Estimate, Estimate]
    second: Estimate
    bends: bool | None


@dataclass(frozen=True, kw_only=True, eq=False)
class EnvelopeFit(PowerLaws):
    """Power laws through the best sizes at log-spaced FLOPs, from training losses.

    Attributes:
        flops, loss, N, D: the paper's envelope, or that of `envelope`, shape (points,): the lowest loss at each C, and the run
            that has it; without the C at which no smaller or no larger size competes.
        a_points, a_hull: a along the paper's envelope, and along the vertices of the convex hull; None where fewer than three
            sizes win. They have no interval: resampling a few winners does not tell how far they are off.
        decades, of_decades: of C: how many have a best size between others, and how many any run covers.
        lift: how much higher losses are before the learning rate has decayed, nats; it is taken off.
        curvature: whether one power law is enough.
        envelope: where a is read off, one of `METHODS`.
        slices: the optima between sizes.
    """

    name: ClassVar[str] = "envelope"
    number: ClassVar[int] = 1
    method: ClassVar[str] = "envelope of the training curves"
    resampled: ClassVar[str] = "the curves' deviations"
    reads_curves: ClassVar[bool] = True
    variants: ClassVar[dict[str, str]] = {
        "envelope": "a",
        "envelope, the paper's points": "a_points",
        "envelope, convex hull": "a_hull",
    }

    flops: np.ndarray
    loss: np.ndarray
    N: np.ndarray
    D: np.ndarray
    a_points: Estimate | None
    a_hull: Estimate | None
    decades: float
    of_decades: float
    lift: float
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

    @property
    def reach(self) -> float:
        return self.largest

    def optimal_loss(self, C: Any) -> Any:
        """The lowest training loss: the envelope's own in the range of C that was fitted, and the power law beyond."""
        return self._loss(C, self.slices.loss, self.loss_law)

    def resampled_at(self, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        N, D, _ = super().resampled_at(C)
        laws = self.replicates["loss"]
        each = zip(self.slices.drawn_loss, laws.coefficient, laws.exponent, strict=True)
        return N, D, np.array([self._loss(C, loss, PowerLaw(coefficient=k, exponent=g)) for loss, k, g in each])

    def _loss(self, C: Any, loss: np.ndarray, law: PowerLaw) -> Any:
        """`loss` of the slices at `C`; beyond them by `law`, shifted to meet it."""
        x = np.log(positive("C", C))
        inside = np.clip(x, self.slices.x[0], self.slices.x[-1])
        return (np.interp(inside, self.slices.x, loss) * law(np.exp(x)) / law(np.exp(inside)))[()]

    def predict(self, N: Any, D: Any) -> Any:
        """The lowest training loss that the FLOPs of (N, D) buy, at their best split; any other split has a higher loss."""
        return self.optimal_loss(self.compute.flops(positive("N", N), positive("D", D)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "loss": "train",  # under any convention: curves have no other
            **self.laws_to_dict(),
            **self.pick("a_points", "a_hull", "decades", "of_decades", "lift"),
            "sizes_on_envelope": count_distinct(self.N),
            "flops_range": [float(np.exp(x)) for x in self.slices.x[[0, -1]]],
            "method": self.envelope,
            "curvature": self.curvature.to_dict(),
        }

    def remarks(self) -> list[str]:
        thirds = ", ".join(f"{third.value:.3g}" for third in self.curvature.thirds)
        verdict = {True: "the frontier bends", False: "no sign that the frontier bends", None: "no interval"}
        points, hull = (f"{each.value:.4g}" if each else "too few sizes win" for each in (self.a_points, self.a_hull))
        lifted = f"; {self.lift:.3g} nats taken off before the learning rate has decayed" if self.lift > 0 else ""
        return [
            f"training losses, at the {self.decades:.1f} of {self.of_decades:.1f} decades of C where the best size has smaller and "
            f"larger ones beside it{lifted}",
            f"a along the best runs themselves, as in the paper: {points}; along their convex hull: {hull}",
            f"a in the first, middle and last third of log C: {thirds}",
            f"d²log N_opt/d(log C)² = {self.curvature.second}: {verdict[self.curvature.bends]}",
        ]

    def choices(self, options: Options, unit: str) -> Iterator[tuple[str, str]]:
        yield "Approach 1's envelope", f"{options.envelope}, {options.envelope_points} points"


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
        curves: `Curve`s, or a pandas table with columns run_id, N, tokens and loss (and flops_per_token, by default 6 N). Neither
            their order nor their names matter.
        method: "between_sizes": the minima of parabolas through the losses of all runs near the optimum; "interpolated": the
            best of all curves, read off at `points` log-spaced FLOPs, as in the paper; "bins": the lowest measured point of each
            of 50 bins of log C; "hull": the vertices of the lower convex hull of all measured points in log C and log L. Only
            the first has intervals.
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
    known = sorted(as_curves(curves), key=lambda curve: (curve.N, curve.tokens[-1], curve.loss.tobytes(), curve.tokens.tobytes()))
    if not known:
        raise LawError("no_curves", "there are no training curves; Approach 1 needs them beside the table of runs")
    N = np.array([curve.N for curve in known])
    if (sizes := count_distinct(N)) < MIN_SIZES:
        reason = f"the curves are of {sizes} sizes; Approach 1 needs at least {MIN_SIZES}: add sizes"
        raise LawError("too_few_sizes", reason)
    per_token = np.array([curve.flops_per_token for curve in known])
    compute = Compute.of_runs(N, np.ones_like(N), per_token)
    losses = [smooth_curve(curve.loss, smoothing) for curve in known]
    slices = read_between_sizes(known, losses, resamples=intervals.resamples, seed=intervals.seed)
    x, weight = slices.x, slices.weight
    lower = LowerEnvelope(known, losses, x[0], x[-1])
    winners = {
        name: _competing(lower, *drawn)
        for name, drawn in (("interpolated", lower.interpolated(points)), ("bins", lower.bins()), ("hull", lower.hull()))
    }
    shown = "interpolated" if method == "between_sizes" else method
    at, best, lowest = winners[shown]
    if method == "between_sizes":
        found = _statistics(
            slices.x,
            np.vstack([slices.log_N, slices.drawn_log_N]),
            np.log(np.vstack([slices.loss, slices.drawn_loss])),
            slices.weight,
        )
    else:
        if count_distinct(N[best]) < MIN_WINNERS:
            reason = f"only {count_distinct(N[best])} sizes are ever best by fit.envelope={method}: leave it at between_sizes"
            raise LawError("too_few_sizes", reason)
        value = _statistics(at, np.log(N[best])[None], np.log(lowest)[None], np.ones_like(at))
        found = np.vstack([value, np.full((intervals.resamples, value.shape[1]), np.nan)])
    a, k, g, k_loss, *bends = (Estimate.from_resamples(column[0], column[1:], intervals.level) for column in found.T)
    second = bends[3]
    laws = [(found[:, 0], found[:, 1]), (1 - compute.eta * found[:, 0], -np.log(compute.kappa) - compute.eta * found[:, 1])]
    power = [PowerLaw(exponent=e, coefficient=np.exp(c)) for e, c in (*laws, (found[:, 2], found[:, 3]))]
    first = [PowerLaw(exponent=float(law.exponent[0]), coefficient=float(law.coefficient[0])) for law in power]
    rest = [PowerLaw(exponent=law.exponent[1:], coefficient=law.coefficient[1:]) for law in power]
    exponents = {name: _exponent(drawn[0], N[drawn[1]]) for name, drawn in winners.items()}
    return EnvelopeFit(
        a=a,
        b=Estimate.from_resamples(power[1].exponent[0], power[1].exponent[1:], intervals.level),
        N_law=first[0],
        D_law=first[1],
        loss_law=first[2],
        flops=np.exp(at),
        loss=lowest,
        N=N[best],
        D=np.exp(at) / per_token[best],
        a_points=exponents["interpolated"],
        a_hull=exponents["hull"],
        decades=slices.decades,
        of_decades=slices.of_decades,
        lift=slices.lift,
        curvature=Curvature(
            thirds=(bends[0], bends[1], bends[2]),
            second=second,
            bends=None if second.low is None or second.high is None else not second.low <= 0 <= second.high,
        ),
        envelope=method,
        slices=slices,
        compute=compute,
        replicates=dict(zip(("N", "D", "loss"), rest, strict=True)),
        level=intervals.level,
    )


def _competing(
    lower: LowerEnvelope, x: np.ndarray, best: np.ndarray, loss: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept = lower.competes(x, best)
    return x[kept], best[kept], loss[kept]


def _exponent(x: np.ndarray, N: np.ndarray) -> Estimate | None:
    return Estimate(float(np.polyfit(x, np.log(N), 1)[0])) if count_distinct(N) >= MIN_WINNERS else None


def _statistics(x: np.ndarray, log_N: np.ndarray, log_loss: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Exponent and log-coefficient of N and of the loss in C; the exponent of N in thirds of log C; its second derivative.

    x and weight have shape (points,), log_N and log_loss (rows, points); returns shape (rows, 8).
    """
    root = np.sqrt(weight)
    thirds = []
    for part in range(3):
        low, high = x[0] + (x[-1] - x[0]) * np.array([part, part + 1]) / 3
        inside = (x >= low) & (x <= high)
        enough = inside.sum() > 1
        thirds.append(np.polyfit(x[inside], log_N[:, inside].T, 1, w=root[inside])[0] if enough else np.full(len(log_N), np.nan))
    second = 2 * np.polyfit(x - x.mean(), log_N.T, 2, w=root)[0]
    return np.vstack([np.polyfit(x, log_N.T, 1, w=root), np.polyfit(x, log_loss.T, 1), *thirds, second]).T
