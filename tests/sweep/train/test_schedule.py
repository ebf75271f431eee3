"""The learning rate of each step."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from sweep.plan.run import ScheduleSettings
from sweep.train.schedule import learning_rate


def rates(steps: int, warmup: int, cycle: float = 1.0, final: float = 0.1, **shape: str | float) -> np.ndarray:
    schedule = ScheduleSettings(warmup_steps=warmup, final_fraction=final, cycle=cycle, **shape)  # type: ignore[arg-type]  # texts and numbers
    return np.array([learning_rate(step, steps, 1.0, schedule) for step in range(steps)])


def test_it_warms_up_linearly_peaks_and_ends_at_a_tenth() -> None:
    lr = rates(200, 20)
    np.testing.assert_allclose(lr[:20], np.arange(1, 21) / 20)
    assert lr.max() == lr[20] == 1.0
    assert lr[-1] == pytest.approx(0.1, abs=1e-15)
    assert (np.diff(lr[20:]) < 0).all()
    middle = (20 + 199) / 2
    assert np.interp(middle, np.arange(200), lr) == pytest.approx(0.55, abs=1e-4)


def test_a_longer_cycle_is_cut_off() -> None:
    assert rates(100, 0, cycle=1.5)[-1] == pytest.approx(0.1 + 0.9 * 0.25)


def cosine(step: int) -> float:
    return 0.2 + 0.8 * (1 + math.cos(math.pi * (step - 10) / 89)) / 2


def linear(step: int) -> float:
    return 1 - 0.8 * (step - 10) / 89


def constant(step: int) -> float:
    return 1.0


def inverse_sqrt(step: int) -> float:
    return (10 / (step + 1)) ** 0.5


def wsd(step: int) -> float:
    return 1 - 0.8 * max(0, step - 74) / 25  # a quarter of 100 steps


@pytest.mark.parametrize("shape", [cosine, linear, constant, inverse_sqrt, wsd], ids=lambda shape: shape.__name__)
def test_each_shape_is_its_formula(shape: Callable[[int], float]) -> None:
    """A hundred steps, ten of them warm-up."""
    found = rates(100, 10, final=0.2, shape=shape.__name__, decay_fraction=0.25)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(found[10:], [shape(step) for step in range(10, 100)], rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "first", "middle", "last"),
    [
        ("cosine", 1, 0.5, 0),
        ("linear", 1, 0.5, 0),
        ("constant", 1, 1, 1),
        ("inverse_sqrt", 1, 51**-0.5, 101**-0.5),
        ("wsd", 1, 1, 0),
    ],
)
def test_without_a_warm_up(shape: str, first: float, middle: float, last: float) -> None:
    assert rates(101, 0, final=0, shape=shape)[[0, 50, 100]] == pytest.approx([first, middle, last], abs=1e-12)


def test_a_longer_line_is_cut_off_too() -> None:
    assert rates(101, 0, cycle=2, final=0, shape="linear")[-1] == pytest.approx(0.5)


def test_a_decay_that_would_begin_in_the_warm_up_begins_after_it() -> None:
    np.testing.assert_allclose(rates(13, 8, final=0, shape="wsd", decay_fraction=1)[7:], [1, 1, 0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant", "inverse_sqrt", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_runs(steps: int, shape: str) -> None:
    for warmup in range(steps + 1):
        found = rates(steps, warmup, shape=shape)
        assert ((found > 0) & (found <= 1)).all()
    assert rates(steps, 0, shape=shape)[0] == 1.0
    if steps > 1 and shape not in ("constant", "inverse_sqrt"):
        assert rates(steps, 0, shape=shape)[-1] == pytest.approx(0.1)
