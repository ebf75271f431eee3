"""Mixtures: weights, epochs, duplicates and the overlap of the two parts."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.cli import main
from sweep.commands.sweeps import plan_sweep
from sweep.config import CorpusSpec, SourceConfig, compose
from sweep.data import Corpus, CorpusRecipe
from sweep.data.mixture import shares
from sweep.errors import InputError
from tests.sweep.data.cases import documents_of, some_documents, write_jsonl


def mixture(root: Path, sizes: dict[str, int], **settings: dict[str, Any]) -> dict[str, SourceConfig]:
    for seed, (name, count) in enumerate(sizes.items()):
        if not (root / f"{name}.jsonl").exists():
            write_jsonl(root / f"{name}.jsonl", some_documents(count, seed))
    return {name: SourceConfig(source="jsonl", paths=[str(root / f"{name}.jsonl")], **settings.get(name, {})) for name in sizes}


def test_a_mixture_keeps_its_weights(tmp_path: Path) -> None:
    sources = mixture(
        tmp_path, {"web": 600, "books": 100}, web={"weight": 0.6, "epochs": 1}, books={"weight": 0.4, "epochs": 3}
    )
    spec = CorpusSpec(source="mixture", sources=sources, validation_tokens=5000)
    corpus = CorpusRecipe.read(spec).build(tmp_path / "corpora")
    described = corpus.manifest["parts"]["train"]["sources"]
    assert described["web"]["share"] == pytest.approx(0.6, abs=0.005)
    assert described["books"]["epochs"] == pytest.approx(3, abs=0.02)  # the smaller source sets the length
    assert described["web"]["epochs"] < 1
    documents = documents_of(corpus)
    books = [document for document in documents if document.startswith("1 ")]
    repeats = {document: books.count(document) for document in set(books)}
    assert set(repeats.values()) == {3}
    assert len(books) == 3 * described["books"]["documents"]
    assert sum(len(document.encode()) + 1 for document in books) == described["books"]["tokens"]
    # Interleaved: books are as frequent in the first half as in the second.
    half = [document.startswith("1 ") for document in documents]
    assert abs(np.mean(half[: len(half) // 2]) - np.mean(half[len(half) // 2 :])) < 0.15
    held_out = corpus.manifest["parts"]["validation"]["sources"]
    assert held_out["web"]["tokens"] == pytest.approx(3000, abs=60)
    assert held_out["web"]["tokens"] + held_out["books"]["tokens"] == 5001


def test_a_mixture_without_weights_repeats_what_it_is_told(tmp_path: Path) -> None:
    sources = mixture(tmp_path, {"web": 300, "books": 100}, web={"epochs": 0.5}, books={"epochs": 2})
    corpus = CorpusRecipe.read(CorpusSpec(source="mixture", sources=sources, validation_tokens=3000)).build(
        tmp_path / "corpora"
    )
    described = corpus.manifest["parts"]["train"]["sources"]
    assert described["web"]["epochs"] == pytest.approx(0.5, abs=0.01)
    assert described["books"]["epochs"] == 2
    assert sum(source["share"] for source in described.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"web": {"weight": 0.6}, "books": {"weight": 0.6}}, r"add up to 1\.2 \(web 0\.6, books 0\.6\); make them"),
        ({"web": {"weight": -0.5}, "books": {"weight": 1.5}}, r"web\.weight=-0\.5 is out of range"),
        ({"web": {"weight": 1.0}}, "books has no weight and others have one"),
        ({"web": {"epochs": 0}}, r"web\.epochs=0 is out of range"),
        ({"web": {"source": "mixture"}}, r"data\.sources\.web\.source=mixture is none of huggingface, jsonl"),
        ({"web": {"column": "body"}}, r"data\.sources\.web\.column=body: .*no such column; it has id, text"),
    ],
)
def test_bad_mixtures_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    sources = mixture(tmp_path, {"web": 20, "books": 20})
    for name, values in settings.items():
        sources[name] = SourceConfig(**{"source": "jsonl", "paths": sources[name].paths, **values})
    with pytest.raises(InputError, match=message):
        CorpusRecipe.read(CorpusSpec(source="mixture", sources=sources))


def test_plan_prints_shares_and_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture(tmp_path, {"web": 2000, "books": 300})
    sources = ", ".join(
        f"{name}: {{source: jsonl, paths: ['{tmp_path}/{name}.jsonl'], weight: {weight}, epochs: {epochs}}}"
        for name, weight, epochs in (("web", 0.7, 1), ("books", 0.3, 2))
    )
    sweep = ["data=mixture", f"data.sources={{{sources}}}", "data.validation_tokens=4096", "data.max_epochs=2", "grid=list"]
    sweep += ["grid.runs=[{N: 3000, D: 100_000}]", f"store={tmp_path / 'store'}"]
    assert main(["plan", *sweep]) == 0
    planned = capsys.readouterr().out
    assert "not made yet; at most" in planned
    assert "about 70.0%" in planned
    assert not (tmp_path / "store").exists()
    assert main(["launch", *sweep, "cluster.workers=1"]) == 0
    capsys.readouterr()
    assert main(["plan", *sweep]) == 0
    made = capsys.readouterr().out
    plan, recipe = plan_sweep(compose(sweep))
    run = plan.runs
    manifest = Corpus.open(tmp_path / "store" / "corpora" / recipe.fingerprint).manifest
    books = manifest["parts"]["train"]["sources"]["books"]
    line = next(line for line in made.splitlines() if line.strip().startswith("books"))
    assert line.split() == [
        "books",
        f"{books['share']:.1%}",
        f"{books['tokens']:,}",
        f"{books['epochs']:.3g}",
        f"{books['epochs'] * run[0].run.D / manifest['parts']['train']['tokens']:.3g}",
    ]
    provenance = json.loads((tmp_path / "store" / "runs" / run[0].run.run_id / "provenance.json").read_text())
    assert provenance["starts"][0]["corpus"]["train"]["sources"]["books"] == books


def test_duplicates_go_across_sources(tmp_path: Path) -> None:
    texts = some_documents(200)
    write_jsonl(tmp_path / "a.jsonl", texts)
    write_jsonl(tmp_path / "b.jsonl", texts[:50] + some_documents(50, seed=7))
    sources = {name: SourceConfig(source="jsonl", paths=[str(tmp_path / f"{name}.jsonl")]) for name in "ab"}
    spec = CorpusSpec(source="mixture", sources=sources, validation_tokens=1000)
    corpus = CorpusRecipe.read(spec).build(tmp_path / "corpora")
    assert corpus.manifest["left_out"]["duplicates"] == 50
    documents = documents_of(corpus)
    assert len(documents) == len(set(documents))
    longer = CorpusSpec(**{**vars(spec), "deduplicate": False, "validation_tokens": 40_000})
    kept = CorpusRecipe.read(longer).build(tmp_path / "corpora")
    documents = documents_of(kept)
    assert len(documents) > len(set(documents))
    assert len(documents) < 300 - 60  # a held-out document takes its copies with it
    held_out = kept.tokenizer().decode(kept.tokens("validation").tolist())
    assert not any(document in held_out for document in documents)  # no copy of a held-out document is trained on


def test_near_duplicates_go(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"this is line number {''.join(rng.choice(list('abcdefgh'), 12))} of the text" for _ in range(3000)]
    own, lines = iter(lines[:200]), lines[200:]
    texts = ["\n".join(lines[i * 20 : i * 20 + 20]) for i in range(140)]
    copies = [text.upper() + "\n" + next(own) for text in texts[:40]]
    originals = [f"the same licence stands above\n{text}\n{next(own)}" for text in texts]
    write_jsonl(tmp_path / "lines.jsonl", originals + copies)
    paths = [str(tmp_path / "lines.jsonl")]
    spec = CorpusSpec(source="jsonl", paths=paths, validation_tokens=1000, near_duplicates=0.8)
    corpus = CorpusRecipe.read(spec).build(tmp_path / "corpora")
    assert corpus.manifest["left_out"]["near_duplicates"] == 40
    lenient = CorpusRecipe.read(CorpusSpec(**{**vars(spec), "near_duplicates": 0.96})).build(tmp_path / "corpora")
    assert lenient.manifest["left_out"]["near_duplicates"] == 0  # 20 of 21 lines, or 21 of 22, are not enough
    assert lenient.fingerprint != corpus.fingerprint


def test_overlap_counts_shared_passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.data.parts.BLOCK", 100)
    texts = some_documents(200, words=100)
    write_jsonl(tmp_path / "lines.jsonl", texts)
    spec = CorpusSpec(source="jsonl", paths=[str(tmp_path / "lines.jsonl")], validation_tokens=10_000)
    none = CorpusRecipe.read(spec).build(tmp_path / "corpora")
    assert none.manifest["overlap"] == {"tokens": 64, "share": 0.0}
    shared = "a passage of three hundred letters that stands in every document, " * 5
    write_jsonl(tmp_path / "shared.jsonl", [text + shared for text in texts])
    corpus = CorpusRecipe.read(CorpusSpec(**{**vars(spec), "paths": [str(tmp_path / "shared.jsonl")]})).build(
        tmp_path / "corpora"
    )
    train, held_out = (corpus.tokens(part).tobytes() for part in ("train", "validation"))
    size = 64 * corpus.tokens("train").itemsize
    grams = {train[i : i + size] for i in range(0, len(train) - size + 1, 2)}
    positions = range(0, len(held_out) - size + 1, 2)
    exact = np.mean([held_out[i : i + size] in grams for i in positions])  # in blocks of two n-grams or so
    assert corpus.manifest["overlap"]["share"] == exact > 0.1


# Touvron et al. 2023 (arXiv 2302.13971), table 1: the share of the training tokens, and epochs in 1.4T tokens.
TABLE_1 = {
    "common_crawl": (0.67, 1.10),
    "c4": (0.15, 1.06),
    "github": (0.045, 0.64),
    "wikipedia": (0.045, 2.45),
    "books": (0.045, 2.23),
    "arxiv": (0.025, 1.06),
    "stackexchange": (0.02, 1.03),
}


def test_llamas_mixture_is_that_of_table_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    data = compose(["data=llama"]).data
    assert data.sources is not None
    assert {name: (source.weight, source.epochs) for name, source in data.sources.items()} == TABLE_1
    assert {source.source for source in data.sources.values()} == {"huggingface"}
    assert len(CorpusRecipe.read(data).fingerprint) == 16
    # With as many tokens to a byte in each source, all of them run out together, after the paper's epochs.
    found = shares(data.sources, {name: float(source.max_bytes or 0) for name, source in data.sources.items()})
    for name, (weight, epochs) in TABLE_1.items():
        assert found[name].share == weight
        assert found[name].epochs == pytest.approx(epochs, rel=0.02)
    assert sum(share.tokens for share in found.values()) == pytest.approx(2e9, rel=0.02)


def test_llamas_mixture_is_made_of_stand_ins_for_its_sets(tmp_path: Path) -> None:
    """The same weights and epochs on local files, of sizes as the megabytes of conf/data/llama.yaml."""
    data = compose(["data=llama", "data.tokenizer=bytes", "data.validation_tokens=20000"]).data
    assert data.sources is not None
    sources = {}
    for seed, (name, source) in enumerate(data.sources.items()):
        path = tmp_path / f"{name}.jsonl"
        write_jsonl(path, some_documents(int((source.max_bytes or 0) / 2e5), seed), source.column)
        stand_in: dict[str, Any] = {"source": "jsonl", "paths": [str(path)], "dataset": None, "config": None, "max_bytes": None}
        sources[name] = replace(source, **stand_in)
    corpus = CorpusRecipe.read(replace(data, sources=sources)).build(tmp_path / "corpora")
    trained = corpus.manifest["parts"]["train"]["sources"]
    for name, (weight, epochs) in TABLE_1.items():
        assert trained[name]["share"] == pytest.approx(weight, rel=0.05)
        assert trained[name]["epochs"] <= epochs * 1.01
    assert max(trained[name]["epochs"] / epochs for name, (_, epochs) in TABLE_1.items()) == pytest.approx(1, abs=0.01)
    assert trained["wikipedia"]["epochs"] > 2 > 1 > trained["github"]["epochs"]
