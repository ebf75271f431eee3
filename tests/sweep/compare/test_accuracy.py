"""What is said of accuracies on simulated sweeps, of which the truth is known."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep.compare import Measured
from sweep.compare.accuracy import (
    FAILS,
    FALLS,
    NOISE,
    PREDICTS,
    RISES,
    UNCLEAR,
    Judged,
    _regression,
    judge_tasks,
    wilson,
    with_tokens,
)
from sweep.compare.experiment import FAILS as CLAIM_FAILS
from sweep.compare.experiment import HOLDS
from sweep.compare.experiments.tasks import analyse
from sweep.errors import InputError
from sweep.fit import Refused
from sweep.fit.questions.accuracy import AccuracyLaw

LAW = AccuracyLaw(chance=0.25, top=0.9, k=2.0, L_mid=2.0)
BUDGETS = (2e10, 6e10, 2e11)


def simulated(
    rng: np.random.Generator, *, sizes: int = 6, items: int = 800, known: bool = True, beyond: float = 0.0
) -> pd.DataFrame:
    """Scores of an IsoFLOP sweep: accuracies by `LAW`, or by chance if nothing is `known`, with items of unequal difficulty;
    those of the largest budget off by `beyond`."""
    difficulty = rng.normal(size=items)
    rows: list[dict[str, Any]] = []
    for C in BUDGETS:
        for size, N in enumerate(np.geomspace(5e3, 1e5, sizes)):
            D = C / 6 / N
            loss = (1.2 + 48 / N**0.5 + 60 / D**0.35) * np.exp(0.01 * rng.normal())
            share = float(LAW.predict(loss)) + beyond * (C == BUDGETS[-1]) if known else 0.25
            chances = 1 / (1 + np.exp(-(np.log(share / (1 - share)) * 1.2 + difficulty)))
            right = (rng.random(items) < chances * share / chances.mean()).astype(float)
            row = {
                "run_id": f"{C:g}-{size}",
                "cell": len(rows),
                "N": round(N),
                "D": round(D),
                "C": C,
                "budget": C,
                "loss": loss,
            }
            rows.append(row | {"label": "", "task": "some", "chance": 0.25, "fingerprint": "one", "right": right.tolist()})
    return pd.DataFrame(rows)


def test_a_task_that_is_learnt_rises_and_one_that_is_not_is_only_noise() -> None:
    rng = np.random.default_rng(0)
    assert Counter(judge_tasks(simulated(rng), level=0.95)[0].verdict for _ in range(5)) == {RISES: 5}
    found = [judge_tasks(simulated(rng, known=False), level=0.95)[0] for _ in range(40)]
    assert Counter(each.verdict for each in found)[NOISE] >= 36
    assert all(isinstance(each.law, Refused) for each in found if each.verdict != RISES)
    turned = simulated(rng)
    turned["loss"] = 5 - turned["loss"]
    assert judge_tasks(turned, level=0.95)[0].verdict == FALLS


def test_the_intervals_of_the_slope_hold_the_truth() -> None:
    rng, inside = np.random.default_rng(1), 0
    for _ in range(100):
        scores = simulated(rng, items=300)
        x = -scores["loss"] + scores["loss"].mean()
        truth = (x * LAW.predict(scores["loss"])).sum() / (x**2).sum()
        right, flat = np.stack(scores["right"].to_list()), np.ones(len(scores))
        slope = _regression(np.column_stack([-scores["loss"], flat]), right, scores["cell"].to_numpy(), 0.8)
        inside += bool(slope.contains(truth))
    assert 72 <= inside <= 96  # 0.8 of 100 ± two standard deviations; the law's bend widens them


def test_a_law_is_judged_by_the_largest_budget() -> None:
    rng = np.random.default_rng(2)
    right = [judge_tasks(simulated(rng, sizes=30, items=3000), level=0.95)[0].judged for _ in range(3)]
    wrong = [judge_tasks(simulated(rng, sizes=30, items=3000, beyond=-0.12), level=0.95)[0].judged for _ in range(3)]
    assert all(isinstance(each, Judged) for each in (*right, *wrong))
    assert Counter(each.verdict for each in right if isinstance(each, Judged))[PREDICTS] >= 2
    assert Counter(each.verdict for each in wrong if isinstance(each, Judged)) == {FAILS: 3}
    few = judge_tasks(simulated(rng, items=100), level=0.95)[0].judged
    assert isinstance(few, Judged)
    assert few.verdict == UNCLEAR  # it is noisy
    assert (few.above, few.fitted, few.held) == (2e11, 12, 6)
    assert len(few.runs) == 6


def test_what_is_measured_beyond_lies_in_the_interval_if_the_law_holds() -> None:
    rng, inside = np.random.default_rng(3), 0
    for _ in range(20):
        judged = judge_tasks(simulated(rng), level=0.8)[0].judged
        assert isinstance(judged, Judged)
        inside += bool(judged.off.contains(0))
    assert inside >= 14  # 0.8 of 20, less two standard deviations


def test_too_few_runs_have_no_interval() -> None:
    scores = simulated(np.random.default_rng(0))
    found = judge_tasks(scores.iloc[:3], level=0.95)[0]
    assert found.slope.interval is None
    assert found.verdict == UNCLEAR
    assert "no interval of 3 (N, D); 5 would do" in found.words()
    assert isinstance(found.judged, Refused)


def test_runs_that_answered_other_items_are_not_compared() -> None:
    scores = simulated(np.random.default_rng(0))
    scores.loc[0, "fingerprint"] = "another"
    with pytest.raises(InputError, match="have answered other items of some; isosweep evaluate"):
        judge_tasks(scores, level=0.95)


def test_the_accuracy_with_tokens_is_at_fixed_size() -> None:
    scores = simulated(np.random.default_rng(0), items=3000)
    per_doubling = with_tokens(scores, 0.95)
    scores = scores.assign(tokens=np.log2(scores["D"].astype(float)), accuracy=scores["right"].map(np.mean))
    within = scores.groupby("N")[["tokens", "accuracy"]].transform(lambda own: own - own.mean())
    assert per_doubling.value == pytest.approx((within["tokens"] * within["accuracy"]).sum() / (within["tokens"] ** 2).sum())
    assert not per_doubling.contains(0)


def test_the_experiment() -> None:
    rng = np.random.default_rng(0)
    scores = pd.concat([simulated(rng), simulated(rng, known=False).assign(task="blind")])
    nothing = pd.DataFrame()
    outcome = analyse(Measured(runs=nothing, curves=nothing, evaluations=nothing, labels=("",), tasks=scores))
    tokens, loss, _, blind = outcome.claims
    assert (tokens.verdict, loss.verdict) == (HOLDS, HOLDS)
    assert "only noise" in blind.here
    turned = scores.assign(D=1e20 / scores["D"])
    assert analyse(Measured(runs=nothing, curves=nothing, evaluations=nothing, tasks=turned)).claims[0].verdict == CLAIM_FAILS
    with pytest.raises(InputError, match="isosweep evaluate scores them"):
        analyse(Measured(runs=nothing, curves=nothing, evaluations=nothing))


def test_wilson() -> None:
    low, high = wilson(0.0, 10, 0.95)
    assert (low, high) == pytest.approx((0.0, 0.2775), abs=1e-4)  # Wilson 1927
    assert wilson(np.array([0.5]), 100, 0.95)[1] == pytest.approx(0.5961, abs=5e-4)
