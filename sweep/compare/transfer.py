"""Loss on other text against loss on one's own, along training and at its end: does it depend on anything else?

Kaplan et al. 2020 (arXiv 2001.08361), Figs. 8 and 24: at equal loss on the training distribution, a model's loss on another is
the same whether it has converged or is half-way through, and whatever its depth.

The loss on a set is regressed on the own loss, its square, and what should not matter. Checkpoints of one run are not
independent: intervals are of the jackknife over runs, which leaves out one run after another (MacKinnon, Nielsen & Webb 2023,
arXiv 2205.03285), with Student's t of one degree of freedom less than there are runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep.compare.differences import DIFFERS, EQUAL, NEGLIGIBLE, RELATIVE_MARGIN
from sweep.errors import InputError
from sweep.fit import Estimate, Intervals, Refused
from sweep.fit.kaplan.fits import fit_scale_law
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.result import attempt
from sweep.store.curves import OWN

if TYPE_CHECKING:
    import pandas as pd

END, SIZE, DEPTH = "the end of a run", "a tenfold N", "depth"
TOO_FEW = "too few runs"
MIN_RUNS, MIN_DEPTHS = 5, 3
SAME_N = 1.05  # N without embeddings of runs whose depths are compared: within this factor of one of them
MORE = 2  # checkpoints, at least, beyond the constants of a regression


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What something changes in the loss on a set at equal own loss.

    Attributes:
        set: the text.
        of: `END`, against checkpoints along training; `SIZE`; or `DEPTH`, from the fewest layers to the most.
        value, low, high: in nats per token; no ends if it cannot be told.
        loss: mean loss on the set, in nats.
        runs, checkpoints: that it was taken from.
        least, most: of what it is the effect of, in these: N, or layers; NaN for `END`.
        reason: why there is no interval; empty if there is one.
        margin: the smallest effect that matters, in nats.
    """

    set: str
    of: str
    value: float = float("nan")
    low: float | None = None
    high: float | None = None
    loss: float = float("nan")
    runs: int = 0
    checkpoints: int = 0
    least: float = float("nan")
    most: float = float("nan")
    reason: str = ""
    margin: float = float("nan")

    @property
    def verdict(self) -> str:
        """`DIFFERS`, `EQUAL` or `TOO_FEW`, as in a comparison of labels: what matters is 1 % of the loss, or the margin."""
        if self.low is None or self.high is None:
            return TOO_FEW
        most = max(abs(self.low), abs(self.high))
        if (self.low > 0 or self.high < 0) and most > NEGLIGIBLE * self.margin:
            return DIFFERS
        return EQUAL if most <= self.margin else TOO_FEW

    @property
    def words(self) -> str:
        if self.low is None or self.high is None:
            return f"{TOO_FEW}: {self.reason}"
        within = f" ±{max(abs(self.low), abs(self.high)):.2g}" if self.verdict == EQUAL else ""
        return f"{self.value:+z.4f} nats ({self.low:+z.4f} to {self.high:+z.4f}): {self.verdict}{within}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """The loss on a set as a line in the own loss, through all checkpoints where both are compared.

    Attributes:
        set: the text.
        slope: of the line, with its interval.
        gap: loss on the set less own loss, in nats, at the mean own loss `at`.
        low, high: the range of own losses.
    """

    set: str
    slope: Estimate
    gap: float
    at: float
    low: float
    high: float

    def line(self) -> str:
        return f"{self.set} against the own loss: slope {self.slope}, {self.gap:+z.3f} nats at {self.at:.3f}"

    def predict(self, own: np.ndarray) -> np.ndarray:
        return self.at + self.gap + self.slope.value * (np.asarray(own) - self.at)


def paired(along: "pd.DataFrame") -> "dict[str, pd.DataFrame]":
    """For each set but the own, the rows of `collect_along` with the own loss at the same step as `own`. Raises InputError if a
    set is not the same text for all runs."""
    if not len(along):
        return {}
    texts: dict = along.groupby("set")["fingerprint"].nunique().to_dict()
    if mixed := [name for name, count in texts.items() if count > 1]:
        raise InputError(f"{mixed[0]} was measured on several texts; isosweep evaluate with evaluation.sets measures one")
    own = along.loc[along["set"] == OWN, ["run_id", "step", "loss"]].rename(columns={"loss": "own"})
    names = [name for name in along["set"].unique() if name != OWN]
    return {name: along[along["set"] == name].merge(own, on=["run_id", "step"]) for name in names}


def effects(
    pairs: "Mapping[str, pd.DataFrame]", labels: Sequence[str], *, level: float = 0.95, margin: float | None = None
) -> tuple[Effect, ...]:
    """What the end of a run, N and depth change on every set at equal own loss; depth where runs of one N have several.

    Args:
        pairs: of `paired`.
        labels: of the sweep, the baseline first: the end and N are judged by the baseline's runs.
        level: of the intervals, for all effects together (Bonferroni's).
        margin: the smallest effect that matters, in nats; None: 1 % of the loss on the set.
    """
    asked = []
    for name, rows in pairs.items():
        base = within_reach(rows[rows["label"] == labels[0]] if labels else rows)
        size = np.log10(base["N"].to_numpy(dtype=float))
        several = len(base) > 0 and np.ptp(size) > 0.1
        columns = {END: base["final"].to_numpy(dtype=float), **({SIZE: size} if several else {})}
        asked += [(name, of, base, columns, 1.0) for of in columns]
        deep = of_one_size(rows)
        if deep["n_layers"].nunique() > 1:
            layers = np.log2(deep["n_layers"].to_numpy(dtype=float))
            ends = {END: deep["final"].to_numpy(dtype=float), DEPTH: layers}
            asked.append((name, DEPTH, deep, ends, float(np.ptp(layers))))
    return tuple(_effect(*each, level=1 - (1 - level) / len(asked), margin=margin) for each in asked)


def within_reach(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The checkpoints at own losses that both ends of runs and checkpoints along them have."""
    if not len(rows) or rows["final"].all():
        return rows.head(0)
    groups = [rows.loc[rows["final"] == final, "own"] for final in (True, False)]
    low, high = max(group.min() for group in groups), min(group.max() for group in groups)
    return rows[(rows["own"] >= low) & (rows["own"] <= high)]


def of_one_size(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The checkpoints of the runs with most depths at one N without embeddings, at own losses that all of these depths have."""
    best = rows.head(0)
    for N in rows["N_non_embedding"].unique():
        near = rows[(rows["N_non_embedding"] / N).between(1 / SAME_N, SAME_N)]
        if near["n_layers"].nunique() > (best["n_layers"].nunique() if len(best) else 1):
            best = near
    if not len(best):
        return best
    ends = best.groupby("n_layers")["own"].agg(["min", "max"])
    return best[(best["own"] >= ends["min"].max()) & (best["own"] <= ends["max"].min())]


def lines(pairs: "Mapping[str, pd.DataFrame]", level: float = 0.95) -> tuple[Line, ...]:
    """The line of each set, through all checkpoints at own losses that ends of runs have; none where these are too few."""
    found = []
    for name, rows in pairs.items():
        near = within_reach(rows)
        own, loss = (near[column].to_numpy(dtype=float) for column in ("own", "loss"))
        if len(near) < 2 + MORE or not np.ptp(own) > 0:
            continue
        design = np.column_stack([own - own.mean(), np.ones(len(own))])
        slope, low, high = jackknife(design, loss, near["run_id"].to_numpy(), level)
        ends = (None, None) if np.isnan(low) else (low, high)
        gap, at, (least, most) = float((loss - own).mean()), float(own.mean()), (float(own.min()), float(own.max()))
        found.append(Line(set=name, slope=Estimate(slope, *ends), gap=gap, at=at, low=least, high=most))
    return tuple(found)


def size_law(N: np.ndarray, D: np.ndarray, loss: np.ndarray, intervals: Intervals) -> LawFit | Refused:
    """L(N) = (N_c / N)^alpha_N, equation 1.1 of the paper, through the longest runs of each size at their ends, all of their
    seeds. A size whose mean loss a smaller one beats, for want of tokens, is left out. All of shape (runs,)."""
    kept, least = np.zeros(len(N), dtype=bool), np.inf
    for size in np.unique(N):
        longest = (N == size) & (np.max(D[N == size]) == D)
        if (mean := loss[longest].mean()) < least:
            kept, least = kept | longest, mean
    return attempt(lambda: fit_scale_law(N[kept], loss[kept], intervals=intervals))


def _effect(
    name: str,
    of: str,
    rows: "pd.DataFrame",
    columns: Mapping[str, np.ndarray],
    times: float,
    *,
    level: float,
    margin: float | None,
) -> Effect:
    """The effect of one of `columns`, each of shape (checkpoints,), `times` its coefficient."""
    own, loss = (rows[column].to_numpy(dtype=float) for column in ("own", "loss"))
    runs, depths = rows["run_id"].nunique(), rows["n_layers"].nunique() if of == DEPTH else MIN_DEPTHS
    about: dict = {"set": name, "of": of, "runs": runs, "checkpoints": len(rows)}
    if len(rows) and of != END:
        values = rows["n_layers" if of == DEPTH else "N"]
        about |= {"least": float(values.min()), "most": float(values.max())}
    if runs < MIN_RUNS or depths < MIN_DEPTHS or len(rows) < len(columns) + 3 + MORE:
        have = f"{runs} runs with {len(rows)} checkpoints" + (f" of {depths} depths" if of == DEPTH else "")
        return Effect(**about, reason=f"{have} at own losses that they share")
    x = own - own.mean()
    others = [values - values.mean() for key, values in columns.items() if key != of and np.ptp(values) > 0]
    design = np.column_stack([columns[of], np.ones(len(x)), x, x**2, *others])
    value, low, high = (times * each for each in jackknife(design, loss, rows["run_id"].to_numpy(), level))
    if np.isnan(low):
        return Effect(**about, value=value, reason="it goes with the own loss, or with one run alone")
    about |= {"loss": float(loss.mean()), "margin": RELATIVE_MARGIN * float(loss.mean()) if margin is None else margin}
    return Effect(**about, value=value, low=low, high=high)


def jackknife(design: np.ndarray, y: np.ndarray, runs: np.ndarray, level: float) -> tuple[float, float, float]:
    """The first coefficient of least squares, and its interval from leaving out one run after another; NaN ends if one of these
    does not determine it. `design` is (checkpoints, coefficients), `y` and `runs` (checkpoints,)."""
    from scipy.special import stdtrit

    names = np.unique(runs)
    value, without = _first(design, y), np.array([_first(design[runs != name], y[runs != name]) for name in names])
    count = len(names)
    half = stdtrit(count - 1, (1 + level) / 2) * np.sqrt((count - 1) / count * ((without - value) ** 2).sum())
    return value, float(value - half), float(value + half)


def _first(design: np.ndarray, y: np.ndarray) -> float:
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return float("nan")
    return float(np.linalg.lstsq(design, y, rcond=None)[0][0])
