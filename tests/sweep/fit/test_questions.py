"""The papers' questions: less loss by N, D or both, doublings, sizes, named models; against direct solutions and the papers."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.fit import (
    NO_INTERVALS,
    Compute,
    Intervals,
    LawError,
    Noise,
    ParametricFit,
    Questions,
    Refused,
    Simulator,
    Surface,
    answer,
    doubling,
    fit_isoflop,
    fit_parametric,
    growth,
    improvement,
    place,
    sized_runs,
)
from sweep.fit.surface import BESIROGLU, CHINCHILLA

BUDGETS = [1e18, 3e18, 1e19, 3e19, 1e20]
GOPHER = (280e9, 300e9)


def fitted(surface: Surface = BESIROGLU, noise: float = 0.0, seed: int = 0, **options: Any) -> ParametricFit:
    runs = Simulator(surface=surface, noise=Noise(run=noise), seed=seed).isoflop(BUDGETS, sizes=9)
    return fit_parametric(runs, **{"intervals": Intervals(60), **options})


@pytest.fixture(scope="module")
def noisy() -> ParametricFit:
    return fitted(noise=0.002)


def ends(estimate: Any) -> tuple[float, float, float]:
    assert estimate.low is not None
    return estimate.low, estimate.value, estimate.high


# ---- less loss -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("less", [0.02, 0.05, 0.1])
@pytest.mark.parametrize(("N", "D"), [(3e8, 2e10), (1e9, 1e10)])
def test_each_way_reaches_the_target_and_both_is_the_cheapest(less: float, N: float, D: float) -> None:
    answered = improvement(fitted(), less, N, D)
    target = (1 - less) * BESIROGLU.predict(N, D)
    assert answered.target.value == pytest.approx(target, rel=1e-6)

    def solved(loss: Any) -> float:
        return float(brentq(lambda log: loss(math.exp(log)) - target, 0, 60))

    # By root finding on the surface itself, not by its inverse.
    more_N = math.exp(solved(lambda factor: BESIROGLU.predict(factor * N, D)))
    more_D = math.exp(solved(lambda factor: BESIROGLU.predict(N, factor * D)))
    alone_N, alone_D, both = answered.ways
    for way, name, factor in ((alone_N, "N", more_N), (alone_D, "D", more_D)):
        found = {key: getattr(way, key) for key in "NDC" if getattr(way, key) is not None}
        assert {key: estimate.value for key, estimate in found.items()} == pytest.approx({name: factor, "C": factor}, rel=1e-3)

    def cost(log_factor: float) -> float:
        gap = target - BESIROGLU.E - BESIROGLU.A / (math.exp(log_factor) * N) ** BESIROGLU.alpha
        return math.inf if gap <= 0 else log_factor + math.log((BESIROGLU.B / gap) ** (1 / BESIROGLU.beta) / D)

    grid = np.linspace(-3, 12, 3000)
    start = float(grid[int(np.argmin([cost(x) for x in grid]))])
    best = minimize_scalar(cost, bounds=(start - 0.1, start + 0.1), method="bounded")
    assert both.C is not None
    assert both.N is not None
    assert both.D is not None
    assert math.log(both.C.value) == pytest.approx(best.fun, abs=1e-3)
    assert both.C.value == pytest.approx(both.N.value * both.D.value)
    assert both.C.value <= min(more_N, more_D) * (1 + 1e-9)


def test_where_no_amount_is_enough_it_says_so() -> None:
    fit = fitted()
    N, D = 3e8, 2e10
    alone = 1 - (BESIROGLU.E + BESIROGLU.A / N**BESIROGLU.alpha) / BESIROGLU.predict(N, D)  # what infinite D takes off
    floor = 1 - BESIROGLU.E / BESIROGLU.predict(N, D)
    for less, enough in ((alone - 1e-3, True), (alone + 1e-3, False)):
        way = improvement(fit, less, N, D).ways[1]
        assert (way.C is not None) == enough
        assert ("no amount is enough: with N = 3e+08 the loss stays above" in way.line()) != enough
    for less, enough in ((floor - 1e-3, True), (floor + 1e-3, False)):
        both = improvement(fit, less, N, D).ways[2]
        assert (both.C is not None) == enough
        assert ("no amount is enough: with any N and D the loss stays above 1.817" in both.line()) != enough
    json.dumps(improvement(fit, floor + 1e-3, N, D).to_dict(), allow_nan=False)


@pytest.mark.parametrize("way", [0, 1, 2])
def test_resamples_that_never_arrive_leave_an_end_open(noisy: ParametricFit, way: int) -> None:
    N, D = 3e8, 2e10
    own, drawn = (
        1 - (law.E + (law.B / D**law.beta, law.A / N**law.alpha, 0)[way]) / law.predict(N, D)
        for law in (noisy.surface, noisy.replicates)
    )
    within, beyond = (improvement(noisy, own + shift, N, D).ways[way] for shift in (-1e-7, 1e-7))
    arrive = float(np.mean(drawn > own))
    assert 0.1 < arrive < 0.9  # at the fit's own limit some resamples arrive, and more than one in ten do not
    assert within.C is not None
    assert within.C.high == math.inf
    assert within.C.to_dict()["high"] is None
    assert beyond.C is None
    assert f"({arrive:.0%} of the resamples do reach it)" in beyond.line()


def test_intervals_of_the_factors_hold_the_truth() -> None:
    """80 % intervals over 40 planted sweeps: 32 expected, and 24 to 39 in 99 of 100 cases."""
    start = (3e8, 2e10)
    truth = improvement(fitted(intervals=NO_INTERVALS), 0.1, *start).ways[2].C
    assert truth is not None
    inside = 0
    for seed in range(40):
        low, _, high = ends(
            improvement(fitted(noise=0.003, seed=seed, intervals=Intervals(60, seed=seed)), 0.1, *start).ways[2].C
        )
        inside += low <= truth.value <= high
    assert 24 <= inside <= 39


# ---- doublings and growth ------------------------------------------------------------------------------------------------


def test_a_doubling_buys_what_the_surface_says(noisy: ParametricFit) -> None:
    C = 1e21
    N, D = BESIROGLU.optimal(C)
    exact, uncertain = doubling(fitted(), C), doubling(noisy, C)
    now = BESIROGLU.predict(N, D)
    truth = {
        "of_N": BESIROGLU.predict(2 * N, D) - now,
        "of_D": BESIROGLU.predict(N, 2 * D) - now,
        "of_C": BESIROGLU.predict(*BESIROGLU.optimal(2 * C)) - now,
    }
    for name, value in truth.items():
        assert getattr(exact, name).value == pytest.approx(value, rel=1e-4)
        low, middle, high = ends(getattr(uncertain, name))
        assert low < middle < high < 0
    assert exact.of_C.value < min(exact.of_N.value, exact.of_D.value)  # the best use of twice the compute


def test_growth_per_tenfold_stands_beside_the_papers(noisy: ParametricFit) -> None:
    isoflop = fit_isoflop(Simulator(surface=BESIROGLU).isoflop(BUDGETS, sizes=9))
    answers = answer([isoflop, noisy], Questions(), largest=1e20)
    rows = {row.by: row for row in answers.all_growth}
    assert list(rows) == ["isoflop", "parametric", "Kaplan et al. 2020, without embeddings", "Chinchilla, Hoffmann et al. 2022"]
    for fit in (isoflop, noisy):
        row = growth(fit)
        assert row == rows[fit.name]
        assert ends(row.N) == pytest.approx([10**x for x in ends(fit.a)])
        N, D = fit.optimal(1e21)[0] / fit.optimal(1e20)[0], fit.optimal(1e21)[1] / fit.optimal(1e20)[1]
        assert (row.N.value, row.D.value) == (pytest.approx(N, rel=1e-6), pytest.approx(D, rel=1e-6))
    text = answers.summary()
    assert "N x 5.4, D x 1.9 (Kaplan" in text
    assert "N x 3.2, D x 3.2 (Chinchilla" in text
    saved = {row["by"]: row for row in answers.to_dict()["growth_per_tenfold"]}
    assert saved["Kaplan et al. 2020, without embeddings"]["N"]["value"] == pytest.approx(5.370, abs=1e-3)


# ---- sizes ---------------------------------------------------------------------------------------------------------------


def test_sizes_by_every_approach_are_the_inverse_of_budgets(noisy: ParametricFit) -> None:
    isoflop = fit_isoflop(Simulator(surface=BESIROGLU, noise=Noise(run=0.002)).isoflop(BUDGETS, sizes=9))
    answers = answer([isoflop, noisy], Questions(sizes=[1e9, 67e9]), largest=1e20)
    assert [(row.N, row.approach) for row in answers.sizes] == [
        (N, fit) for N in (1e9, 67e9) for fit in ("isoflop", "parametric")
    ]
    for row, fit in zip(answers.sizes, (isoflop, noisy) * 2, strict=True):
        N, D = fit.optimal(row.C.value)
        assert (N, D) == (pytest.approx(row.N, rel=1e-6), pytest.approx(row.D.value, rel=1e-6))
        assert row.tokens_per_parameter.value == pytest.approx(row.D.value / row.N)
        for low, value, high in (ends(row.C), ends(row.D)):
            assert low < value < high


def test_sizes_of_the_papers_constants() -> None:
    """Chinchilla, table A3, Approach 3: 1B on 27.1B tokens, 67B on 4.1T. The table is not of one fit with the constants, which
    ask for 6 to 19 % more (see test_frontier); other counts of C move D alone."""
    fit = fitted(CHINCHILLA, intervals=NO_INTERVALS)
    for (N, printed), row in zip(((1e9, 27.1e9), (67e9, 4.1e12)), sized_runs(fit, [1e9, 67e9]), strict=True):
        assert row.N == N
        assert 1.06 < row.D.value / printed < 1.19
        assert row.C.value == pytest.approx(6 * N * row.D.value)
        assert row.C.low is None
    other = fit.counted(Compute(kappa=8.0, eta=0.95))
    (row,) = sized_runs(other, [1e9])
    assert row.C.value == pytest.approx(other.surface.budget_for_size(1e9))
    assert row.D.value == pytest.approx(other.surface.compute.tokens(1e9, row.C.value))


# ---- models --------------------------------------------------------------------------------------------------------------


def test_gopher_and_chinchilla_on_the_papers_surface() -> None:
    """With the constants as printed: Gopher 1.69 + 0.052 + 0.251, Chinchilla 1.69 + 0.083 + 0.163 (nostalgebraist 2022)."""
    printed = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    fit = fitted(printed, intervals=NO_INTERVALS)
    gopher, chinchilla = place(fit, "Gopher", *GOPHER), place(fit, "Chinchilla", 70e9, 1.4e12)
    assert pytest.approx(5.04e23) == gopher.C
    assert (gopher.loss.value, chinchilla.loss.value) == (pytest.approx(1.993, abs=1e-3), pytest.approx(1.936, abs=1e-3))
    assert 30e9 < gopher.N_opt.value < 70e9
    assert gopher.D_opt.value > 4 * GOPHER[1]
    assert gopher.distance.value == pytest.approx(gopher.loss.value - gopher.best_loss.value)
    assert chinchilla.loss.value < gopher.loss.value
    assert chinchilla.wasted.value < 1.2 < gopher.wasted.value
    assert fit.surface.frontier_loss(gopher.C_needed.value) == pytest.approx(gopher.loss.value)
    assert gopher.wasted.value == pytest.approx(gopher.C / gopher.C_needed.value)


def test_a_model_on_the_frontier_may_be_at_no_distance(noisy: ParametricFit) -> None:
    N, D = noisy.optimal(1e20)
    on, off = place(noisy, "on", float(N), float(D)), place(noisy, "off", 20 * float(N), float(D) / 20)
    assert (on.distance.low, on.wasted.low, on.C_needed.high) == (0, 1, on.C)
    assert on.distance.value == pytest.approx(0, abs=1e-9)
    low, value, high = ends(off.distance)
    assert 0 < low < value < high
    assert off.wasted.low > 1  # type: ignore[operator]
    assert "times less" in off.lines()[2]


# ---- asking --------------------------------------------------------------------------------------------------------------


def test_everything_asked_is_in_the_summary_and_the_dictionary(noisy: ParametricFit) -> None:
    asked = Questions(budgets=[1e21], improve=[0.1], sizes=[1e9], models={"Gopher": GOPHER}, losses=[2.5])
    answers = answer([noisy], asked, largest=1e20, best=(3e8, 2e10))
    text, saved = answers.summary(), json.loads(json.dumps(answers.to_dict(), allow_nan=False))
    for part in ("10 % less loss than N = 3e+08, D = 2e+10", "more data alone", "Gopher: N = 2.8e+11", "N = 1e+09: C = "):
        assert part in text
    assert [way["by"].split()[0] for way in saved["improvements"][0]["ways"]] == ["more", "more", "both,"]
    assert saved["models"][0]["name"] == "Gopher"
    assert [gain["C"] for gain in saved["gains_of_doubling"]] == [1e21]
    elsewhere = answer([noisy], Questions(improve=[0.1], at=(1e9, 1e9)), largest=1e20, best=(3e8, 2e10))
    assert elsewhere.improvements[0].N == 1e9
    with pytest.raises(LawError, match=r"ask\.at"):
        answer([noisy], asked, largest=1e20)


def test_without_a_surface_the_reason_stands_in_its_place() -> None:
    refused = Refused(LawError("collinear", "one budget"))
    asked = Questions(improve=[0.1], models={"Gopher": GOPHER}, losses=[2.0], sizes=[1e9])
    answers = answer([refused], asked, largest=1e20, best=(1e8, 1e9))
    assert answers.missing.keys() == {"improve", "models", "losses", "sizes"}
    assert "ask.improve: this needs the surface" in answers.summary()
    json.dumps(answers.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"improve": [0.1, 1.0]}, r"ask\.improve=\[0\.1, 1\.0\] is out of range; it must be below 1"),
        ({"improve": [-0.1]}, r"ask\.improve=\[-0\.1\] is out of range; it must be positive"),
        ({"at": (0, 1e9)}, r"ask\.at\.N=0 is out of range"),
        ({"at": (1e9, math.inf)}, r"ask\.at\.D=inf is out of range; it must be finite"),
        ({"models": {"Gopher": (280e9, -1)}}, r"ask\.models\.Gopher\.D=-1 is out of range"),
        ({"sizes": [1e9, math.nan]}, r"ask\.sizes=\[1000000000\.0, nan\] is out of range"),
        ({"budgets": [math.inf]}, r"ask\.budgets=\[inf\] is out of range; it must be finite"),
    ],
)
def test_what_cannot_be_asked_names_the_field(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LawError, match=message):
        Questions(**options)


def test_asked_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Simulator(surface=BESIROGLU, noise=Noise(run=0.002)).isoflop(BUDGETS[:4], sizes=7)
    table = tmp_path / "runs.csv"
    rows = "".join(f"{N},{D},{loss}\n" for N, D, loss in zip(runs.N, runs.D, runs.loss, strict=True))
    table.write_text(f"N,D,loss\n{rows}")
    common = ["fit", f"table={table}", f"out={tmp_path}", "fit.resamples=20"]
    models = "ask.models={Gopher: {N: 280e9, D: 300e9}}"
    power = ["ask.flops_per_second=1e14", "ask.pue=1.5", "ask.tonnes_per_MWh=0.1"]
    assert main([*common, "ask.improve=[0.05]", "ask.sizes=[1e9]", models, "ask.budgets=[1e21]", *power]) == DONE
    answers = json.loads((tmp_path / "fits.json").read_text())["answers"]
    best = int(np.argmin(runs.loss))
    assert answers["improvements"][0]["N"] == pytest.approx(runs.N[best])
    assert answers["models"][0]["name"] == "Gopher"
    cost = answers["footprints"][0]
    hours = 1e21 / 1e14 / 3600
    assert (cost["kWh"], cost["kg_CO2"]) == (pytest.approx(hours * 0.7 * 1.5), pytest.approx(hours * 0.7 * 1.5 * 0.1))
    for wrong, named in (
        ("ask.at={N: 1e9}", "ask.at.D"),
        ("ask.at={N: 1e9, D: -2}", "ask.at.D=-2"),
        ("ask.models={Gopher: {N: 1e9, D: x}}", "ask.models.Gopher.D"),
        ("ask.improve=[10]", "ask.improve=[10"),
        ("ask.pue=0.5", "ask.pue=0.5"),
        ("ask.tonnes_per_MWh=-1", "ask.tonnes_per_MWh=-1"),
    ):
        capsys.readouterr()
        assert main([*common, wrong]) == BAD_INPUT
        assert named in capsys.readouterr().err
