"""From Kaplan et al.'s protocol to Chinchilla's, step by step, on runs whose surfaces are planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from models import SizeLadder, count_parameters
from sweep.compare import Measured, Outcome, analysis
from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR
from sweep.errors import InputError
from sweep.fit import Surface

OURS = Surface(E=0.9, A=60.0, B=250.0, alpha=0.4, beta=0.45)
STEEPER = replace(OURS, A=24.0, alpha=0.3)  # a = 0.6 instead of 0.53
EMPTY = pd.DataFrame({"run_id": [], "tokens": [], "loss": []})
LADDER = SizeLadder(vocab_size=257, context_length=128, aspect_ratio=10, head_dim=8)
BUDGETS, FACTORS = (2e10, 6e10, 1.8e11, 5.4e11), (0.27, 0.5, 0.8, 1.3, 2.2, 3.7)


def measured(protocols: dict[str, Surface], shared: float = 0.01, own: float = 0.0005) -> Measured:
    """Profiles of each protocol, the recommended one first. Each cell is off its surface by a `shared` relative error that is
    the same for all protocols, and by one of its `own`."""
    rng = np.random.default_rng(3)
    sizes = [(budget, LADDER.nearest(factor * OURS.optimal(budget)[0])) for budget in BUDGETS for factor in FACTORS]
    common = shared * rng.standard_normal(len(sizes))
    rows = []
    for label, surface in protocols.items():
        for cell, (budget, shape) in enumerate(sizes):
            count = count_parameters(shape)
            N, D = float(count.total), budget / 6 / count.total
            row = {"run_id": f"{label}-{cell}", "label": label, "cell": cell, "seed": 0, "budget": budget, "N": N, "D": D}
            row |= {"C": budget, "N_non_embedding": count.non_embedding, "C_kaplan": 6 * count.non_embedding * D}
            rows.append(row | {"loss": surface.predict(N, D) * np.exp(common[cell] + own * rng.standard_normal())})
    frame = pd.DataFrame(rows).sample(frac=1, random_state=0)  # finished in any order
    frame = pd.concat([frame[frame["label"] == label] for label in protocols])
    return Measured(runs=frame, curves=EMPTY, evaluations=EMPTY)


def verdicts(outcome: Outcome) -> dict[str, str]:
    return {claim.paper.split(" lowers")[0]: claim.verdict for claim in outcome.claims[1:]}


def test_a_step_is_told_though_the_intervals_of_both_sides_overlap() -> None:
    outcome = analysis("kaplan_chinchilla")(measured({"tuned": OURS, "same": OURS, "kaplan": STEEPER}))
    assert verdicts(outcome)["same"] == HOLDS
    assert verdicts(outcome)["tuned"] == UNCLEAR  # no step
    kaplan, same = (next(s for s in outcome.values["steps"] if s["name"] == name)["surface"] for name in ("kaplan", "same"))
    assert kaplan["low"] < same["high"]
    lowered = outcome.values["lowered"][1]
    assert lowered["low"] < STEEPER.a - OURS.a < lowered["high"]
    assert outcome.draw is not None
    outcome.draw(Figure())


def test_a_step_against_the_paper_and_the_counting() -> None:
    outcome = analysis("kaplan_chinchilla")(measured({"tuned": STEEPER, "kaplan": OURS}))
    found = verdicts(outcome)
    assert found["tuned"] == FAILS
    assert found["counting all parameters and FLOPs"] == HOLDS  # embeddings are most of so small a model
    noisy = analysis("kaplan_chinchilla")(measured({"tuned": STEEPER, "kaplan": OURS}, shared=0, own=0.05))
    assert verdicts(noisy)["tuned"] == UNCLEAR


def test_only_cells_of_every_protocol_are_compared() -> None:
    given = measured({"tuned": OURS, "kaplan": STEEPER})
    whole = analysis("kaplan_chinchilla")(given)
    short = replace(given, runs=given.runs[given.runs["run_id"] != "kaplan-7"])
    outcome = analysis("kaplan_chinchilla")(short)
    assert "left out: 1 run," in "\n".join(outcome.text)
    assert verdicts(outcome) == verdicts(whole)
    planned = replace(given, labels=("tuned", "scaled warm-up", "kaplan"))
    with pytest.raises(InputError, match="no run of scaled warm-up is done"):  # no step stands for two
        analysis("kaplan_chinchilla")(planned)
    with pytest.raises(InputError, match="at least two"):
        analysis("kaplan_chinchilla")(measured({"tuned": OURS}))
