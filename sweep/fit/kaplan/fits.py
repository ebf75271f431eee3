"""Fits of the laws of the loss of Kaplan et al. 2020 (arXiv 2001.08361); `critical_batch` fits the law of the batch size."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sweep.errors import LawError
from sweep.fit.kaplan.law_fit import MAX_EXPONENT, LawFit, LawT, columns, distinct, draw, line, require_exponent, require_values
from sweep.fit.kaplan.laws import ScaleLaw, SizeDataLaw, SizeStepsLaw
from sweep.fit.kaplan.two_terms import TwoTerms
from sweep.fit.result import Intervals
from sweep.fit.span import require_span
from sweep.words import counted

MIN_VALUES = 3  # of every variable: a power law fits any two exactly
MIN_RUNS = 5  # one more than a law of two variables has constants
NEGLIGIBLE_TERM = 1e-3  # share of the sum
CHANCE = 1e-3  # that a term which does not exist fits as well as this one
EXACT = 1e-12  # log residuals this small are rounding
FLAT_GRADIENT = 1e-7  # of half the sum of squares, per unit of a log or an exponent


def fit_scale_law(X: Any, loss: Any, *, clusters: Any = None, intervals: Intervals = Intervals()) -> LawFit[ScaleLaw]:
    """L(X) = (scale / X)^exponent by least squares in logs: equations 1.1 to 1.3 of the paper.

    Args:
        X: parameters, tokens or compute, shape (points,), at least three different; the scale comes back in its unit.
        loss: nats per token, shape (points,).
        clusters: labels of points that are not independent, shape (points,); see `resample_counts`.
        intervals: see `Intervals`; of bootstrap resamples of the points.

    Raises:
        LawError: "bad_input" if a value is not positive; "too_few_runs", "one_size" or "too_few_sizes" if there are too few
            different points; "narrow_range" if X hardly varies; "unidentified" if the loss does not fall with X.
    """
    data = columns(X=X, loss=loss)
    x, log_loss = np.log(data["X"]), np.log(data["loss"])
    require_values("X", data["X"], MIN_VALUES)
    require_span("X", data["X"])

    def solve(weight: np.ndarray) -> np.ndarray:
        intercept, slope = line(x, log_loss, weight)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return np.stack([np.exp(-intercept / slope), -slope], axis=1)

    scale, exponent = solve(np.ones((1, len(x))))[0]
    require_exponent("exponent", exponent)
    _require_finite("scale", scale)
    law = ScaleLaw(scale=float(scale), exponent=float(exponent))
    counts = draw(len(x), clusters, intervals)
    replicas = solve(counts[distinct(x, counts) >= 2])
    return LawFit.from_resamples(
        law,
        replicas,
        _possible(replicas[:, :1], replicas[:, 1:]),
        log_residuals=np.log(law.predict(data["X"])) - log_loss,
        level=intervals.level,
    )


def fit_size_data_law(
    N: Any, D: Any, loss: Any, *, clusters: Any = None, intervals: Intervals = Intervals()
) -> LawFit[SizeDataLaw]:
    """L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D by least squares in log L: equation 1.5 of the paper.

    Args:
        N: parameters without embeddings, shape (points,), at least three different.
        D: tokens of the data set, shape (points,), at least three different.
        loss: nats per token where it was lowest, shape (points,).
        clusters, intervals: as in `fit_scale_law`.

    Raises:
        LawError: as `fit_scale_law`; "unidentified" if the points cannot tell N's part from D's, if one of the two terms is
            nowhere a thousandth of their sum, or if a power law without it fits as well (an F test at 0.001).
    """
    return _fit_two_terms(SizeDataLaw, {"N": N, "D": D}, loss, True, clusters, intervals)


def fit_size_steps_law(
    N: Any, S_min: Any, loss: Any, *, clusters: Any = None, intervals: Intervals = Intervals()
) -> LawFit[SizeStepsLaw]:
    """L(N, S_min) = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S by least squares in log L: equation 1.6 of the paper.

    Args:
        N: parameters without embeddings, shape (points,), at least three different.
        S_min: steps past the warmup, at a large batch or by `CriticalBatch.S_min`, shape (points,), at least three different.
        loss: nats per token then, shape (points,).
        clusters, intervals: as in `fit_scale_law`. Points of one training curve are not independent: label each by its run.

    Raises:
        LawError: as `fit_size_data_law`.
    """
    return _fit_two_terms(SizeStepsLaw, {"N": N, "S_min": S_min}, loss, False, clusters, intervals)


def _fit_two_terms(
    make: Callable[..., LawT], variables: dict[str, Any], loss: Any, coupled: bool, clusters: Any, intervals: Intervals
) -> LawFit[LawT]:
    data = columns(**variables, loss=loss)
    (first, second), points = variables, len(data["loss"])
    if points < MIN_RUNS:
        raise LawError("too_few_runs", f"{counted(points, 'point')}; L({first}, {second}) needs at least {MIN_RUNS}: add runs")
    require_values(first, data[first], MIN_VALUES)
    if (different := len(np.unique(data[second]))) < MIN_VALUES:
        reason = f"{different} different {second}; its part in the loss shows in no fewer than {MIN_VALUES}: add runs"
        raise LawError("unidentified", reason)
    require_span(first, data[first])
    require_span(second, data[second])
    logs = np.log([data[first], data[second]])
    centre = logs.mean(axis=1)
    x, y = logs - centre[:, None]
    if abs(np.corrcoef(x, y)[0, 1]) > 1 - 1e-6:
        reason = f"{second} is a power of {first} in all points, which leaves their parts in the loss open: vary one alone"
        raise LawError("unidentified", reason)

    problem = TwoTerms(x=x, y=y, log_loss=np.log(data["loss"]), coupled=coupled)
    theta, gradient = problem.solve()
    _require_both_terms(problem, theta, first, second)
    names = [f"{first[0]}_c", f"{second[0]}_c", f"alpha_{first[0]}", f"alpha_{second[0]}"]
    constants = dict(zip(names, map(float, _constants(theta[None], centre)[0]), strict=True))
    for name in names[2:]:
        require_exponent(name, constants[name])
    for name in names[:2]:
        _require_finite(name, constants[name])
    law = make(**constants)

    counts = draw(points, clusters, intervals)
    counts = counts[(distinct(x, counts) >= 2) & (distinct(y, counts) >= 2) & ((counts > 0).sum(axis=1) >= 4)]
    solutions = problem.descend(np.repeat(theta[None], len(counts), axis=0), counts)
    replicas = _constants(solutions, centre)
    shares = (problem.shares(solutions) * (counts > 0)[:, None]).max(axis=2)
    return LawFit.from_resamples(
        law,
        replicas,
        _possible(replicas[:, :2], replicas[:, 2:]) & (shares >= NEGLIGIBLE_TERM).all(axis=1),
        log_residuals=np.log(law.predict(data[first], data[second])) - problem.log_loss,
        level=intervals.level,
        flat=bool(np.abs(gradient).max() > FLAT_GRADIENT),
    )


def _require_both_terms(problem: TwoTerms, theta: np.ndarray, first: str, second: str) -> None:
    """Raises LawError "unidentified" if a term is negligible, or a power law without it fits as well (an F test)."""
    largest = problem.shares(theta[None])[0].max(axis=1)
    rounding = EXACT**2 * len(problem.x)
    squares = ((problem.predict(theta[None])[0] - problem.log_loss) ** 2).sum() + rounding
    for name, other, x, share in ((first, second, problem.y, largest[0]), (second, first, problem.x, largest[1])):
        if share < NEGLIGIBLE_TERM:
            raise LawError("unidentified", f"the term of {name} vanishes at the optimum: no point shows it; widen {name}")
        intercept, slope = line(x, problem.log_loss, np.ones((1, len(x))))
        squares_without = ((intercept + slope * x - problem.log_loss) ** 2).sum() + rounding
        by_chance = (squares / squares_without) ** ((len(x) - 4) / 2)  # the tail of F(2, points - 4): two constants more
        if not by_chance < CHANCE:
            reason = f"a power law of {other} alone fits as well (p = {by_chance:.2g}): add points or widen {name}"
            raise LawError("unidentified", reason)


def _constants(theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Rows (both scales, both exponents), shape (K, 4), of solutions in centred logs."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.hstack([np.exp(centre + theta[:, ::2] / theta[:, 1::2]), theta[:, 1::2]])


def _possible(scales: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Which rows could be a law's constants, shape (K,)."""
    return np.isfinite(scales).all(axis=1) & ((exponents > 0) & (exponents < MAX_EXPONENT)).all(axis=1)


def _require_finite(name: str, scale: float) -> None:
    if not np.isfinite(scale):
        reason = f"{name} is not finite, for its exponent is next to zero: the loss hardly falls; widen the range"
        raise LawError("unidentified", reason)
