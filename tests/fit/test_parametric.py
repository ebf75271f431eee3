"""Approach 3: a published data set's true optimum, planted surfaces, refusals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.fit import LawError, RunTable, fit_parametric
from sweep.fit.parametric import _objective, _Problem

# The optimum of the 240 points, recomputed to 13 digits from three starts; Besiroglu et al. 2024 (arXiv 2404.10102) published
# a nearby point.
OBJECTIVE, E, ALPHA, BETA, A_EXPONENT = 1.01827401780061e-3, 1.81721809901, 0.3473104988818, 0.3671724326278, 0.51390


def table(N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> RunTable:
    names = np.array([f"run-{i}" for i in range(len(N))])
    return RunTable(run_id=names, N=N, D=D, C=6 * N * D, loss=loss, budget=np.full(len(N), np.nan))


def planted(E: float, A: float, B: float, alpha: float, beta: float, noise: float = 0.0, seed: int = 0) -> RunTable:
    rng = np.random.default_rng(seed)
    N, ratio = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(3, 300, 6)))
    loss = E + A / N**alpha + B / (ratio * N) ** beta
    return table(N, ratio * N, loss * np.exp(noise * rng.standard_normal(len(N))))


@pytest.fixture(scope="module")
def published(chinchilla_csv: Path) -> RunTable:
    frame = pd.read_csv(chinchilla_csv)
    kept = frame.drop(frame["loss"].nlargest(5).index)
    N, C = kept["Model Size"].to_numpy(), kept["Training FLOP"].to_numpy()
    return table(N, C / (6 * N), kept["loss"].to_numpy())


def test_the_published_points_global_optimum(published: RunTable) -> None:
    fit = fit_parametric(published, resamples=0)
    assert len(published) == 240
    assert fit.objective == pytest.approx(OBJECTIVE, rel=1e-6)
    assert fit.E.value == pytest.approx(E, abs=1e-4)
    assert fit.alpha.value == pytest.approx(ALPHA, abs=1e-4)
    assert fit.beta.value == pytest.approx(BETA, abs=1e-4)
    assert fit.a.value == pytest.approx(A_EXPONENT, abs=1e-4)
    assert fit.status == "converged"
    assert fit.gradient_norm < 1e-9


def test_all_245_points(published: RunTable, chinchilla_csv: Path) -> None:
    frame = pd.read_csv(chinchilla_csv)
    N, C = frame["Model Size"].to_numpy(), frame["Training FLOP"].to_numpy()
    fit = fit_parametric(table(N, C / (6 * N), frame["loss"].to_numpy()), resamples=0)
    assert fit.E.value == pytest.approx(1.891338, abs=1e-4)
    assert fit.alpha.value == pytest.approx(0.349313, abs=1e-4)
    assert fit.beta.value == pytest.approx(0.453049, abs=1e-4)


def test_its_intervals_are_the_published_width(published: RunTable) -> None:
    """Besiroglu et al.: standard errors 0.0154 of alpha, 0.0206 of beta; an 80 % interval of a of 0.491 to 0.542."""
    fit = fit_parametric(published, resamples=400)
    assert fit.a.low == pytest.approx(0.491, abs=0.006)
    assert fit.a.high == pytest.approx(0.542, abs=0.006)
    assert fit.alpha.high - fit.alpha.low == pytest.approx(2 * 1.2816 * 0.0154, rel=0.25)  # type: ignore[operator]


@pytest.mark.parametrize(
    "law",
    [
        (1.69, 406.4, 410.7, 0.34, 0.28),
        (1.82, 482.0, 2085.4, 0.348, 0.366),
        (0.5, 20.0, 60.0, 0.25, 0.3),
        (2.5, 3000.0, 300.0, 0.5, 0.22),
    ],
)
def test_a_planted_surface_comes_back(law: tuple[float, ...]) -> None:
    fit = fit_parametric(planted(*law), resamples=0)
    found = (fit.E, fit.A, fit.B, fit.alpha, fit.beta)
    np.testing.assert_allclose([estimate.value for estimate in found], law, rtol=1e-4)
    assert fit.a.value == pytest.approx(law[4] / (law[3] + law[4]), rel=1e-5)
    C = np.geomspace(1e18, 1e22, 5)
    N_opt, D_opt = fit.optimal(C)
    np.testing.assert_allclose(6 * N_opt * D_opt, C)
    for factor in (0.9, 1.1):  # nothing beside the frontier is better
        assert (fit.predict(N_opt * factor, D_opt / factor) > fit.predict(N_opt, D_opt)).all()


def test_outliers_move_it_little() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28, noise=0.002)
    loss = runs.loss.copy()
    loss[::12] *= 1.3
    fit = fit_parametric(table(runs.N, runs.D, loss), resamples=0)
    assert fit.a.value == pytest.approx(0.28 / 0.62, abs=0.03)


def test_gradient_and_hessian_are_exact() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28, noise=0.01)
    x, y = np.log(runs.N), np.log(runs.D)
    problem = _Problem(x - x.mean(), y - y.mean(), np.log(runs.loss), np.random.default_rng(0).uniform(0.5, 2, len(x)))
    theta = np.array([[-0.9, -0.5, 0.4, 0.3, 0.35], [0.1, -1.5, 0.2, 0.5, 0.1]])
    for delta in (1e-3, 0.05, 10.0):
        _, gradient, hessian = _objective(theta, problem, delta)
        step = 1e-6
        for i in range(5):
            change = np.eye(5)[i] * step
            up, up_gradient, _ = _objective(theta + change, problem, delta)
            down, down_gradient, _ = _objective(theta - change, problem, delta)
            np.testing.assert_allclose(gradient[:, i], (up - down) / (2 * step), atol=1e-8 * len(x))
            if delta == 10.0:  # elsewhere the Hessian jumps where a residual crosses delta
                np.testing.assert_allclose(hessian[:, :, i], (up_gradient - down_gradient) / (2 * step), atol=1e-6)


def test_the_same_seed_gives_the_same_interval() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28, noise=0.01)
    first, second, other = (fit_parametric(runs, resamples=50, seed=seed) for seed in (0, 0, 1))
    assert first.to_dict() == second.to_dict()
    assert first.a != other.a
    assert first.a.low < first.a.value < first.a.high  # type: ignore[operator]


def test_too_few_runs_are_refused() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28)
    with pytest.raises(LawError, match="at least 6 runs, 3 sizes") as caught:
        fit_parametric(runs.where(np.arange(5)))
    assert caught.value.status == "too_few_runs"
    with pytest.raises(LawError, match="of 1 sizes"):
        fit_parametric(runs.where(runs.N == runs.N[0]))


def test_a_surface_without_an_irreducible_loss_says_so() -> None:
    fit = fit_parametric(planted(0.0, 20.0, 60.0, 0.2, 0.25), resamples=0)
    assert fit.status == "bound"
    assert fit.E.value < 0.01
    assert fit.a.value == pytest.approx(0.25 / 0.45, abs=0.01)


def test_a_surface_without_one_of_its_terms_is_unidentified() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28)
    flat = table(runs.N, runs.D, 1.69 + 406.4 / runs.N**0.34)
    with pytest.raises(LawError) as caught:
        fit_parametric(flat, resamples=0)
    assert caught.value.status == "unidentified"
