"""Runs that train on a part of the corpus, repeated."""

from itertools import pairwise

import numpy as np
import pytest

from sweep.config import compose
from sweep.data import TrainingSequences
from sweep.errors import InputError
from sweep.plan.grid import PlannedRun, expand

TOKENS = np.arange(1001, dtype=np.uint16)


def made(unique_tokens: int | None, seed: int = 3, batch_size: int = 4) -> TrainingSequences:
    return TrainingSequences(TOKENS, context_length=10, batch_size=batch_size, seed=seed, unique_tokens=unique_tokens)


def planned(*overrides: str, training_tokens: float = 1e6) -> list[PlannedRun]:
    grid = ["grid=list", "grid.runs=[{N: 8e3, D: 4e5}]", "optimizer.batch_tokens=1024"]
    return expand(compose([*grid, *overrides]), corpus="0" * 16, vocab_size=257, training_tokens=training_tokens)


def test_an_epoch_is_the_unique_sequences_whatever_the_seed() -> None:
    epochs = [made(205, seed).starts(0, 10).reshape(2, 20) for seed in (3, 3, 4)]
    text = set(epochs[0][0])
    assert len(text) == 20
    assert all(set(epoch) == text for of_seed in epochs for epoch in of_seed)
    assert (epochs[0] == epochs[1]).all()
    assert (epochs[0] != epochs[2]).any()
    assert (epochs[0][0] != epochs[0][1]).any()  # in another order
    assert text != set(range(0, 200, 10))  # not the first ones: these are all of a few documents


def test_a_smaller_set_is_a_part_of_a_larger_one() -> None:
    sets = [set(made(unique).starts(0, 25)[: unique // 40].ravel()) for unique in (40, 200, 600, 1000)]
    assert all(smaller < larger for smaller, larger in pairwise(sets))
    assert sets[-1] == set(range(0, 1000, 10))


def test_a_batch_of_repeated_data_is_a_function_of_seed_and_step() -> None:
    forwards = [made(200).batch(step) for step in range(12)]
    backwards = made(200)
    for step in reversed(range(12)):
        np.testing.assert_array_equal(backwards.batch(step), forwards[step])


def test_sets_that_cannot_be_trained_on_are_refused() -> None:
    with pytest.raises(InputError, match=r"data.unique_tokens=39 are fewer than one batch of 40"):
        made(39)
    with pytest.raises(InputError, match=r"data.unique_tokens=1,001 are more than the 1,000"):
        made(1001)
    for value, message in (("1000", "fewer than one batch"), ("1e9", "more than the 999,936 tokens")):
        with pytest.raises(InputError, match=message):
            planned(f"data.unique_tokens={value}")
    assert planned("data.unique_tokens=1e9", training_tokens=np.inf)  # a corpus that is not made yet


def test_unique_tokens_make_another_run_whose_repetition_max_epochs_does_not_bound() -> None:
    (whole,), (part,) = planned(), planned("data.unique_tokens=2e4", "data.max_epochs=1")
    assert part.run.unique_tokens == 20_000
    assert part.run.run_id != whole.run.run_id
    assert "unique_tokens" not in whole.run.identity()
    assert part.run == type(part.run).from_dict(part.run.to_dict())
    with pytest.raises(InputError, match="longer than the data"):
        planned(training_tokens=1e5)
