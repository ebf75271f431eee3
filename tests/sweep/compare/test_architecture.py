"""Losses along the context: planted gaps between labels are found, and those that chance allows are not told."""

import numpy as np
import pandas as pd
import pytest

from sweep.compare import Measured, analysis
from sweep.compare.experiment import FAILS, HOLDS, UNCLEAR
from sweep.errors import InputError
from sweep.fit.kaplan.position import bin_means

T = 128
POSITION = np.arange(1, T + 1)


def measured(late: float, noise: float = 0.002) -> Measured:
    """An LSTM whose loss is 0.05 below the baseline's everywhere, and higher by `late` in the second half of the context."""
    rng, runs, along = np.random.default_rng(1), list[dict](), list[dict]()
    for cell in range(3):
        for seed in range(2):
            shared = rng.normal(0, 0.1)  # of the seed: it must not count
            for label in ("llama", "lstm"):
                curve = 2 + 2 * POSITION**-0.5 + shared + rng.normal(0, noise, T)
                if label == "lstm":
                    curve += np.where(POSITION > T / 2, late, 0.0) - 0.05
                run_id = f"{label}{cell}{seed}"
                runs.append({"run_id": run_id, "cell": cell, "seed": seed, "label": label})
                blocks = [bin_means(curve).tolist()] * 8
                along.append({"run_id": run_id, "label": label, "final": True, "blocks": blocks, "context": T})
    empty = pd.DataFrame()
    frame = pd.DataFrame(runs)
    return Measured(runs=frame, curves=empty, evaluations=empty, labels=("llama", "lstm"), along=pd.DataFrame(along))


@pytest.mark.parametrize(("late", "verdict"), [(0.1, HOLDS), (-0.1, FAILS), (0.0, UNCLEAR)])
def test_the_gap_grows_along_the_context_as_planted(late: float, verdict: str) -> None:
    outcome = analysis("architecture")(measured(late, noise=0.002 if late else 0.03))
    (claim,) = outcome.claims
    assert claim.verdict == verdict, claim.here
    found = outcome.values["lstm"]
    assert found["early"] == pytest.approx(-0.05, abs=0.02)
    assert found["late"] == pytest.approx(late - 0.05, abs=0.02)
    assert found["pairs"] == 6
    assert np.array(found["gap"])[np.array(found["places"]) > 70] == pytest.approx(late - 0.05, abs=0.03)


def test_without_losses_by_position_it_says_how_to_get_them() -> None:
    known = measured(0.1)
    bare = Measured(runs=known.runs, curves=known.curves, evaluations=known.evaluations, labels=known.labels)
    with pytest.raises(InputError, match="no losses by position; isosweep evaluate measures them"):
        analysis("architecture")(bare)
