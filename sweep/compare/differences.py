"""Differences between the labels of a sweep and its baseline, at the same (N, D), with the noise between seeds.

Runs of one seed share the order of the data and, where the model is the same, the weights they begin with. So a loss is taken
as loss = mean of its label + effect of its seed + noise within each cell, as in a randomised block design, and the noise is
pooled over all cells. The intervals hold for all comparisons of a table together (Bonferroni's).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DIFFERS, EQUAL, MORE_SEEDS, ONE_SEED = "differs", "equal within", "too few seeds", "one seed"
RELATIVE_MARGIN = 0.01  # of the loss: the smallest difference that matters, unless compare.margin says another
NEGLIGIBLE = 0.1  # of the margin: a smaller difference is none, however well it is known
MAX_SEEDS = 1000
PROBABLY = 1.28  # standard errors, within which four in five estimates of no difference lie
EVERYWHERE = -1  # in place of a cell: the mean over all cells


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One label beside the baseline.

    Attributes:
        label: what differs.
        cell: of the grid; `EVERYWHERE` for the mean over the cells.
        N, D: of the label's runs in this cell; NaN for all cells.
        seeds: runs of the label.
        loss, baseline: mean losses of the label and of the baseline in the cell, in nats.
        value: their difference, by runs of the same seeds where there are any.
        se: its standard error; None if there is no noise to go by.
        low, high: the interval; None likewise.
        verdict: `DIFFERS`, `EQUAL`, `MORE_SEEDS` or `ONE_SEED`.
        within: that the two are equal within, in nats, if the verdict is `EQUAL`.
        needed: seeds of each that would do, if it is `MORE_SEEDS`.
    """

    label: str
    cell: int
    N: float
    D: float
    seeds: int
    loss: float
    baseline: float
    value: float
    se: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ONE_SEED
    within: float | None = None
    needed: int | None = None

    @property
    def words(self) -> str:
        """The verdict in words."""
        if self.verdict == EQUAL:
            return f"equal within ±{self.within:.2g}"
        if self.verdict == MORE_SEEDS:
            return f"too few seeds: {self.needed} would do" if self.needed else "too noisy for any number of seeds"
        return "one seed: no interval" if self.verdict == ONE_SEED else "differs"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All differences to the baseline.

    Attributes:
        baseline: its label.
        differences: by cell, then label; the means over cells last, where there are several.
        noise: standard deviation of a loss between seeds of one label, in nats; None with one seed.
        paired: the same without what all runs of a seed share; None likewise, and where the noise was given.
        freedom: degrees of freedom of `paired`; 0 where there is none.
        level: of the intervals, for all `comparisons` together.
        comparisons: how many there are.
        margin: the smallest difference that matters, in nats, as it was asked for; None: `RELATIVE_MARGIN` of each loss.
        left_out: labels and cells without a comparison, with the reason.
    """

    baseline: str
    differences: tuple[Difference, ...]
    noise: float | None
    paired: float | None
    freedom: int
    level: float
    comparisons: int
    margin: float | None
    left_out: tuple[str, ...] = ()


def compare(
    runs: "pd.DataFrame", *, baseline: str, level: float = 0.95, margin: float | None = None, noise: float | None = None
) -> Comparison:
    """Compare every label with the baseline in every cell.

    Args:
        runs: finished runs: cell, label, seed, N, D, loss (nats per token).
        baseline: its label.
        level: of the intervals.
        margin: the smallest difference that matters, in nats.
        noise: standard deviation between seeds, if it is known; else it is estimated from seeds.

    Raises:
        InputError: if no run of the baseline is finished, or there is nothing to compare it with.
    """
    labels = list(dict.fromkeys(runs["label"]))
    if baseline not in labels:
        raise InputError(f"the baseline {baseline} has no finished run; there are {', '.join(map(repr, labels)) or 'none'}")
    blocks = [_Block.of(cell, runs[runs["cell"] == cell], baseline) for cell in sorted(runs["cell"].unique().tolist())]
    left_out = [f"cell {block.cell}: the baseline has no finished run there" for block in blocks if not block.known]
    blocks = [block for block in blocks if block.known]
    if not any(len(block.labels) > 1 for block in blocks):
        raise InputError("no run of another label is finished beside the baseline's; compare needs two labels at one (N, D)")
    measuring = [block for block in blocks if block.paired] or blocks  # noise without the effects of seeds is theirs only
    if measuring[0].paired:
        alone = [block.cell for block in blocks if not block.paired and len(block.labels) > 1]
        left_out += [f"cell {cell}: its labels share no seed, as those of other cells do" for cell in alone]
        blocks = [block for block in blocks if block.cell not in alone]
    freedom = sum(block.freedom for block in measuring)
    paired = (sum(block.residual for block in measuring) / freedom) ** 0.5 if freedom else None
    sd, known = (noise, np.inf) if noise is not None else (paired, freedom)
    pairs = [(block, label) for block in blocks for label in block.labels if label != baseline]
    others = list(dict.fromkeys(label for _, label in pairs))
    comparisons = len(pairs) + (len(others) if len(blocks) > 1 else 0)  # the means over cells are some, too
    scope = _Scope(sd=sd, freedom=known, level=level, comparisons=comparisons, margin=margin)
    found = [_difference(block, label, scope) for block, label in pairs]
    if len(blocks) > 1:
        found += [_mean([each for each in found if each.label == label], scope) for label in others]
    absent = {label: len(blocks) - sum(label in block.labels for block in blocks) for label in labels}
    left_out += [f"{label} has no finished run in {count} of the cells" for label, count in absent.items() if count]
    return Comparison(
        baseline=baseline,
        differences=tuple(found),
        noise=noise if noise is not None else between_seeds(runs)[0],
        paired=paired if noise is None else None,
        freedom=freedom if noise is None else 0,
        level=level,
        comparisons=comparisons,
        margin=margin,
        left_out=tuple(left_out),
    )


def between_seeds(runs: "pd.DataFrame") -> tuple[float | None, int]:
    """The standard deviation of the loss between runs of one cell and label, pooled over all, and its degrees of freedom."""
    groups = [rows["loss"].to_numpy() for _, rows in runs.groupby(["cell", "label"])]
    freedom = sum(len(losses) - 1 for losses in groups)
    squares = sum(float(((losses - losses.mean()) ** 2).sum()) for losses in groups)
    return ((squares / freedom) ** 0.5 if freedom else None), freedom


def detectable(cells: int, labels: int, seeds: int, level: float = 0.95, power: float = 0.8) -> float:
    """The difference in one cell that shows with probability `power`, over the noise between runs: of `labels` labels, the
    baseline included, with as many seeds each. Infinite with one seed."""
    from scipy.stats import t

    freedom = cells * (labels - 1) * (seeds - 1)
    comparisons = (cells + (cells > 1)) * (labels - 1)
    if freedom < 1 or comparisons < 1:
        return float("inf")
    return float((t.ppf(1 - (1 - level) / 2 / comparisons, freedom) + t.ppf(power, freedom)) * (2 / seeds) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """What all verdicts share."""

    sd: float | None
    freedom: float
    level: float
    comparisons: int
    margin: float | None

    def factor(self, freedom: float) -> float:
        """Half an interval's width, in standard errors."""
        from scipy.stats import norm, t

        tail = 1 - (1 - self.level) / 2 / self.comparisons
        return float(norm.ppf(tail) if np.isinf(freedom) else t.ppf(tail, freedom))

    def judged(self, seen: Difference, per_noise: float) -> Difference:
        """`seen` with an interval and a verdict; `per_noise` is the standard error over the noise of one run."""
        if self.sd is None:
            return seen
        se = self.sd * per_noise
        half = self.factor(self.freedom) * se
        margin = self.margin if self.margin is not None else RELATIVE_MARGIN * abs(seen.baseline)
        low, high = seen.value - half, seen.value + half
        most = max(abs(low), abs(high))
        given: dict[str, Any] = {"se": se, "low": low, "high": high}
        if (low > 0 or high < 0) and most > NEGLIGIBLE * margin:
            given |= {"verdict": DIFFERS}
        elif most <= margin:
            given |= {"verdict": EQUAL, "within": most}
        else:
            given |= {"verdict": MORE_SEEDS, "needed": self._needed(seen, se, margin)}
        return Difference(**asdict(seen) | given)

    def _needed(self, seen: Difference, se: float, margin: float) -> int | None:
        """The least number of seeds with which equal labels would probably be found equal, if noise and design stay."""
        for seeds in range(seen.seeds + 1, MAX_SEEDS + 1):
            freedom = self.freedom * (seeds - 1) / max(seen.seeds - 1, 1)
            if (self.factor(freedom) + PROBABLY) * se * (seen.seeds / seeds) ** 0.5 <= margin:
                return seeds
        return None


@dataclass(frozen=True, kw_only=True)
class _Block:
    """The runs of one cell, and the fit of label means and seed effects to them: shapes (runs,) and (labels + seeds - 1,)."""

    cell: int
    rows: "pd.DataFrame"
    labels: tuple[str, ...]
    known: bool
    covariance: np.ndarray  # of the coefficients, over the variance of the noise
    coefficients: np.ndarray
    residual: float
    freedom: int
    baseline: str
    paired: bool

    @classmethod
    def of(cls, cell: int, rows: "pd.DataFrame", baseline: str) -> "_Block":
        labels = tuple(dict.fromkeys(rows["label"]))
        # The first is part of the means. Unless seeds connect all labels, their effects and the labels' cannot be told apart.
        paired = len(labels) > 1 and _connected(rows, labels)
        seeds = sorted(rows["seed"].unique())[1:] if paired else []
        design = np.column_stack(
            [rows["label"] == label for label in labels] + [rows["seed"] == seed for seed in seeds]
        ).astype(float)
        loss = rows["loss"].to_numpy(dtype=float)
        covariance = np.linalg.pinv(design.T @ design)
        coefficients = covariance @ design.T @ loss
        return cls(
            cell=cell,
            rows=rows,
            labels=labels,
            known=baseline in labels,
            covariance=covariance,
            coefficients=coefficients,
            residual=float(((loss - design @ coefficients) ** 2).sum()),
            freedom=len(loss) - int(np.linalg.matrix_rank(design)),
            baseline=baseline,
            paired=paired,
        )

    def of_label(self, label: str) -> "pd.DataFrame":
        return self.rows[self.rows["label"] == label]


def _connected(rows: "pd.DataFrame", labels: Sequence[str]) -> bool:
    """Whether a chain of seeds that two labels share leads from each label to each other."""
    of_label = {label: set(rows.loc[rows["label"] == label, "seed"]) for label in labels}
    reached = of_label.pop(labels[0])
    while near := [label for label, seeds in of_label.items() if seeds & reached]:
        for label in near:
            reached |= of_label.pop(label)
    return not of_label


def _difference(block: _Block, label: str, scope: _Scope) -> Difference:
    own, base = block.of_label(label), block.of_label(block.baseline)
    contrast = np.zeros(len(block.coefficients))
    contrast[block.labels.index(label)], contrast[block.labels.index(block.baseline)] = 1, -1
    seen = Difference(
        label=label,
        cell=block.cell,
        N=float(own["N"].mean()),
        D=float(own["D"].mean()),
        seeds=len(own),
        loss=float(own["loss"].mean()),
        baseline=float(base["loss"].mean()),
        value=float(contrast @ block.coefficients),
    )
    return scope.judged(seen, float(contrast @ block.covariance @ contrast) ** 0.5)


def _mean(found: Sequence[Difference], scope: _Scope) -> Difference:
    """The mean of one label's differences over the cells."""
    seen = Difference(
        label=found[0].label,
        cell=EVERYWHERE,
        N=np.nan,
        D=np.nan,
        seeds=min(each.seeds for each in found),
        loss=float(np.mean([each.loss for each in found])),
        baseline=float(np.mean([each.baseline for each in found])),
        value=float(np.mean([each.value for each in found])),
    )
    if scope.sd is None or not scope.sd:
        return seen
    errors = [each.se / scope.sd for each in found if each.se is not None]
    return scope.judged(seen, float(np.sqrt(np.square(errors).sum())) / len(found))
