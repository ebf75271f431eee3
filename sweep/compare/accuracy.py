"""Accuracy on multiple choice over runs: does it rise as the loss falls, or is it noise? Does a law of small runs hold?

All runs answer the same items, so that runs and items both are samples. The intervals of a mean and a slope are clustered by
both, runs by their (N, D) (Cameron, Gelbach and Miller 2011). What follows from a law is resampled, runs and items at once (the
pigeonhole bootstrap of Owen 2007, arXiv 0712.1111, which errs on the wide side), and widened by Student's t.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import InputError, LawError
from sweep.fit import Refused
from sweep.fit.bootstrap import resample_counts
from sweep.fit.judge.holdout import budgets_of, held_out_range
from sweep.fit.questions.accuracy import AccuracyLaw, fit_accuracy
from sweep.fit.result import Estimate, attempt, plain
from sweep.tables.table import runs_from_frame
from sweep.words import counted

if TYPE_CHECKING:
    import pandas as pd

RISES, FALLS, NOISE, UNCLEAR = "rises", "falls", "only noise", "cannot be told"
PREDICTS, FAILS = "predicts", "does not predict"
MIN_CELLS = 5  # fewer say too little of how runs scatter
RESAMPLES = 200
CLOSE = 0.03  # an accuracy off by less, with its whole interval, is predicted
HELD_OUT = 3  # the largest third of the budgets is held out
PARAMETERS = 3  # of the law


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How well a law of the smaller budgets gives the accuracies of the larger ones.

    Attributes:
        law: of the runs with less than `above` FLOPs.
        above: the smallest budget that was held out.
        fitted, held: how many runs it was fitted to, and judged by.
        predicted, measured: the mean accuracy of the held-out runs, by the law at their measured losses, and as it is.
        off: measured less predicted, whose interval counts what both share.
        runs: each held-out run: run_id, loss, accuracy, and predicted with its interval.
        verdict: `PREDICTS` if `off` is less than `CLOSE` with its whole interval, `FAILS` if it is not 0, else `UNCLEAR`.
    """

    law: AccuracyLaw
    above: float
    fitted: int
    held: int
    predicted: Estimate
    measured: Estimate
    off: Estimate
    runs: tuple[dict[str, Any], ...]
    verdict: str

    def words(self) -> str:
        return (
            f"the law of {counted(self.fitted, 'run')} below {self.above:.3g} FLOPs gives {percent(self.predicted)} for the "
            f"{self.held} from there on, and {percent(self.measured)} is measured, off by {points(self.off)}: {self.verdict}"
        )


@dataclass(frozen=True, kw_only=True)
class TaskFound:
    """What the runs say of a task.

    Attributes:
        task: its name.
        items: how many were asked.
        chance: the accuracy of a guess.
        cells: how many (N, D) there are.
        level: of the intervals.
        mean: the accuracy over all runs.
        slope: by how much the accuracy rises for each nat that the loss is lower, by least squares over the runs.
        verdict: `RISES`, `FALLS`, `NOISE` if neither the slope tells nor the mean leaves chance, or `UNCLEAR`.
        law: of all runs, or why there is none.
        judged: a law of the smaller budgets on the larger ones, or why there is none.
    """

    task: str
    items: int
    chance: float
    cells: int
    level: float
    mean: Estimate
    slope: Estimate
    verdict: str
    law: AccuracyLaw | Refused
    judged: Judged | Refused

    @property
    def curves(self) -> tuple[AccuracyLaw | None, Judged | None]:
        """The law, and the judged one, where there are."""
        law = None if isinstance(self.law, Refused) else self.law
        return law, None if isinstance(self.judged, Refused) else self.judged

    def words(self) -> str:
        """Two sentences on one line."""
        law = self.judged.words() if isinstance(self.judged, Judged) else f"no law: {self.judged}"
        trend = f"{percent(self.mean)} over all runs, chance {self.chance:.1%}; {points(self.slope)} for a nat less"
        return f"{self.task} {self.verdict}: {trend}. {law[0].upper()}{law[1:]}"

    def to_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if isinstance(self.judged, Judged):
            found["judged"] = {name: getattr(self.judged, name) for name in Judged.__dataclass_fields__}
        return plain(found)


def wilson(accuracy: Any, items: Any, level: float) -> tuple[Any, Any]:
    """The interval of one run's accuracy, by the items alone (Wilson 1927); numbers, or arrays of many runs."""
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    centre = (accuracy + z**2 / (2 * items)) / (1 + z**2 / items)
    half = z / (1 + z**2 / items) * np.sqrt(accuracy * (1 - accuracy) / items + z**2 / (4 * items**2))
    return centre - half, centre + half


def judge_tasks(scores: "pd.DataFrame", *, level: float, seed: int = 0) -> list[TaskFound]:
    """What the finished runs of one label say of each task.

    Args:
        scores: a row for each run and task, with run_id, N, D, C, budget, cell, loss (nats per token), task, chance,
            fingerprint and right, as `sweep.store.collect.collect_tasks` returns them.
        level: of the intervals.
        seed: of the resamples.

    Raises:
        InputError: if the runs have answered other items.
    """
    return [_judge(own.reset_index(drop=True), level, seed) for _, own in scores.groupby("task", sort=False)]


def with_tokens(scores: "pd.DataFrame", level: float) -> Estimate:
    """By how much the accuracy on one task rises with each doubling of D at fixed N, by least squares over the runs with a
    constant for each N. Columns N, D, cell and right, as `judge_tasks` takes them."""
    sizes, right = scores["N"].to_numpy(), np.stack(scores["right"].to_list()).astype(float)
    own = sizes[:, None] == np.unique(sizes)
    x = np.column_stack([np.log2(scores["D"].to_numpy(dtype=float)), own])
    return _regression(x, right, scores["cell"].to_numpy(), level)


def _judge(runs: "pd.DataFrame", level: float, seed: int) -> TaskFound:
    task, chance = str(runs["task"].iloc[0]), float(runs["chance"].iloc[0])
    if runs["fingerprint"].nunique() > 1:
        raise InputError(f"the runs have answered other items of {task}; isosweep evaluate gives all of them the same")
    right, loss = np.stack(runs["right"].to_list()).astype(float), runs["loss"].to_numpy(dtype=float)
    cell, flat = runs["cell"].to_numpy(), np.ones((len(loss), 1))
    mean = _regression(flat, right, cell, level)
    slope = _regression(np.column_stack([-loss, flat]), right, cell, level)
    verdict = UNCLEAR
    if slope.interval is not None and not slope.contains(0):
        verdict = RISES if slope.value > 0 else FALLS
    elif mean.contains(chance):
        verdict = NOISE

    def all_of_it() -> AccuracyLaw:
        if verdict != RISES:
            raise LawError("no_rise", "an accuracy that is not seen to rise has none")
        return fit_accuracy(loss, right.mean(axis=1), chance)

    law = attempt(all_of_it)
    return TaskFound(
        task=task,
        items=right.shape[1],
        chance=chance,
        cells=len(np.unique(cell)),
        level=level,
        mean=mean,
        slope=slope,
        verdict=verdict,
        law=law,
        judged=law if isinstance(law, Refused) else attempt(lambda: _judge_law(runs, right, chance, level, seed)),
    )


def _regression(x: np.ndarray, right: np.ndarray, cell: np.ndarray, level: float) -> Estimate:
    """The first coefficient of the answers `right`, shape (runs, items), on `x`, shape (runs, coefficients), by least squares,
    clustered by the runs' `cell` and by the items."""
    from scipy.special import stdtrit

    cells, member = np.unique(cell, return_inverse=True)
    if (freedom := len(cells) - x.shape[1]) < MIN_CELLS - 2 or np.linalg.matrix_rank(x) < x.shape[1]:
        note = f"no interval of {counted(len(cells), '(N, D)', '(N, D)')}; {MIN_CELLS} would do"
        return Estimate(float(right.mean()) if x.shape[1] == 1 else float("nan"), note=note)
    inverse = np.linalg.pinv(x)
    coefficients = inverse @ right.mean(axis=1)
    share = inverse[0][:, None] * (right - (x @ coefficients)[:, None]) / right.shape[1]  # of each answer in the error
    both = np.zeros((len(cells), right.shape[1]))
    np.add.at(both, member, share)
    by_cell, by_item = (both.sum(axis=1) ** 2).sum() * len(cells) / freedom, (both.sum(axis=0) ** 2).sum()
    variance = max(by_cell + by_item - (both**2).sum(), by_cell, by_item)
    value, half = float(coefficients[0]), float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(variance))
    return Estimate(value, value - half, value + half)


def _judge_law(runs: "pd.DataFrame", right: np.ndarray, chance: float, level: float, seed: int) -> Judged:
    columns = ["run_id", "N", "D", "C", "loss", *(["budget"] if runs["budget"].notna().any() else [])]
    table = runs_from_frame(runs[columns])
    last = max(1, len(budgets_of(table)) // HELD_OUT)
    above, _ = held_out_range(table, last)
    C, loss, cell = (runs[name].to_numpy() for name in ("C", "loss", "cell"))
    held, accuracy = above <= C, right.mean(axis=1)
    law = fit_accuracy(loss[~held], accuracy[~held], chance)
    ours = law.predict(loss[held])
    counts = resample_counts(len(loss), RESAMPLES, seed=seed, clusters=cell)
    drawn = resample_counts(right.shape[1], RESAMPLES, seed=seed + 1) @ right.T / right.shape[1]
    predicted = np.full((RESAMPLES, len(ours)), np.nan)
    for row, count, share in zip(predicted, counts, drawn, strict=True):
        with suppress(LawError):  # too few runs in the resample
            row[:] = fit_accuracy(loss[~held], share[~held], chance, count[~held], law).predict(loss[held])
    fitted, cells = len(np.unique(cell[~held])), len(np.unique(cell[held]))

    def estimate(values: np.ndarray, resampled: np.ndarray) -> Estimate:
        if min(fitted, cells) < MIN_CELLS:
            return Estimate(float(values.mean()), note=f"no interval of {fitted} and {cells} (N, D); {MIN_CELLS} each would do")
        with np.errstate(invalid="ignore"):  # a resample may hold none of these runs
            means = (counts[:, held] * resampled).sum(axis=1) / counts[:, held].sum(axis=1)
        return _wider(Estimate.from_resamples(float(values.mean()), means, level), fitted - PARAMETERS, level)

    off = estimate(accuracy[held] - ours, drawn[:, held] - predicted)
    verdict = UNCLEAR
    if off.interval is not None:
        verdict = PREDICTS if max(map(abs, off.interval)) < CLOSE else UNCLEAR if off.contains(0) else FAILS
    ends = (Estimate.from_resamples(value, own, level) for value, own in zip(ours.tolist(), predicted.T, strict=True))
    rows = zip(runs["run_id"][held], loss[held].tolist(), accuracy[held].tolist(), ends, strict=True)
    return Judged(
        law=law,
        above=float(budgets_of(table)[-last]),
        fitted=int((~held).sum()),
        held=int(held.sum()),
        predicted=estimate(ours, predicted),
        measured=estimate(accuracy[held], drawn[:, held]),
        off=off,
        runs=tuple({"run_id": run_id, "loss": L, "accuracy": share, "predicted": own} for run_id, L, share, own in rows),
        verdict=verdict,
    )


def _wider(estimate: Estimate, freedom: int, level: float) -> Estimate:
    """The interval for a law that few runs were fitted to: Student's t in place of a normal distribution."""
    from scipy.special import ndtri, stdtrit

    if estimate.low is None or estimate.high is None:
        return estimate
    factor = float(stdtrit(max(freedom, 1), (1 + level) / 2) / ndtri((1 + level) / 2))
    value = estimate.value
    return Estimate(value, value - factor * (value - estimate.low), value + factor * (estimate.high - value))


def percent(estimate: Estimate) -> str:
    """A share with its interval."""
    return _shown(estimate, "z", "%")


def points(estimate: Estimate) -> str:
    """A difference of shares with its interval, in points of a hundred."""
    return _shown(estimate, "+z", " points")


def _shown(estimate: Estimate, sign: str, unit: str) -> str:
    inside = estimate.note or "no interval"
    if estimate.interval is not None:
        inside = " to ".join(f"{100 * end:{sign}.1f}" for end in estimate.interval)
    return f"{100 * estimate.value:{sign}.1f}{unit} ({inside})" if np.isfinite(estimate.value) else inside
