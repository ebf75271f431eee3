"""Expected times."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweep.plan.estimate import REFERENCE, Speed, makespan
from sweep.plan.run import RunConfig
from sweep.store import Store
from sweep.store.states import DONE
from tests.stores import leave_status


def test_times_scale_to_what_was_seen_here(tiny_run: RunConfig, tmp_path: Path) -> None:
    seen = []
    for seed, slowdown in ((0, 3.0), (1, 3.0), (2, 50.0)):  # one outlier
        run = replace(tiny_run, seed=seed)
        directory = Store(tmp_path).run(run.run_id)
        directory.create(run)
        seconds = Speed(1000, REFERENCE).seconds(run)
        assert seconds is not None
        leave_status(
            directory, DONE, elapsed_s=slowdown * seconds, device="cpu", step=run.steps, val_loss=2.0, val_loss_se=0.01
        )
        seen.append((run, directory.status()))
    speed = Speed.measured(seen, "cpu", 1000)
    assert speed.scale == pytest.approx(1 / 3)
    whole, half = speed.seconds(tiny_run), speed.seconds(tiny_run, steps_done=6)
    assert whole == pytest.approx(3 * Speed(1000, REFERENCE).seconds(tiny_run))  # type: ignore[operator]
    assert half == pytest.approx(whole / 2)  # type: ignore[operator]


def test_the_noise_scale_takes_time(tiny_run: RunConfig) -> None:
    """24 times 64 gradients of a three-layer model took 12.5 s on one core of an AVX2 machine."""
    shape = replace(tiny_run.model, d_model=28, n_layers=3, n_heads=2, n_kv_heads=2, d_ff=84, context_length=128)
    run = replace(tiny_run, model=shape, evaluation_points=24)
    speed = Speed(1000, {run.N: 65_000})
    without, measured = speed.seconds(run), speed.seconds(replace(run, noise_scale=True))
    assert without is not None
    assert measured is not None
    assert measured - without == pytest.approx(12.5, rel=0.2)


def test_an_unseen_gpu_is_unknown(tiny_run: RunConfig) -> None:
    assert Speed.measured([], "cuda", 1000).seconds(tiny_run) is None
    assert Speed.measured([], "cpu", 1000).seconds(tiny_run) is not None


def test_larger_models_take_longer_per_token(tiny_run: RunConfig) -> None:
    times = [
        Speed(1000, REFERENCE).seconds(replace(tiny_run, model=replace(tiny_run.model, n_layers=layers)))
        for layers in (1, 30, 3000, 30_000)
    ]
    assert times == sorted(times)  # type: ignore[type-var]
    assert times[-1] > 100 * times[0]  # type: ignore[operator]


def test_makespan_is_that_of_the_first_free_worker() -> None:
    assert makespan([5, 4, 3, 3], 2) == 8
    assert makespan([5, 4, 3, 3], 1) == 15
