"""Exported runs, read by Hugging Face's own classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.language_model import LanguageModel
from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.commands.sweeps import plan_sweep
from sweep.config import compose
from sweep.data import Corpus
from sweep.data.tokenizer import END_OF_DOCUMENT
from sweep.store import Store
from sweep.train.checkpoint import load_checkpoint
from tests.stores import leave_status

TEXTS = ("def f(x):\n\treturn x[12345] + 7\r\n", "naïve café 😀 日本", "  two  spaces ", " a ,b .\0c", "", "words\n" * 50)
FAMILIES = {
    "bytes": ["data.tokenizer=bytes"],
    "bpe": ["data.tokenizer=bpe", "data.vocab_size=280", "model.tied_embeddings=true", "model.kv_groups=3"],
}


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A store with one finished run: of bytes; and of a BPE, with grouped queries and tied embeddings."""
    store = tmp_path_factory.mktemp("store")
    data = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=2048", "data.context_length=64"]
    overrides = [*data, f"store={store}", "device=cpu", "cluster.workers=1", "grid=list", "grid.runs=[{N: 2e4, D: 2e4}]"]
    overrides += FAMILIES[request.param]
    assert main(["launch", *overrides]) == DONE
    return Store(store), plan_sweep(compose(overrides))[0].runs[0].run.run_id


@pytest.fixture(scope="module")
def folder(trained: tuple[Store, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, run_id = trained
    out = tmp_path_factory.mktemp("exported")
    assert main(["export", run_id, f"store={store.root}", f"out={out}"]) == DONE
    return out


def test_transformers_computes_the_same_logits(trained: tuple[Store, str], folder: Path) -> None:
    store, run_id = trained
    directory = store.run(run_id)
    run = directory.config()
    ours = LanguageModel(run.model)
    ours.load_state_dict(load_checkpoint(directory.checkpoints)["model"])  # type: ignore[index]
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    theirs, report = loaded
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert not any(report.values())  # nothing missing, unexpected or made up
    assert next(theirs.parameters()).dtype == torch.float32
    assert (run.model.n_heads > run.model.n_kv_heads) == run.model.tied_embeddings  # the family with both, and that without
    held_out = Corpus.open(store.corpora / run.corpus).tokens("validation")[:64].astype("int64")
    tokens = torch.from_numpy(held_out)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), atol=1e-5, rtol=1e-5)
    assert ours(tokens).std() > 0.5  # a model that has learnt, whose logits differ
    with safe_open(folder / "model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["isosweep"])
    assert facts == {"run_id": run_id, "tokens": run.D, "val_loss": directory.status()["val_loss"]}


def test_transformers_makes_the_same_tokens(trained: tuple[Store, str], folder: Path) -> None:
    store, run_id = trained
    ours = Corpus.open(store.corpora / store.run(run_id).config().corpus).tokenizer()
    theirs = AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == ours.vocab_size
    assert theirs.eos_token_id == theirs.bos_token_id == ours.end_of_document
    for text in TEXTS:
        ids = ours.encode([text.encode()])[0].tolist()
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text == ours.decode(ids)
    assert theirs(END_OF_DOCUMENT)["input_ids"] == [ours.end_of_document]


def test_it_generates_until_the_document_ends(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    prompt = tokenizer(tokenizer.bos_token, return_tensors="pt")
    generated = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert generated.shape[1] <= 9


def test_what_cannot_be_exported_is_refused(
    trained: tuple[Store, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run_id = trained
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    new = f"out={tmp_path / 'new'}"
    directory = store.run(run_id)
    status, manifest = directory.status(), max(directory.checkpoints.glob("*manifest.json"))
    corpus = store.corpora / directory.config().corpus

    def refused(arguments: list[str], message: str) -> None:
        capsys.readouterr()
        assert main(["export", f"store={store.root}", *arguments]) == BAD_INPUT
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "new").exists()

    refused([new], "which run? isosweep export RUN_ID")
    refused([run_id], "out=DIR says where to")
    refused([run_id, f"out={tmp_path / 'full'}"], "is not an empty folder")
    refused([run_id, f"out={tmp_path / 'full' / 'notes.txt'}"], "is not an empty folder")
    refused([run_id, "out=/proc/isosweep"], "out=/proc/isosweep cannot be written")
    refused(["0123456789abcdef", new], "no run 0123456789abcdef is in store=")
    leave_status(directory, "interrupted", step=3, steps=9)
    refused([run_id, new], "is interrupted, not done")
    leave_status(directory, **{key: value for key, value in status.items() if key != "updated"})
    manifest.rename(manifest.with_suffix(".away"))
    refused([run_id, new], "holds no checkpoint")
    manifest.with_suffix(".away").rename(manifest)
    corpus.rename(corpus.with_suffix(".away"))
    refused([run_id, new], "is gone; isosweep launch makes it again")
    corpus.with_suffix(".away").rename(corpus)
    assert main(["export", f"store={store.root}", run_id, new]) == DONE
