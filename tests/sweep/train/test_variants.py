"""Every body goes through the whole of a run: trained by autograd, stopped, resumed, and what it is not exported as."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.config import FitConfig
from sweep.data import Corpus
from sweep.errors import InputError
from sweep.plan.grid import PlannedRun
from sweep.plan.run import ObjectiveSettings, RunConfig
from sweep.store import Store, states
from sweep.store.collect import collect
from sweep.train.checkpoint import load_checkpoint
from sweep.train.engine.native import supports
from sweep.train.loop import train
from sweep.train.objective import training_batches
from sweep.train.runtime import Runtime
from sweep.use.evaluate import OWN, EvaluationSet, evaluate
from sweep.use.export import export, not_llama

CHANGES: dict[str, dict] = {
    "gpt2": {"norm": "layer", "feed_forward": "gelu", "position": "learned"},
    "none": {"position": "none"},
    "qk_norm": {"qk_norm": True},
    "universal": {"shared": True, "n_layers": 3},
    "lstm": {"body": "lstm", "n_heads": 1, "n_kv_heads": 1},
    "dropped lstm": {"body": "lstm", "dropout": 0.1},
}
BLANKS = ObjectiveSettings(kind="blank_infilling", document=0.4, sentence=0.2)


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


def infilling(run: RunConfig, **changes: Any) -> RunConfig:
    model = replace(run.model, vocab_size=run.model.vocab_size + 3, position_ids=2, **changes)
    return replace(run, model=model, objective=BLANKS, evaluation_points=3)


@pytest.mark.parametrize("changes", [{}, {"position": "learned"}, {"dropout": 0.1}], ids=["rope", "learned", "dropout"])
def test_a_run_of_blanks_resumes_and_is_judged_as_both(
    changes: dict, tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    run = infilling(tiny_run, **changes)
    whole, halves, small = (Store(tmp_path / each).run(run.run_id) for each in ("whole", "halves", "small"))
    assert train(run, corpus, whole) == states.DONE
    assert train(run, corpus, halves, Runtime(), should_stop=lambda step: step == 5) == states.INTERRUPTED
    assert train(run, corpus, halves) == states.DONE
    assert whole.curve.read_text() == halves.curve.read_text()
    rows = [json.loads(line) for line in whole.curve.read_text().splitlines()]
    both = [(row["val_loss"], row["infilling_loss"]) for row in rows if "val_loss" in row]
    assert len(both) == 3
    assert both[-1][0] < both[0][0]
    assert both[-1][1] < both[0][1]
    assert train(run, corpus, small, Runtime(micro_batch=1)) == states.DONE
    last = json.loads(small.curve.read_text().splitlines()[-1])
    assert last["infilling_loss"] == pytest.approx(both[-1][1], rel=1e-3)

    own = EvaluationSet(name=OWN, tokens=corpus.tokens("validation"), bytes_per_token=1.0)
    found = evaluate(run, whole, [own], "cpu")[OWN]
    assert found["loss"] == pytest.approx(both[-1][0], rel=1e-5)
    assert len(found["by_position"]) == run.model.context_length - 2
    planned = PlannedRun(run=run, budget=None)
    (row,) = collect([planned], Store(tmp_path / "whole"), FitConfig()).runs.to_dict("records")
    assert (row["loss"], row["loss_on_infilling"]) == both[-1]


def test_a_text_without_sentences_is_refused_where_some_are_wanted(
    tiny_run: RunConfig, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.train.objective.sentence_ends", lambda decode, size: [300])
    with pytest.raises(InputError, match=r"objective\.sentence=0\.2: there are no sentences"):
        training_batches(infilling(tiny_run), corpus)
