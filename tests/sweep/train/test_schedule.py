"""The learning rate of each step."""

import numpy as np
import pytest

from sweep.plan.run import ScheduleSettings
from sweep.train.schedule import learning_rate


def rates(steps: int, warmup: int, cycle: float = 1.0, final: float = 0.1) -> np.ndarray:
    schedule = ScheduleSettings(warmup_steps=warmup, final_fraction=final, cycle=cycle)
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


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_runs(steps: int) -> None:
    assert np.isfinite(rates(steps, 0)).all()
    assert rates(steps, 0)[0] == 1.0
