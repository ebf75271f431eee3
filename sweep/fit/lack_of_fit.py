"""Is a law adequate? Its residuals against a noise that no law explains, and the order of their signs.

A law that fits leaves residuals as large as the scatter between equal runs, with signs in no order. One whose form is wrong
leaves more, or leaves bulges: many equal signs in a row along N at equal C, or along C.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import erfc

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sweep.fit.result import SAME, Record
from sweep.tables.table import RunTable

ENOUGH = 5  # degrees of freedom of replicates, to go by them
LEVEL = 0.01  # p-value below which a law does not fit
MAD = 1.4826  # of a normal distribution, over its median absolute value
EFFICIENCY = 0.37  # of that estimate
NEAR = [0, 1, 3, 4]  # of five sizes in a row, the neighbours of the middle one
KNOWN = 10**6  # degrees of freedom of a noise that is given


@dataclass(frozen=True, kw_only=True)
class PureNoise(Record):
    """The scatter of log L between runs that no law explains.

    Attributes:
        sd: its standard deviation.
        freedom: degrees of freedom it is known with.
        source: "given", "replicates" (runs of the same N and D) or "profiles" (each run against its neighbours in size).
    """

    sd: float
    freedom: int
    source: str


def pure_noise(table: RunTable, given: float | None = None) -> PureNoise | None:
    """The noise of a table: `given` in nats, else from replicates, else from the profiles; None if it has neither."""
    if given is not None:
        return PureNoise(sd=given / float(np.median(table.loss)), freedom=KNOWN, source="given")
    squares, freedom = 0.0, 0
    for same in _replicates(table):
        logs = np.log(table.loss[same])
        squares, freedom = squares + float(((logs - logs.mean()) ** 2).sum()), freedom + len(same) - 1
    if freedom >= ENOUGH and squares > 0:
        return PureNoise(sd=(squares / freedom) ** 0.5, freedom=freedom, source="replicates")
    profiles = [np.flatnonzero(table.budget == value) for value in np.unique(table.budget[np.isfinite(table.budget)])]
    x, y = [np.log(table.N[own]) for own in profiles], [np.log(table.loss[own]) for own in profiles]
    off = deviations(x, y)
    if (known := int(EFFICIENCY * len(off))) < ENOUGH:
        return None
    return PureNoise(sd=max(roughness(x, y), SAME), freedom=known, source="profiles")


def _replicates(table: RunTable) -> Iterator[np.ndarray]:
    """The rows of each (N, D) that has several."""
    _, member, counts = np.unique(
        np.round(np.log(np.stack([table.N, table.D])), 6), axis=1, return_inverse=True, return_counts=True
    )
    for which in np.flatnonzero(counts > 1):
        yield np.flatnonzero(member.ravel() == which)


def deviations(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    """How far each `y` with two neighbours on either side lies from the cubic through these four in `x`, in units in which
    independent errors keep their standard deviation; of profiles in any order, shape (runs with such neighbours,)."""
    off = [np.empty(0)]
    for at, values in zip(x, y, strict=True):
        order = np.argsort(at, kind="stable")
        if len(order) < len(NEAR) + 1:
            continue
        at, values = (sliding_window_view(each[order], len(NEAR) + 1) for each in (at, values))
        apart = (np.diff(at) > SAME).all(axis=1)  # of one size there is no curve
        here, near, values = at[apart, 2, None], at[apart][:, NEAR], values[apart]
        others = [[k for k in range(len(NEAR)) if k != j] for j in range(len(NEAR))]
        weight = np.prod((here[..., None] - near[:, others]) / (near[..., None] - near[:, others]), axis=2)
        miss = values[:, 2] - (weight * values[:, NEAR]).sum(axis=1)
        off.append(miss / np.sqrt(1 + (weight**2).sum(axis=1)))
    return np.concatenate(off)


def roughness(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> float:
    """Standard deviation of `y` about any smooth curve; robust, as a steep wall is no cubic. 0 without five runs in a row."""
    off = deviations(x, y)
    return MAD * float(np.median(np.abs(off))) if len(off) else 0.0


@dataclass(frozen=True, kw_only=True)
class LackOfFit(Record):
    """How the residuals of a law compare with the noise.

    Attributes:
        noise: that they are compared with.
        chi2: their mean square over the noise's, per degree of freedom.
        freedom: of the residuals.
        p_size: chance of so large residuals if the law holds, by an F test.
        p_along_N, p_along_C: chance of so few changes of sign, along N at equal C and along C (Wald and Wolfowitz 1940); 1
            where there is no such order.
        bias: the largest mean residual of a budget, of log L.
    """

    noise: PureNoise
    chi2: float
    freedom: int
    p_size: float
    p_along_N: float
    p_along_C: float
    bias: float

    @property
    def adequate(self) -> bool:
        """Whether none of the three says otherwise, at one per cent together."""
        return min(self.p_size, self.p_along_N, self.p_along_C) > LEVEL / 3

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), "adequate": self.adequate}

    def line(self) -> str:
        where = {"size": self.p_size, "signs along N": self.p_along_N, "signs along C": self.p_along_C}
        told = ", ".join(f"{name} p = {p:.2g}" for name, p in where.items())
        verdict = "adequate" if self.adequate else "not adequate: its form is wrong somewhere in these runs"
        noise = f"{self.noise.sd:.2%} ({self.noise.source})"
        return f"{verdict}; χ² = {self.chi2:.2g} per degree of freedom against a noise of {noise}; {told}"


def lack_of_fit(table: RunTable, predicted: np.ndarray, *, free: int, noise: PureNoise) -> LackOfFit:
    """Judge a law of `free` constants by its predictions of the table's losses, shape (runs,)."""
    from scipy.special import fdtrc

    residual = np.log(table.loss / predicted)
    spare = max(len(residual) - free, 1)
    chi2 = float((residual**2).sum()) / spare / noise.sd**2
    budgets = [table.budget == value for value in np.unique(table.budget[np.isfinite(table.budget)])]
    along_N = [residual[own][np.argsort(table.N[own], kind="stable")] for own in budgets]
    along_C = [residual[own][np.argsort(table.C[own], kind="stable")] for own in (table.N == N for N in np.unique(table.N))]
    means = np.array([float(residual[own].mean()) for own in budgets])
    if sum(len(each) > 2 for each in along_C) < 2:  # sizes differ from budget to budget
        along_C = [means]
    return LackOfFit(
        noise=noise,
        chi2=chi2,
        freedom=spare,
        p_size=float(fdtrc(spare, noise.freedom, chi2)),
        p_along_N=_few_changes(along_N),
        p_along_C=_few_changes(along_C),
        bias=float(means[np.abs(means).argmax()]) if len(means) else float("nan"),
    )


def _few_changes(sequences: Sequence[np.ndarray]) -> float:
    """The chance of no more runs of equal signs than these sequences have together, by the normal approximation."""
    seen, expected, variance = 0.0, 0.0, 0.0
    for sequence in sequences:
        positive = sequence > 0
        n, m = int(positive.sum()), int((~positive).sum())
        if not n or not m or n + m < 3:
            continue
        both = 2 * n * m
        seen += 1 + int((positive[1:] != positive[:-1]).sum())
        expected += both / (n + m) + 1
        variance += both * (both - n - m) / ((n + m) ** 2 * (n + m - 1))
    return 0.5 * erfc(-(seen + 0.5 - expected) / np.sqrt(2 * variance)) if variance > 0 else 1.0
