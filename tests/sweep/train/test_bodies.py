"""Every body goes through the whole of a run: trained by autograd, stopped, resumed, and what it is not exported as."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sweep.data import Corpus
from sweep.errors import InputError
from sweep.plan.run import RunConfig
from sweep.store import Store, states
from sweep.train.checkpoint import load_checkpoint
from sweep.train.engine.native import supports
from sweep.train.loop import Runtime, train
from sweep.use.export import export, not_llama

CHANGES: dict[str, dict] = {
    "gpt2": {"norm": "layer", "feed_forward": "gelu", "position": "learned"},
    "none": {"position": "none"},
    "qk_norm": {"qk_norm": True},
    "universal": {"shared": True, "n_layers": 3},
    "lstm": {"body": "lstm", "n_heads": 1, "n_kv_heads": 1},
    "dropped lstm": {"body": "lstm", "dropout": 0.1},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    name: str, precision: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    run = replace(tiny_run, model=replace(tiny_run.model, **CHANGES[name]), precision=precision)
    whole, halves = (Store(tmp_path / each).run(run.run_id) for each in ("whole", "halves"))
    assert train(run, corpus, whole) == states.DONE
    assert train(run, corpus, halves, Runtime(), should_stop=lambda step: step == 5) == states.INTERRUPTED
    assert train(run, corpus, halves) == states.DONE
    assert whole.curve.read_text() == halves.curve.read_text()
    weights = [(load_checkpoint(each.checkpoints) or {})["model"] for each in (whole, halves)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    rows = [json.loads(line) for line in whole.curve.read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] - 0.2
    assert json.loads((whole.path / "provenance.json").read_text())["starts"][0]["engine"] == "eager"


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_written_for_llama_says_no(name: str, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path) -> None:
    run = replace(tiny_run, model=replace(tiny_run.model, **CHANGES[name]))
    assert supports(run).startswith("the native engine does not know model.")
    store = Store(tmp_path)
    assert train(run, corpus, store.run(run.run_id)) == states.DONE
    with pytest.raises(InputError, match=f"{not_llama(run.model)}, which LlamaForCausalLM does not compute"):
        export(store, run.run_id, tmp_path / "out")


def test_old_runs_keep_their_names(tiny_run: RunConfig) -> None:
    """New fields at their defaults are no part of the identity."""
    assert not {"body", "norm", "feed_forward", "position", "qk_norm", "shared"} & tiny_run.identity()["model"].keys()
    changed = {replace(tiny_run, model=replace(tiny_run.model, **changes)).run_id for changes in CHANGES.values()}
    assert len({tiny_run.run_id, *changed}) == len(CHANGES) + 1
