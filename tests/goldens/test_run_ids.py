"""run_ids of several sweeps, as published stores have them: a run that was trained before is found again."""

import json
from pathlib import Path

import pytest

from sweep.config import compose
from sweep.plan.grid import expand

PINNED: list[dict] = json.loads((Path(__file__).parent / "run_ids.json").read_text())


@pytest.mark.parametrize("sweep", PINNED, ids=lambda sweep: " ".join(sweep["overrides"]))
def test_run_ids_stay(sweep: dict) -> None:
    planned = expand(compose(sweep["overrides"]), corpus="0123456789abcdef", vocab_size=257, training_tokens=1e12)
    assert {place: planned[int(place)].run.run_id for place in sweep["run_ids"]} == sweep["run_ids"]
