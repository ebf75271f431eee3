"""Approach 3: a published data set's true optimum, planted surfaces, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.fit import NO_INTERVALS, Intervals, LawError, RunTable, fit_parametric
from sweep.fit.judge.simulate import Noise, Simulator
from sweep.fit.surface import Surface

# The optimum of the 240 points, to the digits that agree between float64 from several starts and fifty-digit arithmetic.
# Besiroglu et al. 2024 (arXiv 2404.10102) published a nearby point: that of least absolute deviations.
OBJECTIVE = 1.01827401780061e-3
GOLDEN = {"A": 477.8258682339, "B": 2143.41736336, "E": 1.81721809901, "alpha": 0.3473104988818, "beta": 0.3671724326278}
LAD = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}


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
    fit = fit_parametric(published, intervals=NO_INTERVALS)
    assert len(published) == 240
    assert fit.objective == pytest.approx(OBJECTIVE, rel=1e-13)
    for name, value in GOLDEN.items():
        assert getattr(fit, name).value == pytest.approx(value, rel=1e-11)
    assert fit.a.value == pytest.approx(0.51390, abs=5e-6)
    assert fit.status == "converged"
    proof = fit.certificate
    assert proof.gradient_norm < 1e-14
    assert proof.condition_number == pytest.approx(1.1e4, rel=0.05)
    assert len(proof.hessian_eigenvalues) == 5
    assert min(proof.hessian_eigenvalues) > 0
    assert proof.starts == 256
    assert proof.basin_share > 0.5
    assert proof.next_basin is None or proof.next_basin > 1.01 * OBJECTIVE


def test_least_absolute_deviations_of_the_published_points(published: RunTable) -> None:
    fit = fit_parametric(published, objective="lad", intervals=NO_INTERVALS)
    for name, value in LAD.items():
        assert getattr(fit, name).value == pytest.approx(value, rel=2e-4)
    assert fit.status == "converged"
    assert fit.certificate.gradient_norm < 1e-12
    residuals = np.log(published.loss / fit.predict(published.N, published.D))
    assert fit.objective == pytest.approx(np.abs(residuals).sum(), rel=1e-12)
    assert (np.abs(residuals) < 1e-10).sum() == 5  # as many as there are constants: a vertex


@pytest.mark.parametrize(
    ("options", "a"), [({"delta": 1e-4}, 0.5126), ({"delta": 1e-2}, 0.5184), ({"objective": "log_mse"}, 0.5298)]
)
def test_what_the_loss_function_does_to_a(published: RunTable, options: dict, a: float) -> None:
    assert fit_parametric(published, intervals=NO_INTERVALS, **options).a.value == pytest.approx(a, abs=5e-5)


def test_linear_squares_agree_with_scipy(published: RunTable) -> None:
    from scipy.optimize import least_squares

    fit = fit_parametric(published, objective="linear_mse", intervals=NO_INTERVALS)
    start = [np.log(fit.A.value), np.log(fit.B.value), np.log(fit.E.value), fit.alpha.value, fit.beta.value]
    N, D = np.log(published.N), np.log(published.D)

    def residuals(theta: np.ndarray) -> np.ndarray:
        a, b, e, alpha, beta = theta
        return np.exp(a - alpha * N) + np.exp(b - beta * D) + np.exp(e) - published.loss

    other = least_squares(residuals, np.array(start) * 1.02, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=5000)
    assert fit.objective == pytest.approx(other.cost, rel=1e-9)
    np.testing.assert_allclose(other.x[3:], start[3:], rtol=1e-4)


def test_ties_and_a_known_E(published: RunTable) -> None:
    tied = fit_parametric(published, tied=True, intervals=Intervals(20))
    assert tied.alpha.value == tied.beta.value
    assert tied.a == tied.b
    assert tied.a.value == 0.5
    assert tied.objective > OBJECTIVE
    fixed = fit_parametric(published, fixed_E=GOLDEN["E"], intervals=Intervals(20))
    assert fixed.E.value == pytest.approx(GOLDEN["E"])
    assert fixed.E.low == pytest.approx(fixed.E.high)
    assert fixed.objective == pytest.approx(OBJECTIVE, rel=1e-10)
    assert len(fixed.certificate.hessian_eigenvalues) == 4
    none = fit_parametric(planted(0.0, 20.0, 60.0, 0.2, 0.25), fixed_E=0.0, intervals=NO_INTERVALS)
    assert none.status == "converged"
    assert (none.alpha.value, none.beta.value) == pytest.approx((0.2, 0.25))
    with pytest.raises(LawError, match="which no run can beat") as caught:
        fit_parametric(published, fixed_E=2.5)
    assert caught.value.status == "loss_below_E"


def test_weights_count_like_repeated_runs(published: RunTable) -> None:
    weight = np.where(np.arange(240) % 3 == 0, 0.0, 1.0)
    weighted = fit_parametric(published, weights=weight, intervals=NO_INTERVALS)
    subset = fit_parametric(published.where(weight > 0), intervals=NO_INTERVALS)
    assert weighted.alpha.value == pytest.approx(subset.alpha.value, rel=1e-9)
    other = replace(published, loss=np.where(weight > 0, published.loss, 2 * published.loss))
    one, same = (fit_parametric(of, weights=weight).a for of in (published, other))
    assert (one.low, one.high) == pytest.approx((same.low, same.high), rel=1e-5)
    for bad in (np.ones(3), -np.ones(240), np.zeros(240)):
        with pytest.raises(LawError, match="weights"):
            fit_parametric(published, weights=bad)


def test_runs_that_share_a_trajectory_widen_the_interval() -> None:
    """Each of 30 runs gives 8 points with one common error: resampled alone they look like 240 runs."""
    simulator = Simulator(surface=Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28), noise=Noise(run=0.01))
    ends = simulator.isoflop(np.geomspace(1e18, 1e20, 5).tolist(), sizes=6)
    curves = simulator.curves(ends, points=8, start=0.1)
    N = np.repeat(ends.N, 8)
    D, loss = (np.concatenate([getattr(curve, name) for curve in curves]) for name in ("tokens", "loss"))
    alone = fit_parametric(N, D, loss)
    together = fit_parametric(N, D, loss, clusters=np.repeat(ends.run_id, 8))
    assert together.a.value == alone.a.value
    assert together.a.high - together.a.low > 1.3 * (alone.a.high - alone.a.low)  # type: ignore[operator]


def test_other_ways_to_count_flops_move_the_frontier() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28)
    C = 11 * runs.N**0.9 * runs.D
    fit = fit_parametric(RunTable(**{**vars(runs), "C": C}), intervals=NO_INTERVALS)
    assert fit.surface.compute.eta == pytest.approx(0.9)
    assert fit.a.value == pytest.approx(0.28 / (0.34 + 0.9 * 0.28))
    N, D = fit.optimal(1e20)
    assert 11 * N**0.9 * D == pytest.approx(1e20)
    for factor in (0.9, 1.1):
        assert fit.predict(N * factor, 1e20 / (11 * (N * factor) ** 0.9)) > fit.predict(N, D)


def test_arrays_and_tables_fit_alike(published: RunTable) -> None:
    table_fit = fit_parametric(published, intervals=Intervals(10))
    N, D, loss = published.N, published.D, published.loss
    for other in (
        fit_parametric(N, D, loss, intervals=Intervals(10)),
        fit_parametric(pd.DataFrame({"N": N, "D": D, "loss": loss}), intervals=Intervals(10)),
        fit_parametric({"N": N.tolist(), "D": D.tolist(), "loss": loss.tolist()}, intervals=Intervals(10)),
        fit_parametric(pd.DataFrame({"N": N, "C": 6 * N * D, "loss": loss}), intervals=Intervals(10)),
    ):
        assert other.a.value == pytest.approx(table_fit.a.value, rel=1e-10)
    assert "a = 0.5139" in table_fit.summary()


def test_all_245_points(published: RunTable, chinchilla_csv: Path) -> None:
    frame = pd.read_csv(chinchilla_csv)
    N, C = frame["Model Size"].to_numpy(), frame["Training FLOP"].to_numpy()
    fit = fit_parametric(table(N, C / (6 * N), frame["loss"].to_numpy()), intervals=NO_INTERVALS)
    assert fit.E.value == pytest.approx(1.891338, abs=1e-4)
    assert fit.alpha.value == pytest.approx(0.349313, abs=1e-4)
    assert fit.beta.value == pytest.approx(0.453049, abs=1e-4)


def test_its_intervals_are_the_published_width(published: RunTable) -> None:
    """Besiroglu et al.: standard errors 0.0154 of alpha, 0.0206 of beta; an 80 % interval of a of 0.491 to 0.542."""
    fit = fit_parametric(published, intervals=Intervals(400))
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
def test_a_planted_surface_comes_back(law: tuple[float, float, float, float, float]) -> None:
    fit = fit_parametric(planted(*law), intervals=NO_INTERVALS)
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
    fit = fit_parametric(table(runs.N, runs.D, loss), intervals=NO_INTERVALS)
    assert fit.a.value == pytest.approx(0.28 / 0.62, abs=0.03)


def test_the_same_seed_gives_the_same_interval() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28, noise=0.01)
    first, second, other = (fit_parametric(runs, intervals=Intervals(50, seed=seed)) for seed in (0, 0, 1))
    assert first.to_dict() == second.to_dict()
    assert first.a != other.a
    assert first.a.low < first.a.value < first.a.high  # type: ignore[operator]


def test_too_few_runs_are_refused() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28)
    with pytest.raises(LawError, match="at least 6 runs, 3 sizes") as caught:
        fit_parametric(runs.where(np.arange(5)))
    assert caught.value.status == "too_few_runs"
    with pytest.raises(LawError, match="of 1 size "):
        fit_parametric(runs.where(runs.N == runs.N[0]))


def test_a_surface_without_an_irreducible_loss_says_so() -> None:
    fit = fit_parametric(planted(0.0, 20.0, 60.0, 0.2, 0.25), intervals=NO_INTERVALS)
    assert fit.status == "bound"
    assert fit.E.value < 0.01
    assert fit.a.value == pytest.approx(0.25 / 0.45, abs=0.01)


def test_a_surface_without_one_of_its_terms_is_unidentified() -> None:
    runs = planted(1.69, 406.4, 410.7, 0.34, 0.28)
    flat = table(runs.N, runs.D, 1.69 + 406.4 / runs.N**0.34)
    with pytest.raises(LawError) as caught:
        fit_parametric(flat, intervals=NO_INTERVALS)
    assert caught.value.status == "unidentified"


def test_one_budget_or_one_ratio_is_refused() -> None:
    N = np.geomspace(1e7, 1e9, 12)
    rounded = 1e20 / (6 * N) * np.exp(0.01 * np.random.default_rng(0).standard_normal(12))  # as whole steps leave it
    for D in (1e20 / (6 * N), rounded, 20 * N):
        with pytest.raises(LawError, match="add runs at a second budget") as caught:
            fit_parametric(N, D, 1.7 + 400 / N**0.34 + 410 / D**0.28)
        assert caught.value.status == "collinear"
