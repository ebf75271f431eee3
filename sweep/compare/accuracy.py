"""Accuracy on multiple choice over runs: does it rise as the loss falls, or is it noise? Does a law of small runs give large ones?

All runs answer the same items, so that runs and items both are samples. Intervals resample both at once, runs by their (N, D)
(Owen 2007, arXiv 0712.1111, the pigeonhole bootstrap, which is never too narrow, and up to 1.7 times too wide where neither runs
nor items differ).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import InputError
from sweep.fit import Refused
from sweep.fit.bootstrap import resample_counts
from sweep.fit.judge.holdout import budgets_of, held_out_range
from sweep.fit.questions.accuracy import AccuracyLaw, fit_accuracy
from sweep.fit.result import Estimate, attempt, plain
from sweep.tables.table import RunTable, runs_from_frame
from sweep.words import counted

if TYPE_CHECKING:
    import pandas as pd

RISES, FALLS, NOISE, UNCLEAR = "rises", "falls", "only noise", "cannot be told"
PREDICTS, FAILS = "predicts", "does not predict"
MIN_CELLS = 5  # of fewer, resamples say too little
RESAMPLES, RESAMPLES_OF_LAW = 1000, 200
CLOSE = 0.03  # an accuracy off by less, with its whole interval, is predicted
HELD_OUT = 3  # the largest third of the budgets is held out


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
            f"the law of {counted(self.fitted, 'run')} below {self.above:.3g} FLOPs gives {_percent(self.predicted)} for the "
            f"{self.held} from there on, and {_percent(self.measured)} is measured, {_points(self.off)} more: {self.verdict}"
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

    def words(self) -> str:
        """Two sentences on one line."""
        law = self.judged.words() if isinstance(self.judged, Judged) else f"no law: {self.judged}"
        trend = f"{_percent(self.mean)} over all runs, chance {self.chance:.1%}; {_points(self.slope)} for a nat less"
        return f"{self.task} {self.verdict}: {trend}. {law[0].upper()}{law[1:]}"

    def to_dict(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if isinstance(self.judged, Judged):
            found["judged"] = {name: getattr(self.judged, name) for name in Judged.__dataclass_fields__}
        return plain(found)


def wilson(accuracy: float, items: int, level: float) -> tuple[float, float]:
    """The interval of one run's accuracy, by the items alone (Wilson 1927)."""
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    centre = (accuracy + z**2 / (2 * items)) / (1 + z**2 / items)
    half = z / (1 + z**2 / items) * np.sqrt(accuracy * (1 - accuracy) / items + z**2 / (4 * items**2))
    return centre - half, centre + half


def judge_task(runs: "pd.DataFrame", *, level: float, seed: int = 0) -> TaskFound:
    """What the finished runs of one label say of one task.

    Args:
        runs: columns run_id, N, D, C, budget, cell, loss (nats per token), task, accuracy, chance, and right: the answers, as
            `sweep.use.tasks.score_tasks` has them.
        level: of the intervals.
        seed: of the resamples.

    Raises:
        InputError: if the runs have answered other items.
    """
    if runs["fingerprint"].nunique() > 1:
        raise InputError(
            f"the runs have answered other items of {runs['task'].iloc[0]}; isosweep evaluate asks all of them the same"
        )
    runs = runs.reset_index(drop=True)
    right, loss, cell = np.stack(runs["right"].to_list()).astype(float), runs["loss"].to_numpy(dtype=float), runs["cell"]
    cells, chance = int(cell.nunique()), float(runs["chance"].iloc[0])
    weight, drawn = _resampled(right, cell.to_numpy(), RESAMPLES, seed)
    whole = np.ones((1, len(loss)))
    mean = _estimate(_means(whole, right.mean(axis=1)), _means(weight, drawn), level, cells)
    slope = _estimate(_slopes(whole, loss, right.mean(axis=1)), _slopes(weight, loss, drawn), level, cells)
    table = runs_from_frame(runs[["run_id", "N", "D", "C", "loss", "budget"]].astype({"budget": float}))
    return TaskFound(
        task=str(runs["task"].iloc[0]),
        items=right.shape[1],
        chance=chance,
        cells=cells,
        level=level,
        mean=mean,
        slope=slope,
        verdict=_verdict(slope, mean, chance),
        law=attempt(lambda: fit_accuracy(loss, right.mean(axis=1), chance)),
        judged=attempt(lambda: _judge_law(table, right, cell.to_numpy(), chance, level, seed)),
    )


def _verdict(slope: Estimate, mean: Estimate, chance: float) -> str:
    if slope.interval is None or slope.contains(0):
        return NOISE if mean.contains(chance) else UNCLEAR
    return RISES if slope.value > 0 else FALLS


def _judge_law(table: RunTable, right: np.ndarray, cell: np.ndarray, chance: float, level: float, seed: int) -> Judged:
    last = max(1, len(budgets_of(table)) // HELD_OUT)
    above, _ = held_out_range(table, last)
    held, accuracy, loss = table.C >= above, right.mean(axis=1), table.loss
    law = fit_accuracy(loss[~held], accuracy[~held], chance)
    weight, drawn = _resampled(right, cell, RESAMPLES_OF_LAW, seed)
    predicted = np.full((RESAMPLES_OF_LAW, int(held.sum())), np.nan)
    for row, counts, accuracies in zip(predicted, weight, drawn, strict=True):
        found = attempt(lambda: fit_accuracy(loss[~held], accuracies[~held], chance, counts[~held], law))  # noqa: B023
        if not isinstance(found, Refused):
            row[:] = found.predict(loss[held])
    ours, cells = law.predict(loss[held]), min(len(np.unique(cell[held])), len(np.unique(cell[~held])))
    whole = np.ones((1, len(ours)))
    means = [
        _estimate(_means(whole, one), _means(weight[:, held], many), level, cells)
        for one, many in (
            (ours, predicted),
            (accuracy[held], drawn[:, held]),
            (accuracy[held] - ours, drawn[:, held] - predicted),
        )
    ]
    off = means[2]
    verdict = UNCLEAR
    if off.interval is not None:
        verdict = PREDICTS if max(map(abs, off.interval)) < CLOSE else UNCLEAR if off.contains(0) else FAILS
    return Judged(
        law=law,
        above=float(budgets_of(table)[-last]),
        fitted=int((~held).sum()),
        held=int(held.sum()),
        predicted=means[0],
        measured=means[1],
        off=off,
        runs=tuple(
            {
                "run_id": str(run_id),
                "loss": float(L),
                "accuracy": float(share),
                "predicted": Estimate.from_resamples(p, own, level),
            }
            for run_id, L, share, p, own in zip(
                table.run_id[held], loss[held], accuracy[held], ours.tolist(), predicted.T, strict=True
            )
        ),
        verdict=verdict,
    )


def _resampled(right: np.ndarray, cell: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each run counts in each resample, and its accuracy on the items there; both of shape (resamples, runs)."""
    weight = resample_counts(len(right), resamples, seed=seed, clusters=cell)
    items = resample_counts(right.shape[1], resamples, seed=seed + 1)
    return weight, items @ right.T / right.shape[1]


def _means(weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a resample may hold none of these runs
        return (weight * values).sum(axis=1) / weight.sum(axis=1)


def _slopes(weight: np.ndarray, loss: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """The slope of the accuracy over the loss, its sign turned, in each resample."""
    x = loss - _means(weight, loss)[:, None]
    with np.errstate(invalid="ignore"):
        return -(weight * x * accuracy).sum(axis=1) / (weight * x**2).sum(axis=1)


def _estimate(value: np.ndarray, drawn: np.ndarray, level: float, cells: int) -> Estimate:
    if cells < MIN_CELLS:
        return Estimate(float(value[0]), note=f"no interval of {cells} (N, D); {MIN_CELLS} would do")
    return Estimate.from_resamples(float(value[0]), drawn, level)


def _percent(estimate: Estimate) -> str:
    return _shown(estimate, "", "%")


def _points(estimate: Estimate) -> str:
    return _shown(estimate, "+z", " points")


def _shown(estimate: Estimate, sign: str, unit: str) -> str:
    inside = estimate.note or "no interval"
    if estimate.interval is not None:
        inside = " to ".join(f"{100 * end:{sign}.1f}" for end in estimate.interval)
    return f"{100 * estimate.value:{sign}.1f}{unit} ({inside})"
