"""What use makes of the optimum, what training takes in energy, and questions to a law that is known: LLaMA's numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.fit import (
    PUBLISHED_LAWS,
    Compute,
    Intervals,
    KnownLaw,
    LawError,
    Noise,
    Questions,
    Simulator,
    Surface,
    answer,
    fit_parametric,
    footprint,
    footprint_of_hours,
    lifetime_optimum,
    place,
    use_that_pays,
)
from sweep.fit.surface import BESIROGLU, CHINCHILLA

# Touvron et al. 2023 (arXiv 2302.13971), table 15: A100-80GB at 400 W; GPU-hours, MWh, tCO2eq.
TABLE_15 = {
    "OPT-175B": (809_472, 356, 137),
    "LLaMA-7B": (82_432, 36, 14),
    "LLaMA-13B": (135_168, 59, 23),
    "LLaMA-33B": (530_432, 233, 90),
    "LLaMA-65B": (1_022_362, 449, 173),
}
PRINTED = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
MODELS = {"LLaMA-7B": (6.7e9, 1e12), "LLaMA-13B": (13.0e9, 1e12), "LLaMA-33B": (32.5e9, 1.4e12), "LLaMA-65B": (65.2e9, 1.4e12)}


# ---- energy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TABLE_15)
def test_the_footprints_of_table_15(model: str) -> None:
    """The paper cuts the decimals of MWh off (65B: 449.84 is printed as 449), and rounds tonnes."""
    hours, MWh, tonnes = TABLE_15[model]
    found = footprint_of_hours(hours, watts=400)
    assert int(found.kWh / 1e3) == MWh
    assert round(found.kg_CO2 / 1e3) == tonnes


def test_bloom_is_one_MWh_below_its_own_hours() -> None:
    """Table 15 prints 475 MWh and 183 t for 1,082,880 hours: its formula gives 476.5 and 183.4."""
    found = footprint_of_hours(1_082_880, watts=400)
    assert found.kWh / 1e3 == pytest.approx(476.5, abs=0.05)
    assert round(found.kg_CO2 / 1e3) == 183


def test_hours_follow_from_flops_and_their_speed() -> None:
    found = footprint(3600e14, flops_per_second=2e14, watts=400, pue=1.5, tonnes_per_MWh=0.1)
    assert (found.gpu_hours, found.kWh, found.kg_CO2) == (0.5, pytest.approx(0.3), pytest.approx(0.03))
    assert found.line() == "0.5 GPU-hours, 0.3 kWh, 0.03 kg CO2"
    assert footprint_of_hours(82_432, watts=400).line() == "82,432 GPU-hours, 36.27 MWh, 13.96 t CO2"
    with pytest.raises(LawError, match="gpu_hours=0"):
        footprint_of_hours(0, watts=400)


# ---- use -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute", [Compute(), Compute(kappa=8.0, eta=0.95)])
@pytest.mark.parametrize("surface", [CHINCHILLA, BESIROGLU])
@pytest.mark.parametrize("use", [1e10, 1e12, 1e14])
def test_the_use_that_pays_is_the_lifetime_optimum_the_other_way_round(surface: Surface, compute: Compute, use: float) -> None:
    counted = replace(surface, compute=compute)
    best = lifetime_optimum(counted, counted.frontier_loss(1e23), use)
    assert use_that_pays(counted, best.N, best.D) == pytest.approx(use, rel=1e-3, abs=1e8)


def test_no_use_pays_above_the_training_optimum() -> None:
    N, D = CHINCHILLA.optimal(1e23)
    assert use_that_pays(CHINCHILLA, N, D) == pytest.approx(0, abs=1e-6 * D)
    assert use_that_pays(CHINCHILLA, 2 * N, D / 2) < 0 < use_that_pays(CHINCHILLA, N / 2, 2 * D)


@pytest.mark.parametrize(
    ("law", "trillions"),
    [(CHINCHILLA, (1.309, 0.442, None, None)), (PRINTED, (0.769, 0.007, None, None)), (BESIROGLU, (3.18, 1.91, 1.452, 0.2366))],
)
def test_llamas_choices(law: Surface, trillions: tuple[float | None, ...]) -> None:
    """docs/llama.md prints these; by the paper's constants 33B and 65B are too large for their tokens, whatever their use."""
    for (name, run), expected in zip(MODELS.items(), trillions, strict=True):
        found = place(KnownLaw.of(law, "a test"), name, *run)
        assert found.use.low is None
        if expected is None:
            assert found.use.value < 0
            assert "never the cheapest way" in "\n".join(found.lines())
        else:
            assert found.use.value / 1e12 == pytest.approx(expected, rel=0.01)
            assert f"serves {found.use} tokens" in "\n".join(found.lines())


def test_the_interval_of_the_use_that_pays_begins_at_none() -> None:
    runs = Simulator(surface=BESIROGLU, noise=Noise(run=0.004)).isoflop([1e18, 3e18, 1e19, 3e19, 1e20], sizes=9)
    fit = fit_parametric(runs, intervals=Intervals(60))
    N, D = (float(x) for x in fit.optimal(1e20))
    on, smaller = place(fit, "on", 0.99 * N, D / 0.99), place(fit, "smaller", N / 3, 3 * D)
    assert on.use.low == 0 < on.use.high  # type: ignore[operator]
    assert 0 < smaller.use.low < use_that_pays(BESIROGLU, N / 3, 3 * D) < smaller.use.high  # type: ignore[operator]


# ---- a known law ---------------------------------------------------------------------------------------------------------


def test_a_known_law_answers_without_intervals() -> None:
    law = KnownLaw.of(CHINCHILLA, "chinchilla")
    asked = Questions(budgets=[1e21], losses=[2.2], inference_tokens=1e12, improve=[0.05], at=(1e9, 2e10), sizes=[1e9])
    answers = answer([law], asked)
    assert answers.allocations[0].N.value == pytest.approx(CHINCHILLA.optimal(1e21)[0])
    assert answers.sizes[0].C.value == pytest.approx(CHINCHILLA.budget_for_size(1e9))
    assert answers.goals[0].lifetime == lifetime_optimum(CHINCHILLA, 2.2, 1e12)
    assert answers.penalties[1e21][0].loss.value == pytest.approx(CHINCHILLA.penalty(1e21, 0.5))
    assert answers.improvements[0].target.value == pytest.approx(0.95 * CHINCHILLA.predict(1e9, 2e10))
    found = json.dumps(answers.to_dict())
    assert '"low": null' in found
    assert '"low": 0' not in found
    assert answer([law], Questions()).allocations == ()


def test_ask_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = "ask.models={LLaMA-65B: {N: 65.2e9, D: 1.4e12, gpu_hours: 1022362}, LLaMA-7B: {N: 6.7e9, D: 1e12}}"
    assert main(["ask", "chinchilla", models, "ask.watts=400", "ask.flops_per_second=1e14"]) == DONE
    text = capsys.readouterr().out
    assert "L(N, D) = E + A / N^alpha + B / D^beta: E = 1.6934" in text
    assert "1,022,362 GPU-hours, 449.8 MWh, 173.2 t CO2, 1.49e+14 FLOP/s per GPU" in text
    assert "111,667 GPU-hours, 49.13 MWh, 18.92 t CO2, 1e+14 FLOP/s per GPU" in text
    assert "serves 1.309e+12 tokens" in text
    assert "no interval)" not in text
    law = {"E": 1.0, "A": 50.0, "B": 60.0, "alpha": 0.4, "beta": 0.3}
    fits = {"parametric": {name: {"value": value} for name, value in law.items()} | {"compute": {"kappa": 7.0, "eta": 1.0}}}
    (tmp_path / "fits.json").write_text(json.dumps(fits))
    assert main(["ask", str(tmp_path / "fits.json"), "ask.budgets=[1e15]"]) == DONE
    N, _ = Surface(**law, compute=Compute(kappa=7.0)).optimal(1e15)
    assert f"N = {N:.4g}" in capsys.readouterr().out
    assert set(PUBLISHED_LAWS) == {"chinchilla", "besiroglu"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which law?"),
        (["nosuch"], "nosuch: "),
        (["chinchilla", "ask.models={X: {N: 1e9, D: 1e9, gpu_hours: 0}}"], "ask.models.X.gpu_hours=0"),
        (["chinchilla", "ask.improve=[0.1]"], "ask.at"),
    ],
)
def test_what_ask_refuses(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", *words, f"store={tmp_path}"]) == BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
