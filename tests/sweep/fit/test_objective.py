"""Approach 3's objective and solver, against finite differences, high precision and brute force."""

from itertools import product

import mpmath
import numpy as np
import pytest

from sweep.fit.bootstrap import resample_weights
from sweep.fit.judge.simulate import Noise, Simulator
from sweep.fit.solver.newton import _descend, minimise
from sweep.fit.solver.objective import Objective, solve_linear
from sweep.fit.solver.search import Search
from sweep.fit.surface import Surface

THETA = np.array([[-0.9, -0.5, 0.4, 0.3, 0.35], [0.1, -1.5, 0.2, 0.5, 0.1]])
TRUTH = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def objective(space: str = "log", noise: float = 0.01, seed: int = 0) -> tuple[Objective, np.ndarray]:
    runs = Simulator(surface=TRUTH, noise=Noise(run=noise), seed=seed).isoflop([1e18, 1e19, 1e20], sizes=8)
    x, y = np.log(runs.N), np.log(runs.D)
    z = np.log(runs.loss) if space == "log" else runs.loss
    return Objective(x - x.mean(), y - y.mean(), z, space), np.random.default_rng(0).uniform(0.5, 2, len(x))


@pytest.mark.parametrize("space", ["log", "linear"])
@pytest.mark.parametrize("delta", [1e-3, 0.05, np.inf])
def test_gradient_and_hessian_are_exact(space: str, delta: float) -> None:
    problem, weight = objective(space)
    at = problem.evaluate(THETA, weight, delta)
    np.testing.assert_allclose(at.value, problem.values(THETA, weight, delta), rtol=1e-14)
    step = 1e-6
    for i in range(5):
        change = np.eye(5)[i] * step
        up, down = (problem.evaluate(THETA + sign * change, weight, delta) for sign in (1, -1))
        scale = np.abs(at.gradient).max()
        np.testing.assert_allclose(at.gradient[i], (up.value - down.value) / (2 * step), atol=1e-8 * scale)
        if delta == np.inf:  # elsewhere the Hessian jumps where a residual crosses delta
            slope = (up.gradient - down.gradient) / (2 * step)
            np.testing.assert_allclose(at.hessian[i], slope, atol=1e-8 * np.abs(at.hessian).max())


def test_every_row_has_its_own_weights() -> None:
    problem, weight = objective()
    both = problem.evaluate(THETA, np.stack([weight, 2 * weight]), 1e-3)
    alone = problem.evaluate(THETA, weight, 1e-3)
    for together, apart in zip(both, alone, strict=True):
        np.testing.assert_allclose(together, apart * [1, 2], rtol=1e-13)


def test_steps_descend_even_where_the_hessian_does_not_curve_up() -> None:
    rng = np.random.default_rng(0)
    hessian = rng.standard_normal((5, 5, 200))
    hessian += hessian.transpose(1, 0, 2)
    gradient = rng.standard_normal((5, 200))
    assert ((_descend(hessian, gradient, np.full(200, 1e-3)) * gradient).sum(axis=0) < 0).all()
    positive = np.einsum("ijk,ljk->ilk", hessian, hessian)
    step = _descend(positive, gradient, np.zeros(200))
    np.testing.assert_allclose(np.einsum("ijk,jk->ik", positive, step), -gradient, atol=1e-6)


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, weight = objective()
    starts, _ = solve_linear(problem, weight[None], np.linspace(0.1, 1, 12))
    whole = minimise(problem, starts[0], weight, [0.1, 1e-3])
    monkeypatch.setattr("sweep.fit.solver.newton.BLOCK_VALUES", 7 * len(weight))
    np.testing.assert_allclose(minimise(problem, starts[0], weight, [0.1, 1e-3]), whole, atol=1e-6)


def test_projected_starts_solve_the_linear_part() -> None:
    problem, weight = objective(noise=0)
    exponents = np.array([0.2, TRUTH.beta, TRUTH.alpha])
    theta, misfit = solve_linear(problem, np.stack([weight, weight**2]), exponents)
    best = misfit.argmin(axis=1)
    np.testing.assert_allclose(theta[[0, 1], best][:, 3:], [[TRUTH.alpha, TRUTH.beta]] * 2)
    np.testing.assert_allclose(np.exp(theta[[0, 1], best][:, 2]), TRUTH.E, rtol=1e-8)
    np.testing.assert_allclose(problem.residuals(theta[0, best[:1]]), 0, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_no_start_of_the_papers_grid_finds_anything_lower(seed: int) -> None:
    problem, _ = objective(noise=0.02, seed=seed)
    weight, delta = np.ones(len(problem.x)), 1e-3
    offsets, exponents = np.arange(0, 26, 5.0), np.arange(0, 2.1, 0.5)
    grid = np.array(list(product(offsets, offsets, np.arange(-1, 1.1, 0.5), exponents, exponents)))
    grid[:, :2] -= grid[:, 3:] * [20, 23]  # the means of log N and log D, about
    grid = grid[np.random.default_rng(seed).choice(len(grid), 500, replace=False)]
    brute = minimise(problem, grid, weight, [0.1, 0.03, 0.01, 3e-3, delta], steps=6)
    minima, certificate = Search(objective=problem, weight=weight, delta=delta).run()
    ours = problem.values(minima[:1], weight, delta)[0]
    assert ours <= problem.values(brute, weight, delta).min() * (1 + 1e-9)
    assert certificate.stationary


def test_a_resample_is_not_bound_to_where_the_full_fit_ended() -> None:
    problem, _ = objective(noise=0.01)
    search = Search(objective=problem, weight=np.ones(len(problem.x)), delta=1e-3)
    minima, _ = search.run()
    drawn = resample_weights(len(problem.x), 50, seed=0)
    lost = np.array([[3.0, -6.0, -14.0, 1.9, 0.02]])
    good, bad = (search.resample(drawn, start, 0.01) for start in (minima[:1], lost))
    values = [problem.values(found, drawn, 1e-3) for found in (good, bad)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


def test_the_optimum_is_that_of_a_high_precision_solve() -> None:
    problem, _ = objective(noise=0.01)
    weight, delta = np.ones(len(problem.x)), 5e-3
    minima, _ = Search(objective=problem, weight=weight, delta=delta).run()
    runs = [tuple(map(mpmath.mpf, map(float, run))) for run in zip(problem.x, problem.y, problem.z, strict=True)]
    with mpmath.workdps(40):

        def gradient(a, b, e, alpha, beta):  # type: ignore[no-untyped-def]
            total = [mpmath.mpf(0)] * 5
            for x, y, z in runs:
                terms = (mpmath.exp(a - alpha * x), mpmath.exp(b - beta * y), mpmath.exp(e))
                slope = max(-delta, min(delta, mpmath.log(sum(terms)) - z)) / sum(terms)
                parts = (*terms, -x * terms[0], -y * terms[1])
                total = [have + slope * part for have, part in zip(total, parts, strict=True)]
            return total

        exact = mpmath.findroot(gradient, minima[0].tolist(), tol=1e-50)
    np.testing.assert_allclose(minima[0], [float(value) for value in exact], rtol=1e-11)
