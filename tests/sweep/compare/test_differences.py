"""Differences between labels: against formulas worked out by hand, and how often the verdicts are right."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from sweep.compare.differences import DIFFERS, EQUAL, EVERYWHERE, MORE_SEEDS, ONE_SEED, compare, detectable
from sweep.errors import InputError


def table(
    effects: dict[str, float], seeds: int, noise: float = 0.01, shared: float = 0.02, cells: int = 2, seed: int = 0
) -> pd.DataFrame:
    """Runs whose losses are 2.5, the label's effect, what all runs of a seed share in a cell, and noise."""
    rng = np.random.default_rng(seed)
    of_seed = rng.normal(0, shared, (cells, seeds))
    rows = [
        {"cell": cell, "label": label, "seed": s, "N": 1e4 * (cell + 1), "D": 1e6, "loss": 2.5 + effect + of_seed[cell, s]}
        for cell, (label, effect), s in product(range(cells), effects.items(), range(seeds))
    ]
    return pd.DataFrame(rows).assign(loss=lambda runs: runs["loss"] + rng.normal(0, noise, len(runs)))


def test_two_labels_are_the_paired_t_test() -> None:
    runs = table({"a": 0, "b": 0.02}, seeds=5, cells=1)
    (found,) = compare(runs, baseline="a").differences
    a, b = (runs[runs["label"] == label]["loss"].to_numpy() for label in "ab")
    se = (b - a).std(ddof=1) / 5**0.5
    half = t.ppf(0.975, 4) * se
    assert found.value == pytest.approx((b - a).mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=1e-12)


def test_seeds_that_are_not_shared_are_the_two_sample_t_test() -> None:
    runs = table({"a": 0, "b": 0.02}, seeds=4, cells=1)
    runs["seed"] = range(len(runs))
    (found,) = compare(runs, baseline="a").differences
    a, b = (runs[runs["label"] == label]["loss"] for label in "ab")
    se = ((a.var() + b.var()) / 2 * 2 / 4) ** 0.5
    half = t.ppf(0.975, 6) * se
    assert (found.low, found.high) == pytest.approx((b.mean() - a.mean() - half, b.mean() - a.mean() + half), abs=1e-12)


def test_intervals_hold_all_truths_at_once_as_often_as_they_say() -> None:
    truth = {"a": 0.0, "b": 0.0, "c": 0.01, "d": -0.03}
    held = wrong = 0
    for seed in range(300):
        found = compare(table(truth, seeds=3, seed=seed), baseline="a", level=0.9)
        own = [each for each in found.differences if each.cell != EVERYWHERE]
        assert len(own) == 6
        assert found.comparisons == 9  # with the means over both cells
        held += all(each.low <= truth[each.label] <= each.high for each in own)  # type: ignore[operator]  # seeds give ends
        wrong += any(each.verdict == DIFFERS for each in own if each.label == "b")
    assert 0.9 - 3 * (0.09 / 300) ** 0.5 < held / 300 <= 1
    assert wrong < 0.1 * 300


def test_a_label_that_lacks_a_seed_is_compared_by_the_seeds_it_has() -> None:
    runs = table({"a": 0, "b": 0.05, "c": 0.05}, seeds=4, noise=1e-9, shared=0.5, cells=1)
    lacking = runs[~((runs["label"] == "b") & (runs["seed"] > 1))]
    for each in compare(lacking, baseline="a").differences:
        assert each.value == pytest.approx(0.05, abs=1e-6)  # and not half a nat off, as means over different seeds would be


def test_labels_without_a_common_seed_are_compared_by_their_means() -> None:
    """Runs that failed may leave a cell in parts that no seed connects."""
    rows = [("a", 0, 3.00), ("b", 0, 3.01), ("c", 1, 3.02), ("d", 1, 3.03)]
    runs = pd.DataFrame(rows, columns=["label", "seed", "loss"]).assign(cell=0, N=1e4, D=1e6)
    found = compare(runs, baseline="a", noise=0.005)
    assert [each.value for each in found.differences] == pytest.approx([0.01, 0.02, 0.03])


def test_verdicts() -> None:
    def verdicts(runs: pd.DataFrame, **options: float) -> dict[str, str]:
        return {each.label: each.words for each in compare(runs, baseline="a", **options).differences if each.cell == 0}

    same, known = table({"a": 0, "same": 0, "known": 0.08}, seeds=4), {}
    known = verdicts(same)
    assert known["known"] == "differs"
    assert known["same"].startswith("equal within ±0.0")
    few = verdicts(table({"a": 0, "same": 0}, seeds=2, cells=1), margin=0.005, noise=0.01)["same"]
    needed = int(few.removeprefix("too few seeds: ").removesuffix(" would do"))
    assert needed == np.ceil(2 * (0.01 * (1.96 + 1.28) / 0.005) ** 2)
    tables = [table({"a": 0, "same": 0}, seeds=needed, cells=1, seed=seed) for seed in range(100)]
    enough = [verdicts(runs, margin=0.005, noise=0.01)["same"].startswith("equal within") for runs in tables]
    assert 0.68 < np.mean(enough) < 0.92  # four in five
    assert verdicts(table({"a": 0, "b": 0.1}, seeds=1))["b"] == "one seed: no interval"
    assert verdicts(table({"a": 0, "b": 0.1}, seeds=1), noise=0.01)["b"] == "differs"


def test_a_difference_too_small_to_matter_is_none_however_well_it_is_known() -> None:
    runs = table({"a": 0, "b": 1e-4}, seeds=4, noise=1e-7)
    each = compare(runs, baseline="a").differences[0]
    assert each.low is not None
    assert each.low > 0
    assert each.verdict == EQUAL
    assert each.within == pytest.approx(1e-4, rel=0.1)


def test_detectable_differences_are_detected_four_times_in_five() -> None:
    size = 0.01 * detectable(cells=2, labels=3, seeds=3)
    seen = [
        each.verdict == DIFFERS
        for seed in range(200)
        for each in compare(table({"a": 0, "b": size, "c": size}, 3, seed=seed), baseline="a").differences
        if each.cell != EVERYWHERE
    ]
    assert 0.74 < np.mean(seen) < 0.9
    assert detectable(cells=1, labels=2, seeds=1) == np.inf


def test_what_cannot_be_compared_is_said() -> None:
    runs = table({"a": 0, "b": 0.1}, seeds=2)
    with pytest.raises(InputError, match="the baseline x has no finished run; there are 'a', 'b'"):
        compare(runs, baseline="x")
    with pytest.raises(InputError, match="no run of another label"):
        compare(runs[runs["label"] == "a"], baseline="a")
    found = compare(
        runs[(runs["label"] == "a") | (runs["cell"] == 1)].query("cell == 1 or label == 'b' or seed == 0"), baseline="a"
    )
    assert found.left_out == ("b has no finished run in 1 of the cells",)
    assert {each.verdict for each in found.differences} <= {DIFFERS, EQUAL, MORE_SEEDS, ONE_SEED}


@pytest.mark.parametrize("own", [{"b": [1]}, {"b": [1, 2]}])
def test_a_cell_whose_labels_share_no_seed_is_left_out(own: dict[str, list[int]]) -> None:
    """The noise of pairs says nothing of it: seeds have effects of their own there."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        effects = 0.05 * rng.standard_normal((6, 3))
        rows = [
            {"cell": cell, "label": label, "seed": seed, "N": 1e4, "D": 1e6 + cell, "loss": loss}
            for cell in range(6)
            for label in "ab"
            for seed in (range(3) if cell else own.get(label, [0]))
            for loss in [2 + effects[cell, seed] + 0.001 * rng.standard_normal()]
        ]
        found = compare(pd.DataFrame(rows), baseline="a")
        assert found.left_out == ("cell 0: its labels share no seed, as those of other cells do",)
        assert {each.cell for each in found.differences} == {1, 2, 3, 4, 5, EVERYWHERE}
        wrong += any(each.verdict == DIFFERS for each in found.differences)
    assert wrong <= 12  # of a table's intervals together, 5 in 100 miss
