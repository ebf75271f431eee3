"""The loss by position in the context."""

import numpy as np
import pytest

from sweep.errors import LawError
from sweep.fit import Intervals
from sweep.fit.kaplan.position import PositionLaw, bin_means, fit_position_law, position_edges

T = 128
TRUE = PositionLaw(L_inf=1.5, c=1.5, gamma=0.6)


def blocks(
    loss: np.ndarray, *, sequences: int = 640, seed: int = 0, of_sequence: float = 0.3, of_token: float = 1.5
) -> np.ndarray:
    """Mean losses of 32 blocks in the bins, with noise that a sequence's tokens share, and noise of their own."""
    random, sequences = np.random.default_rng(seed), 640
    noise = of_sequence * random.standard_normal((sequences, 1)) + of_token * random.standard_normal((sequences, len(loss)))
    return bin_means(loss + noise).reshape(32, sequences // 32, -1).mean(axis=1)


def test_the_bins_hold_every_position_once() -> None:
    for length in (8, 32, 128, 1024):
        edges = position_edges(length)
        assert (edges[0], edges[-1]) == (1, length + 1)
        assert (np.diff(edges) > 0).all()
        assert len(edges) <= 25
    values = np.arange(1.0, T + 1)
    assert (bin_means(values) * np.diff(position_edges(T))).sum() == pytest.approx(values.sum())


@pytest.mark.parametrize("law", [TRUE, PositionLaw(L_inf=2.3, c=5.4, gamma=0.62), PositionLaw(L_inf=1.0, c=0.8, gamma=1.7)])
def test_a_law_without_noise_is_found(law: PositionLaw) -> None:
    found = fit_position_law(np.tile(bin_means(law.predict(np.arange(1, T + 1))), (8, 1)), T)
    assert vars(found.law) == pytest.approx(vars(law), rel=2e-3)
    assert found.status == "converged"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    loss = TRUE.predict(np.arange(1, T + 1))
    held = {"L_inf": 0, "c": 0, "gamma": 0}
    trials = 120
    for seed in range(trials):
        constants = fit_position_law(blocks(loss, seed=seed), T, Intervals(level=0.8)).constants
        for name in held:
            held[name] += bool(constants[name].contains(getattr(TRUE, name)))
    for name, count in held.items():
        assert 0.68 < count / trials < 0.9, (name, count)


def test_a_misfit_widens_the_intervals() -> None:
    t = np.arange(1, T + 1)
    wavy = TRUE.predict(t) + 0.05 * np.sin(4 * np.log(t))
    ends = [fit_position_law(blocks(loss, of_token=0.3), T).constants["gamma"].interval for loss in (TRUE.predict(t), wavy)]
    straight, bent = (end[1] - end[0] for end in ends if end)
    assert bent > 1.5 * straight


@pytest.mark.parametrize(
    ("loss", "status", "message"),
    [
        (np.full(T, 2.0), "unidentified", "beyond its noise"),
        (2 + 0.3 * np.log(np.arange(1, T + 1)), "unidentified", "does not fall"),
        (4 - 0.3 * np.log(np.arange(1, T + 1)), "unidentified", "leaves L_inf or gamma open"),
        (np.where(np.arange(1, T + 1) > 20, 2.9, 2 + 2 / np.arange(1, T + 1)), "misfit", "nats off L"),
    ],
)
def test_what_is_no_such_law_is_refused(loss: np.ndarray, status: str, message: str) -> None:
    with pytest.raises(LawError, match=message) as refused:
        fit_position_law(blocks(loss, of_token=0.1, of_sequence=0.01), T)
    assert refused.value.status == status


def test_too_little_is_refused() -> None:
    with pytest.raises(LawError, match="7 blocks"):
        fit_position_law(blocks(TRUE.predict(np.arange(1, T + 1)))[:7], T)
    with pytest.raises(LawError, match="4 bins of the context"):
        fit_position_law(np.ones((32, 4)), 4)
    with pytest.raises(LawError, match=r"give \(blocks, 20\) for 128 positions"):
        fit_position_law(np.ones((32, 4)), T)
