"""Generalised least squares through points whose errors are known, correlated, and not the whole story.

The minima of profiles have standard errors from the noise of the runs; they also scatter about any law for other reasons (a
learning rate that suits one size better, a shape that is only nearly right). As in a meta-analysis, that scatter is estimated
from the points (Paule and Mandel 1982), weighs them, and widens the intervals: they come from Student's t with as many degrees
of freedom as the two sources of error have together.
"""

from dataclasses import dataclass

import numpy as np

from sweep.fit.result import Intervals, PowerLaw

MIN_DRAWS = 2000  # drawing is cheap, and quantiles of 200 draws are off by a tenth
LARGEST = 300.0  # of logs: far beyond any size, and no overflow
TINY = 1e-12  # added to variances, so that points without error can be weighed


@dataclass(frozen=True, kw_only=True, eq=False)
class Regression:
    """y = X beta with its uncertainty.

    Attributes:
        beta: the coefficients, shape (columns,).
        covariance: theirs, shape (columns, columns); it includes the scatter.
        chi2: of the points about the law by their known errors, per degree of freedom; NaN if there is no freedom or no error
            is known.
        scatter: standard deviation of the points about the law beyond their errors; NaN likewise.
        freedom: degrees of freedom of the t distribution.
    """

    beta: np.ndarray
    covariance: np.ndarray
    chi2: float
    scatter: float
    freedom: float

    def draw(self, intervals: Intervals) -> np.ndarray:
        """Coefficients as they may be, shape (draws, columns); no draws if `intervals` wants none or there is no freedom."""
        draws = max(intervals.resamples, MIN_DRAWS) if intervals.resamples and self.freedom > 0 else 0
        rng = np.random.default_rng(intervals.seed)
        values, vectors = np.linalg.eigh(self.covariance)
        changes = rng.standard_normal((draws, len(self.beta))) * np.sqrt(np.maximum(values, 0)) @ vectors.T
        if 0 < self.freedom < np.inf:
            changes /= np.sqrt(rng.chisquare(self.freedom, (draws, 1)) / self.freedom)
        return self.beta + changes


def regress(X: np.ndarray, y: np.ndarray, covariance: np.ndarray, freedom: float) -> Regression:
    """Fit y = X beta.

    Args:
        X: shape (points, columns).
        y: shape (points,).
        covariance: of the known errors of y, shape (points, points).
        freedom: degrees of freedom of the noise that `covariance` was estimated from; infinite if it is known, 0 if only its
            proportions are: then the scatter of the points tells its size.
    """
    points, columns = X.shape
    spare = points - columns
    known = covariance + np.eye(points) * max(TINY, 1e-9 * float(np.diag(covariance).mean()))

    def solve(variance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """beta, its covariance, the matrix that takes y to beta, and chi^2."""
        weight = np.linalg.inv(known + variance * np.eye(points))
        inverse = np.linalg.inv(X.T @ weight @ X)
        beta = inverse @ X.T @ weight @ y
        residual = y - X @ beta
        return beta, inverse, inverse @ X.T @ weight, float(residual @ weight @ residual)

    beta, inverse, _, chi2 = solve(0.0)
    if not freedom or not spare:
        return Regression(
            beta=beta,
            covariance=inverse * (chi2 / spare if spare else 1),
            chi2=np.nan,
            scatter=np.nan,
            freedom=spare or freedom,
        )
    variance = 0.0
    if chi2 > spare:
        low, high = 0.0, 2 * float(np.ptp(y) ** 2) + TINY
        for _ in range(60):
            variance = (low + high) / 2
            low, high = (variance, high) if solve(variance)[3] > spare else (low, variance)
    beta, inverse, projection, _ = solve(variance)
    # The share that the scatter has in the variance of the last coefficient, the exponent, stands for all of them.
    from_scatter = variance * float(projection[-1] @ projection[-1]) / float(inverse[-1, -1])
    doubt = (1 - from_scatter) ** 2 / freedom + from_scatter**2 / spare  # Satterthwaite 1946
    return Regression(
        beta=beta,
        covariance=inverse,
        chi2=chi2 / spare,
        scatter=float(np.sqrt(variance)),
        freedom=1 / doubt if doubt else np.inf,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerDraws:
    """Power laws as they may be.

    Attributes:
        log_y: at the middle, shape (draws,).
        exponent: shape (draws,).
        middle: of the points, a mean of log x.
    """

    log_y: np.ndarray
    exponent: np.ndarray
    middle: float

    def __call__(self, x: float) -> np.ndarray:
        """y at `x`, shape (draws,)."""
        return np.exp(np.clip(self.log_y + self.exponent * (np.log(x) - self.middle), -LARGEST, LARGEST))


@dataclass(frozen=True, kw_only=True, eq=False)
class PowerFit:
    """A power law y = k x^exponent through points, and the regression of log y on log x - `middle` behind it."""

    law: PowerLaw
    regression: Regression
    middle: float

    def draws(self, intervals: Intervals) -> PowerDraws:
        drawn = self.regression.draw(intervals)
        return PowerDraws(log_y=drawn[:, 0], exponent=drawn[:, 1], middle=self.middle)


def fit_power_law(x: np.ndarray, log_y: np.ndarray, covariance: np.ndarray, freedom: float) -> PowerFit:
    """The power law through x and exp(log_y), shape (points,), whose logs have the errors `covariance`; see `regress`."""
    middle = float(np.log(x).mean())
    found = regress(np.stack([np.ones_like(x), np.log(x) - middle], axis=1), log_y, covariance, freedom)
    at_middle, exponent = map(float, found.beta)
    law = PowerLaw(coefficient=float(np.exp(at_middle - exponent * middle)), exponent=exponent)
    return PowerFit(law=law, regression=found, middle=middle)
