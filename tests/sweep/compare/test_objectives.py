"""Both objectives side by side: planted exponents, each by its own loss."""

import numpy as np
import pandas as pd
import pytest

from sweep.compare import Measured, analysis
from sweep.compare.experiment import FAILS, HOLDS
from sweep.errors import InputError
from sweep.fit import Surface

CAUSAL = Surface(E=1.0, A=30.0, B=60.0, alpha=0.4, beta=0.4)
OTHER = Surface(E=0.5, A=60.0, B=20.0, alpha=0.55, beta=0.3)  # a = 0.35


def measured(blanks: Surface) -> Measured:
    rng, rows = np.random.default_rng(0), list[dict]()
    for label, surface in (("causal", CAUSAL), ("blanks", blanks)):
        for budget in np.geomspace(1e10, 1e12, 5):
            for factor in np.geomspace(0.3, 3.3, 7):
                N = factor * surface.optimal(budget)[0]
                D = budget / (6 * N)
                loss = float(surface.predict(N, D)) + rng.normal(0, 0.001)
                common = {"label": label, "seed": 0, "cell": len(rows), "budget": budget, "N": N, "D": D, "C": budget}
                filled = {"loss": 9.0 + rng.random(), "loss_on_infilling": loss}  # as a language model it is useless
                rows.append(common | ({"loss": loss} if label == "causal" else filled))
    empty = pd.DataFrame()
    return Measured(runs=pd.DataFrame(rows), curves=empty, evaluations=empty)


@pytest.mark.parametrize(("blanks", "a", "verdict"), [(CAUSAL, 0.5, HOLDS), (OTHER, 0.3 / 0.85, FAILS)])
def test_exponents_are_those_of_each_objectives_own_loss(blanks: Surface, a: float, verdict: str) -> None:
    outcome = analysis("infilling")(measured(blanks))
    (claim,) = outcome.claims
    assert claim.verdict == verdict, claim.here
    found = {(each["label"], each["approach"]): each["a"]["value"] for each in outcome.values["exponents"]}
    assert found["causal", "isoflop"] == pytest.approx(0.5, abs=0.02)
    assert found["blanks", "isoflop"] == pytest.approx(a, abs=0.02)


def test_one_objective_alone_is_said() -> None:
    both = measured(CAUSAL)
    alone = Measured(runs=both.runs.query("label == 'causal'"), curves=both.curves, evaluations=both.evaluations)
    with pytest.raises(InputError, match="both objectives must have finished runs"):
        analysis("infilling")(alone)
