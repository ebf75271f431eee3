"""Experiments off the optimum, on runs whose law is planted: what they must find, and when they must not say."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from models import SizeLadder, count_parameters
from sweep.compare import Measured, Outcome, analysis
from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR
from sweep.compare.experiments.noise import seed_noise
from sweep.errors import InputError
from sweep.fit import Surface
from sweep.fit.kaplan.counting import Counting

SURFACE = Surface(E=0.9, A=60.0, B=250.0, alpha=0.4, beta=0.45)
LADDER = SizeLadder(vocab_size=257, context_length=128, aspect_ratio=10, head_dim=8)
EMPTY = pd.DataFrame({"run_id": [], "tokens": [], "loss": []})


def measured(
    points: Sequence[tuple[float, float, float | None]],
    loss: Callable[[float, float], float] = SURFACE.predict,
    *,
    noise: float = 0.003,
    seeds: int = 2,
) -> Measured:
    """Runs of (N, D, budget), with all columns that the analyses read; the noise is drawn once."""
    rng, rows = np.random.default_rng(5), []
    for cell, (N, D, budget) in enumerate(points):
        shape = LADDER.nearest(N)
        own = count_parameters(shape).non_embedding
        row = {"cell": cell, "label": "", "budget": np.nan if budget is None else budget, "N": N, "D": D, "C": 6 * N * D}
        row |= {"N_non_embedding": own, "C_kaplan": 6 * own * D}
        found = loss(N, D) + noise * rng.standard_normal(seeds)
        rows += [row | {"run_id": f"{cell}-{seed}", "seed": seed, "loss": found[seed]} for seed in range(seeds)]
    return Measured(runs=pd.DataFrame(rows), curves=EMPTY, evaluations=EMPTY)


def profile(budget: float, factors: tuple[float, ...], surface: Surface = SURFACE) -> list[tuple[float, float, float | None]]:
    """Sizes of the ladder at these multiples of the optimum of the planted surface."""
    shapes = [LADDER.nearest(factor * surface.optimal(budget)[0]) for factor in factors]
    sizes = [float(count_parameters(shape).total) for shape in shapes]
    return [(N, budget / 6 / N, budget) for N in sizes]


def analysed(name: str, given: Measured) -> Outcome:
    """The outcome, whose figure can be drawn."""
    outcome = analysis(name)(given)
    figure = Figure()
    assert outcome.draw is not None
    outcome.draw(figure)
    assert figure.axes
    assert all(claim.here for claim in outcome.claims)
    return outcome


GOPHER = [point for budget in (3e10, 1e11, 3e11) for point in profile(budget, (0.25, 0.5, 1, 2, 4))]


def test_a_model_four_times_too_large_loses_as_the_surface_says() -> None:
    outcome = analysed("gopher", measured(GOPHER))
    assert outcome.claims[0].verdict == HOLDS
    for duel in outcome.values["duels"]:
        truth = SURFACE.predict(duel["large_N"], duel["large_D"]) - SURFACE.predict(duel["N"], duel["D"])
        assert duel["low"] < truth < duel["high"]
        large, small = (SURFACE.predict(duel[f"{of}N"], duel[f"{of}D"]) for of in ("large_", ""))
        wasted = 1 - SURFACE.budget_for_loss(large) / SURFACE.budget_for_loss(small)
        assert duel["wasted"] == pytest.approx(wasted, abs=0.03)
        assert duel["wasted_low"] < wasted < duel["wasted_high"]


def test_gopher_is_not_told_apart_in_noise_and_without_seeds() -> None:
    assert analysed("gopher", measured(GOPHER, noise=0.3)).claims[0].verdict == UNCLEAR
    alone = analysed("gopher", measured(GOPHER, seeds=1))
    assert alone.claims[0].verdict == UNCLEAR
    assert alone.values["duels"][0]["low"] is None
    assert "nan" not in alone.claims[0].here
    assert analysed("gopher", measured(GOPHER, lambda N, D: -0.1 * np.log(N))).claims[0].verdict == FAILS
    with pytest.raises(InputError, match="no budget has a model and one four times as large"):
        analysis("gopher")(measured(profile(1e11, (0.5, 1))))


def test_the_noise_between_seeds_is_pooled_over_cells() -> None:
    noise = seed_noise(measured(GOPHER, noise=0.01, seeds=4).runs)
    assert noise.freedom == 45
    assert noise.sd == pytest.approx(0.01, rel=0.3)
    assert noise.margin(2, 2) == pytest.approx(2.014 * noise.sd, rel=1e-3)  # t of 45 degrees of freedom


def small_and_large(surface: Surface) -> list[tuple[float, float, float | None]]:
    small = [point for budget in (1e10, 3e10, 1e11) for point in profile(budget, (0.3, 0.5, 0.8, 1.4, 2.2, 3.5), surface)]
    return small + profile(3e12, (0.25, 0.5, 0.9, 1.5, 2.4, 4.2), surface)


SMALL, LARGE = small_and_large(SURFACE)[:18], small_and_large(SURFACE)[18:]


def test_both_laws_answer_at_the_large_budget() -> None:
    outcome = analysed("head_to_head", measured([*SMALL, *LARGE]))
    steeper, better = outcome.claims
    assert better.verdict == HOLDS  # theirs is the larger model, as in the paper
    values = outcome.values
    assert steeper.verdict == HOLDS
    assert values["factor"] == pytest.approx(30)
    assert values["a"]["low"] < SURFACE.a < values["a"]["high"]
    assert values["N"]["value"] == pytest.approx(SURFACE.optimal(3e12)[0], rel=0.25)
    assert values["N_measured"] == pytest.approx(SURFACE.optimal(3e12)[0], rel=0.25)
    low, high = values["gain"]["low"], values["gain"]["high"]
    N, other = values["N"]["value"], values["N_kaplan"]["value"]
    truth = SURFACE.predict(other, 3e12 / 6 / other) - SURFACE.predict(N, 3e12 / 6 / N)
    assert low < truth < high


def test_a_win_over_a_smaller_model_is_not_the_papers() -> None:
    surface = Surface(E=0.9, A=20.0, B=250.0, alpha=0.3, beta=0.45)
    outcome = analysed("head_to_head", measured(small_and_large(surface), surface.predict, noise=0.0003))
    assert outcome.values["N_kaplan"]["value"] < outcome.values["N"]["value"]
    assert outcome.values["gain"]["low"] > 0  # ours wins
    assert outcome.claims[1].verdict == UNCLEAR
    assert "smaller model here" in outcome.claims[1].here


def test_a_head_to_head_needs_both_budgets() -> None:
    with pytest.raises(InputError, match="there must be smaller budgets"):
        analysis("head_to_head")(measured(LARGE))
    with pytest.raises(InputError, match="has 3 sizes; at least 5"):
        analysis("head_to_head")(measured([*SMALL, *LARGE[:3]]))


def test_kaplans_answer_is_in_all_parameters() -> None:
    sizes = np.geomspace(1e4, 1e8, 30)
    share = sizes / (sizes + 3e4)
    counting = Counting.of(sizes, share * sizes)
    # A law of N and C both without embeddings; the answer, counted so, is its own optimum.
    (N,) = counting.answers(SURFACE, 1e12)
    part = float(np.interp(np.log(N), np.log(sizes), share))
    assert part * N == pytest.approx(SURFACE.optimal(1e12 * part)[0], rel=1e-2)
    same = Counting.of(sizes, sizes).answers(SURFACE, 1e12)
    assert same[0] == pytest.approx(SURFACE.optimal(1e12)[0], rel=1e-3)


RATIOS = (20, 35, 60, 100, 200, 450, 1000, 2000)
LONG = [(float(N), float(N * ratio), None) for N in (4872, 7932, 26_280) for ratio in RATIOS]


def test_a_law_that_holds_is_found_to_hold_far_beyond() -> None:
    outcome = analysed("overtrained", measured(LONG, noise=0.0005))
    falling, overestimates, beta = outcome.claims
    assert falling.verdict == HOLDS
    assert overestimates.verdict == UNCLEAR
    assert beta.verdict in (HOLDS, UNCLEAR)
    assert outcome.values["inside"] >= 20  # of 24


def test_a_loss_that_stops_falling_is_found_beyond() -> None:
    def levels(N: float, D: float) -> float:
        return float(SURFACE.predict(N, min(D, 250 * N) + 0.02 * D))

    outcome = analysed("overtrained", measured(LONG, levels, noise=0.0005))
    assert outcome.claims[1].verdict == HOLDS
    assert outcome.values["mean_residual"]["value"] > 0.01
    assert outcome.values["inside"] < 20


def test_overtraining_needs_runs_on_both_sides() -> None:
    with pytest.raises(InputError, match="D/N up to 100 and beyond"):
        analysis("overtrained")(measured(LONG[:3]))


SHAPES = {
    "baseline": (32, 3, 2, 96),
    **{f"ff {d}": (d, 3, 2, f) for d, f in ((44, 42), (36, 76), (24, 152), (20, 196))},
    **{f"depth {L}": (d, L, 2, 3 * d) for L, d in ((1, 56), (2, 40), (6, 24), (16, 14))},
    **{f"heads {h}": (32, 3, h, 96) for h in (1, 4, 8, 16)},
}


def shapes(seeds: int = 3, noise: float = 0.002) -> Measured:
    """Two plateaus, and an aspect ratio that costs 5 % for each factor of e away from 10."""
    rng, rows = np.random.default_rng(2), []
    for label, (d, L, h, f) in SHAPES.items():
        for seed in range(seeds):
            loss = 1.5 * (1 + 0.05 * abs(np.log(d / L / 10.7))) if label.startswith("depth") else 1.5
            shape = {"d_model": d, "n_layers": L, "n_heads": h, "d_ff": f, "N_non_embedding": 40_000}
            rows.append({"cell": 0, "label": label, "seed": seed, "loss": loss + noise * rng.standard_normal(), **shape})
    return Measured(runs=pd.DataFrame(rows), curves=EMPTY, evaluations=EMPTY)


def test_plateaus_are_found_where_they_are_planted() -> None:
    outcome = analysed("shape", shapes())
    assert [claim.verdict for claim in outcome.claims] == [HOLDS, FAILS, HOLDS]
    ff, depth = outcome.values["ff"], outcome.values["depth"]
    assert ff["factor"] == pytest.approx((196 / 20) / (42 / 44))
    assert depth["low"] == depth["high"] == pytest.approx(32 / 3)
    assert depth["rise"][-1] == pytest.approx(5 * np.log(56 / 10.7), abs=0.5)


def test_a_plateau_needs_seeds() -> None:
    assert {claim.verdict for claim in analysed("shape", shapes(seeds=1)).claims} == {UNCLEAR}
    runs = shapes().runs
    alone = Measured(runs=runs[runs["label"] == "baseline"], curves=EMPTY, evaluations=EMPTY)
    with pytest.raises(InputError, match="'ff' has 1 shapes"):
        analysis("shape")(alone)
