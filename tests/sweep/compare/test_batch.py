"""The analysis of batch sizes, on curves made from a known L(N, S_min) and B_crit(L)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.compare import Measured
from sweep.compare.experiment import FAILS, HOLDS
from sweep.compare.experiments.batch import analyse, reached
from sweep.errors import LawError
from sweep.fit.kaplan.laws import CriticalBatch, SizeStepsLaw, optimal_exponents

LAW = SizeStepsLaw(N_c=3e5, S_c=300.0, alpha_N=0.2, alpha_S=0.6)
B_CRIT = CriticalBatch(B_star=5e5, alpha_B=0.2)
BATCHES = 2.0 ** np.arange(8, 15)
TOKENS = 3e6


def planted(
    sizes: tuple[float, ...] = (8e3, 2.5e4, 6e4), *, sigma: float = 0.002, noise_factor: float = 1.0, growth: float = 0.0
) -> Measured:
    """Runs at every batch size, two seeds each, with noise in the losses; the noise scale is `noise_factor` x B_crit, measured
    with errors, and B_crit grows with the size as N^growth."""
    rng, runs, along = np.random.default_rng(0), [], []
    for N in sizes:
        for B in BATCHES:
            for seed in (0, 1):
                run_id = f"{N:g}-{B:g}-{seed}"
                loss = np.geomspace(LAW.predict(N, 1.0), LAW.predict(N, np.inf) * 1.0001, 5_000)
                S_min = LAW.S_c / (loss - (LAW.N_c / N) ** LAW.alpha_N) ** (1 / LAW.alpha_S)
                steps = S_min * (1 + (N / sizes[0]) ** growth * B_CRIT.predict(loss) / B)
                at = np.round(TOKENS / B * np.arange(1, 41) / 40)
                losses = np.interp(np.log(at), np.log(steps), loss) + sigma * rng.standard_normal(40)
                square = 0.1 * (1 + 0.3 * rng.standard_normal(40))  # sometimes negative elsewhere, never here
                variance = noise_factor * B_CRIT.predict(losses) * 0.1 * (1 + 0.1 * rng.standard_normal(40))
                values = {"step": at, "tokens": at * B, "loss": losses, "grad_sq": square, "grad_var": variance}
                along.append(pd.DataFrame({"run_id": run_id, **values}))
                runs.append(
                    {"run_id": run_id, "N": int(N), "D": TOKENS, "batch_tokens": int(B), "seed": seed, "loss": losses[-1]}
                )
    return Measured(runs=pd.DataFrame(runs), curves=pd.DataFrame(), evaluations=pd.concat(along, ignore_index=True))


@pytest.fixture(scope="module")
def three_sizes() -> Measured:
    return planted()


def test_the_planted_laws_are_found(three_sizes: Measured) -> None:
    outcome = analyse(three_sizes)
    found = outcome.values
    assert 1 / found["inverse_alpha_B"]["value"] == pytest.approx(B_CRIT.alpha_B, rel=0.15)
    assert found["B_crit"]["value"] == pytest.approx(B_CRIT.predict(found["loss"]), rel=0.05)
    assert found["noise_over_B_crit"]["value"] == pytest.approx(1, abs=0.1)
    assert found["large_over_small"]["value"] == pytest.approx(1, abs=0.2)
    assert (found["alpha_N"]["value"], found["alpha_S"]["value"]) == pytest.approx((0.2, 0.6), rel=0.1)
    truth = optimal_exponents(0.2, 0.6, 0.2)
    for name in ("alpha_C", "N", "B", "S"):
        assert found[f"optimal_{name}"]["value"] == pytest.approx(getattr(truth, name), rel=0.15)
        assert found[f"optimal_{name}"]["low"] < found[f"optimal_{name}"]["high"]
    assert [claim.verdict for claim in outcome.claims[:4]] == [HOLDS] * 4
    for level in found["levels"]:
        at = level["loss"]
        S_min = LAW.S_c / (at - (LAW.N_c / level["N"]) ** LAW.alpha_N) ** (1 / LAW.alpha_S)
        assert level["S_min"]["value"] == pytest.approx(S_min, rel=0.1)
        assert level["B_crit"]["low"] < level["B_crit"]["value"] < level["B_crit"]["high"]
    json.dumps(found)
    assert any("fit.critical_batch='{B_star: " in line for line in outcome.text)


def test_a_noise_scale_that_predicts_nothing_fails_the_claim() -> None:
    outcome = analyse(planted((8e3, 2.5e4), noise_factor=10.0))
    (claim,) = (claim for claim in outcome.claims if "noise scale predicts" in claim.paper)
    assert claim.verdict == FAILS
    assert outcome.values["noise_over_B_crit"]["value"] == pytest.approx(10, rel=0.1)
    assert any("no optimum: L(N, S_min) is not fitted" in line for line in outcome.text)  # of two sizes


def test_a_critical_batch_that_depends_on_size_fails_the_claim() -> None:
    outcome = analyse(planted((8e3, 6e4), growth=0.7))
    assert outcome.values["large_over_small"]["value"] == pytest.approx((6e4 / 8e3) ** 0.7, rel=0.25)
    (claim,) = (claim for claim in outcome.claims if "size of the model" in claim.paper)
    assert claim.verdict == FAILS


def test_one_size_without_noise_scale_still_tells_the_critical_batch(three_sizes: Measured) -> None:
    runs = three_sizes.runs[three_sizes.runs.N == 25_000]
    without = three_sizes.evaluations.drop(columns=["grad_sq", "grad_var"])
    outcome = analyse(Measured(runs=runs, curves=three_sizes.curves, evaluations=without))
    assert "noise_over_B_crit" not in outcome.values
    assert any("evaluation.noise_scale=true" in line for line in outcome.text)
    assert len(outcome.claims) == 2
    assert outcome.values["B_crit"]["value"] == pytest.approx(B_CRIT.predict(outcome.values["loss"]), rel=0.1)


def test_every_level_is_reached_by_every_batch_where_that_is_possible(three_sizes: Measured) -> None:
    rows = reached(three_sizes)
    assert (rows.groupby(["N", "loss"]).run_id.nunique() == 14).all()
    assert (rows.groupby("N").loss.nunique() == 6).all()


def test_batches_that_reach_no_common_loss_are_refused(three_sizes: Measured) -> None:
    runs = three_sizes.runs[three_sizes.runs.batch_tokens < 1000]
    with pytest.raises(LawError, match="3 batch sizes reach no range"):
        analyse(Measured(runs=runs, curves=three_sizes.curves, evaluations=three_sizes.evaluations))


def test_the_figure_has_both_panels(three_sizes: Measured, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    draw = analyse(three_sizes).draw
    assert draw is not None
    draw(figure)
    left, right = figure.axes
    assert len(left.get_lines()) == 6  # a hyperbola for each loss
    assert len(right.get_lines()) == 4  # the law, and the noise scale of each size
    figure.savefig(tmp_path / "batch.png")
