"""Documents from every kind of source, through every kind of tokenizer, alone and mixed."""

import gzip
import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.commands.laws import read_tables
from sweep.commands.sweeps import plan_sweep
from sweep.config import CorpusSpec, MemmapConfig, SourceConfig, compose
from sweep.data import Corpus, CorpusRecipe
from sweep.data import sources as reading
from sweep.data import tokenise as tokenising
from sweep.data.text import TextContents
from sweep.data.tokenise import tokenise
from sweep.data.tokenizer import ByteTokenizer, LibraryTokenizer, train_bpe
from sweep.errors import InputError


def some_documents(count: int, seed: int = 0, words: int = 60) -> list[str]:
    """Different documents of a few hundred bytes, beyond ASCII too."""
    rng = np.random.default_rng(seed)
    vocabulary = ["".join(rng.choice(list("abcdeéfghij漢字"), rng.integers(2, 8))) for _ in range(300)]
    return [f"{seed} {i}: " + " ".join(rng.choice(vocabulary, words)) for i in range(count)]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return some_documents(400)


def write_jsonl(path: Path, texts: list[str], column: str = "text") -> Path:
    path.write_text("".join(json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts)))
    return path


def save_dataset(folder: Path, texts: list[str]) -> Path:
    import datasets

    datasets.Dataset.from_dict({"text": texts, "id": list(range(len(texts)))}).save_to_disk(str(folder))
    return folder


@pytest.fixture(scope="session")
def same_everywhere(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, CorpusSpec]:
    """One set of documents as every kind of source."""
    root = tmp_path_factory.mktemp("sources")
    write_jsonl(root / "lines.jsonl", texts)
    with gzip.open(root / "lines.jsonl.gz", "wb") as file:
        file.write((root / "lines.jsonl").read_bytes())
    pq.write_table(pa.table({"text": texts}), root / "rows.parquet", row_group_size=50)
    (root / "folder").mkdir()
    for i in range(4):
        write_jsonl(root / "folder" / f"{i}.jsonl", texts[i::4])
    save_dataset(root / "saved", texts)
    return {
        "jsonl": CorpusSpec(source="jsonl", paths=[str(root / "lines.jsonl")], validation_tokens=2000),
        "gzip": CorpusSpec(source="jsonl", paths=[str(root / "*.gz")], validation_tokens=2000),
        "parquet": CorpusSpec(source="parquet", paths=[str(root / "rows.parquet")], validation_tokens=2000),
        "folder": CorpusSpec(source="huggingface", dataset=str(root / "folder"), validation_tokens=2000),
        "saved": CorpusSpec(source="huggingface", dataset=str(root / "saved"), validation_tokens=2000),
    }


def documents_of(corpus: Corpus, part: str = "train") -> list[str]:
    ids = corpus.tokens(part)
    ends = np.flatnonzero(ids == corpus.manifest["end_of_document"])
    return [corpus.tokenizer().decode(ids[start:end].tolist()) for start, end in zip([0, *(ends + 1)], ends, strict=False)]


def test_every_source_gives_the_same_tokens(same_everywhere: dict[str, CorpusSpec], texts: list[str], tmp_path: Path) -> None:
    made = {  # a dataset of several files is streamed by several processes
        kind: CorpusRecipe.read(spec).build(tmp_path, workers=2 if kind == "folder" else None)
        for kind, spec in same_everywhere.items()
    }
    assert len({corpus.fingerprint for corpus in made.values()}) == len(made)
    assert len({json.dumps({k: v["sha256"] for k, v in corpus.manifest["parts"].items()}) for corpus in made.values()}) == 1
    trained = documents_of(made["jsonl"])
    assert set(trained) < set(texts)
    assert len(trained) == len(set(trained)) > 380
    held_out = made["jsonl"].tokenizer().decode(made["jsonl"].tokens("validation").tolist())
    assert not any(document in held_out for document in trained)


def test_units_read_apart_are_the_file(tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNIT_BYTES", 5000)
    monkeypatch.setattr(reading, "PIECE_BYTES", 700)
    (tmp_path / "long.txt").write_text("\n".join(texts))
    (tmp_path / "short.txt").write_text("short")
    write_jsonl(tmp_path / "lines.jsonl", texts)
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet", row_group_size=50)
    for source, suffix in (("text", "txt"), ("jsonl", "jsonl"), ("parquet", "parquet")):
        reader = reading.reader_of(SourceConfig(source=source, paths=[f"{tmp_path}/*.{suffix}"]))
        units = reader.units()
        assert len(units) > 5, source
        read = [document.decode() for unit in reversed(units) for document in reader.documents(unit)]
        lines = [line for document in read for line in document.splitlines()]  # each record is one line
        assert sorted(lines) == sorted([*texts, "short"] if source == "text" else texts), source


def test_lines_that_begin_where_units_do_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNIT_BYTES", 1000)
    texts = [f"{i:087}" for i in range(100)]
    (tmp_path / "lines.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))  # of 100 bytes each
    reader = reading.reader_of(SourceConfig(source="jsonl", paths=[str(tmp_path)]))
    assert [document.decode() for unit in reader.units() for document in reader.documents(unit)] == texts
    assert len(reader.units()) == 10


def test_lines_become_documents_again(tmp_path: Path) -> None:
    lines = ["= A title =\n", "", *(f"line {i} of an article\n" for i in range(10_000))]
    pq.write_table(pa.table({"text": lines}), tmp_path / "rows.parquet")
    reader = reading.reader_of(SourceConfig(source="parquet", paths=[str(tmp_path)], rows="lines"))
    documents = [document for unit in reader.units() for document in reader.documents(unit)]
    assert b"".join(documents).decode() == "".join(line or "\n" for line in lines)
    assert len(documents) == math.ceil(sum(map(len, lines)) / reading.PIECE_BYTES)


def test_a_text_without_line_ends_is_cut_between_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 10)
    monkeypatch.setattr(reading, "LONGEST_LINE", 20)
    content = ("漢字" * 50).encode()
    pieces = [content[start:end] for start, end in reading.cuts(content)]
    assert b"".join(pieces) == content
    assert len(pieces) > 10
    for piece in pieces:
        piece.decode()


def test_workers_and_parts_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_documents(3000)
    for i in range(3):
        write_jsonl(tmp_path / f"{i}.jsonl", texts[i::3])
    monkeypatch.setattr(reading, "UNIT_BYTES", 1 << 18)
    reader = reading.reader_of(SourceConfig(source="jsonl", paths=[str(tmp_path)]))
    tokenizer = train_bpe((text.encode() for text in texts[:300]), 400)
    seen: list[int] = []
    alone = tokenise(reader, tokenizer, tmp_path / "alone", workers=1)
    together = tokenise(reader, tokenizer, tmp_path / "together", workers=2, advance=seen.append)
    monkeypatch.setattr(tokenising, "PART_BYTES", 1 << 16)
    monkeypatch.setattr(tokenising, "ENCODE_DOCUMENTS", 50)
    small = tokenise(reader, tokenizer, tmp_path / "small", workers=1)
    assert len(alone) == len(together) < len(small)
    assert sum(seen) == sum(len(text.encode()) for text in texts)
    content = [b"".join(part.path.read_bytes() for part in parts) for parts in (alone, together, small)]
    assert content[0] == content[1] == content[2]


def _build_slowly(spec: CorpusSpec, root: Path) -> None:
    """In a child: tokenise with small parts and a pause after each."""
    reading.UNIT_BYTES = 1 << 18  # type: ignore[misc]
    tokenising.PART_BYTES, tokenising.ENCODE_DOCUMENTS = 1 << 16, 50  # type: ignore[misc]
    CorpusRecipe.read(spec).build(root, workers=1, advance=lambda size: time.sleep(0.03 if size else 0))


def test_a_kill_costs_only_the_part_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_documents(3000)
    write_jsonl(tmp_path / "lines.jsonl", texts)
    spec = CorpusSpec(
        source="jsonl", paths=[str(tmp_path / "lines.jsonl")], tokenizer="bpe", vocab_size=400, validation_tokens=500
    )
    monkeypatch.setattr(reading, "UNIT_BYTES", 1 << 18)
    monkeypatch.setattr(tokenising, "PART_BYTES", 1 << 16)
    monkeypatch.setattr(tokenising, "ENCODE_DOCUMENTS", 50)
    clean = CorpusRecipe.read(spec).build(tmp_path / "clean", workers=1)
    root = tmp_path / "killed"
    work = root / f".{clean.fingerprint}.partial"
    for wanted in (1, 5):
        child = multiprocessing.get_context("fork").Process(target=_build_slowly, args=(spec, root))
        child.start()
        deadline = time.monotonic() + 60
        while len(list(work.glob("000/*.index.npy"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in work.glob("000/*.index.npy")}
    assert 5 <= len(before) < 20
    trained = (work / "tokenizer.json").stat().st_ino
    done: list[int] = []
    encoded: list[int] = []
    original = LibraryTokenizer.encode

    def watched(self: LibraryTokenizer, documents: Any) -> list[np.ndarray]:
        encoded.append(sum(map(len, documents)))
        assert (work / "tokenizer.json").stat().st_ino == trained
        return original(self, documents)

    monkeypatch.setattr(LibraryTokenizer, "encode", watched)
    again = CorpusRecipe.read(spec).build(root, workers=1, advance=done.append)
    total = sum(len(text.encode()) for text in texts)
    assert sum(done) == total
    assert sum(encoded) == total - done[0]  # what was whole is not encoded again
    assert done[0] > 0
    for part in ("train", "validation"):
        assert (again.directory / f"{part}.bin").read_bytes() == (clean.directory / f"{part}.bin").read_bytes()
    assert [path.name for path in root.iterdir()] == [clean.fingerprint]


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    import subprocess
    import sys

    import psutil

    write_jsonl(tmp_path / "lines.jsonl", some_documents(20_000))
    script = (
        "from sweep.config import CorpusSpec\n"
        "from sweep.data import CorpusRecipe, sources\n"
        "from pathlib import Path\n"
        "sources.UNIT_BYTES = 1 << 20\n"
        "if __name__ == '__main__':\n"
        f"    spec = CorpusSpec(source='jsonl', paths=[{str(tmp_path / 'lines.jsonl')!r}], near_duplicates=0.9)\n"
        f"    CorpusRecipe.read(spec).build(Path({str(tmp_path / 'corpora')!r}), workers=2)\n"
    )
    (tmp_path / "build.py").write_text(script)
    parent = psutil.Popen([sys.executable, str(tmp_path / "build.py")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("corpora/.*/000/*.bin")) and time.monotonic() < deadline and parent.poll() is None:
        time.sleep(0.01)
    children = parent.children(recursive=True)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_two_builds_at_once_make_one_corpus(same_everywhere: dict[str, CorpusSpec], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    builders = [context.Process(target=_build_slowly, args=(same_everywhere["jsonl"], tmp_path)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == [CorpusRecipe.read(same_everywhere["jsonl"]).fingerprint]


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
        ({"web": {"source": "mixture"}}, r"data\.sources\.web\.source='mixture' is none of"),
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
    from sweep.cli import main

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


def test_losses_in_bits_per_byte(tmp_path: Path) -> None:
    from sweep.cli import main

    write_jsonl(tmp_path / "lines.jsonl", some_documents(2000))
    sweep = ["data=jsonl", f"data.paths=[{tmp_path / 'lines.jsonl'}]", "data.tokenizer=bpe", "grid=list"]
    sweep += ["data.vocab_size=400", "data.validation_tokens=4096", "grid.runs=[{N: 8000, D: 40_000}, {N: 12_000, D: 40_000}]"]
    sweep += [f"store={tmp_path / 'store'}", "cluster.workers=1", "device=cpu"]
    assert main(["launch", *sweep]) == 0
    tables = {loss: read_tables(compose([*sweep, f"fit.loss={loss}"])) for loss in ("val", "bits_per_byte")}
    held_out = plan_sweep(compose(sweep))[1].find(tmp_path / "store" / "corpora")
    assert held_out is not None
    ids = held_out.tokens("validation")
    assert held_out.bytes_per_token is not None
    text = held_out.tokenizer().decode(ids.tolist()).encode()
    assert held_out.bytes_per_token * len(ids) == pytest.approx(len(text), abs=4)  # the last document is cut
    factor = 1 / (math.log(2) * held_out.bytes_per_token)
    np.testing.assert_allclose(tables["bits_per_byte"][0].loss, factor * tables["val"][0].loss, rtol=1e-12)
    for nats, bits in zip(tables["val"][1], tables["bits_per_byte"][1], strict=True):
        np.testing.assert_allclose(bits.loss, factor * nats.loss, rtol=1e-6)


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
    monkeypatch.setattr("sweep.data.overlap.BLOCK", 100)
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


def test_max_bytes_takes_the_first_documents(
    same_everywhere: dict[str, CorpusSpec], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNIT_BYTES", 1 << 14)
    for kind in ("jsonl", "parquet", "saved"):
        spec = CorpusSpec(**{**vars(same_everywhere[kind]), "max_bytes": 50_000})
        corpus = CorpusRecipe.read(spec).build(tmp_path)
        ends = np.cumsum([len(text.encode()) for text in texts])
        first = set(texts[: int(np.searchsorted(ends, 50_000)) + 1])
        assert set(documents_of(corpus)) < first
        assert corpus.manifest["bytes"] == ends[len(first) - 1]
        assert CorpusRecipe.read(spec).training_tokens(tmp_path / "none") >= corpus.manifest["parts"]["train"]["tokens"]


def test_max_bytes_stops_workers_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNIT_BYTES", 1 << 16)
    texts = some_documents(4000)
    write_jsonl(tmp_path / "lines.jsonl", texts)
    reader = reading.reader_of(SourceConfig(source="jsonl", paths=[str(tmp_path / "lines.jsonl")]))
    done: list[int] = []
    parts = tokenise(reader, ByteTokenizer(), tmp_path / "work", max_bytes=200_000, workers=2, advance=done.append)
    assert sum(int(part.index()["bytes"].sum()) for part in parts) >= 200_000
    assert sum(done) < 0.6 * sum(len(text.encode()) for text in texts)


@pytest.fixture(scope="session")
def wordpiece(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that somebody else made: BERT's kind, which adds tokens around a text, in a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]", "[CLS]", "[SEP]"]))
    library.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    library.enable_truncation(16)
    library.enable_padding(length=16)
    folder = tmp_path_factory.mktemp("tokenizer")
    library.save(str(folder / "tokenizer.json"))
    return folder


def test_any_tokenizer_json_is_taken(
    wordpiece: Path, same_everywhere: dict[str, CorpusSpec], texts: list[str], tmp_path: Path
) -> None:
    specs = [
        CorpusSpec(**{**vars(same_everywhere["jsonl"]), "tokenizer": str(path)})
        for path in (wordpiece, wordpiece / "tokenizer.json")
    ]
    assert len({CorpusRecipe.read(spec).fingerprint for spec in specs}) == 1
    recipe = CorpusRecipe.read(specs[0])
    corpus = recipe.build(tmp_path)
    assert corpus.vocab_size == recipe.vocab_size
    ids = corpus.tokens("train")
    assert ids.max() < corpus.vocab_size
    assert corpus.manifest["end_of_document"] == 2
    assert (ids == 1).sum() == 0  # nothing is added but the end
    longest = max(np.diff(np.flatnonzero(ids == 2)))
    assert longest > 60  # and nothing cut off
    held_out = corpus.manifest["parts"]["validation"]
    assert corpus.bytes_per_token == held_out["bytes"] / held_out["tokens"]
    assert 3 < corpus.bytes_per_token < 12
    renamed = CorpusRecipe.read(CorpusSpec(**{**vars(specs[0]), "end_of_document": "[CLS]"}))
    assert renamed.fingerprint != recipe.fingerprint


def test_a_document_cannot_end_itself(tmp_path: Path) -> None:
    tokenizer = train_bpe((text.encode() for text in some_documents(200)), 400)
    text = "before <|end_of_document|> after"
    for again in (tokenizer, __import__("pickle").loads(__import__("pickle").dumps(tokenizer))):
        ids = again.encode([text.encode()])[0].tolist()
        assert again.end_of_document not in ids
        assert again.decode(ids) == text


def test_a_large_bpe_corpus_holds_out_what_its_tokenizer_never_saw(
    same_everywhere: dict[str, CorpusSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: set[bytes] = set()
    import sweep.data.text as text_module

    def watched(documents: Any, vocab_size: int) -> LibraryTokenizer:
        known = list(documents)
        learnt.update(known)
        return train_bpe(known, vocab_size)

    monkeypatch.setattr(text_module, "train_bpe", watched)
    spec = CorpusSpec(**{**vars(same_everywhere["parquet"]), "tokenizer": "bpe", "vocab_size": 400})
    corpus = CorpusRecipe.read(spec).build(tmp_path)
    assert 100 < len(learnt) < 300
    held_out = corpus.tokenizer().decode(corpus.tokens("validation").tolist())
    assert not any(document.decode() in held_out for document in learnt)


def test_ready_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 1000, 50_000).astype(np.uint16)
    ids.tofile(tmp_path / "train.bin")
    np.save(tmp_path / "train.npy", ids.astype(np.int64))
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, len(ids)
    (tmp_path / "llm.bin").write_bytes(header.tobytes() + ids.tobytes())
    made = []
    for name, header_bytes in (("train.bin", 0), ("train.npy", 0), ("llm.bin", 1024)):
        spec = CorpusSpec(
            source="tokens",
            tokenizer="none",
            paths=[str(tmp_path / name)],
            vocab_size=1000,
            validation_tokens=4096,
            memmap=MemmapConfig(header_bytes=header_bytes),
        )
        recipe = CorpusRecipe.read(spec)
        made.append(recipe.build(tmp_path / "corpora"))
        assert made[-1].manifest["parts"]["train"]["tokens"] == recipe.contents.training_tokens() == 50_000 - 4097
    for corpus in made:
        np.testing.assert_array_equal(corpus.tokens("train"), ids[:-4097])
        np.testing.assert_array_equal(corpus.tokens("validation"), ids[-4097:])
        assert corpus.bytes_per_token is None
    own = CorpusSpec(**{**vars(spec), "memmap": MemmapConfig(header_bytes=1024, validation_paths=[str(tmp_path / "llm.bin")])})
    corpus = CorpusRecipe.read(own).build(tmp_path / "corpora")
    np.testing.assert_array_equal(corpus.tokens("train"), ids)
    assert corpus.manifest["overlap"]["share"] == 1.0


def test_bad_ready_tokens_are_refused(tmp_path: Path, wordpiece: Path) -> None:
    ids = np.full(5000, 5, np.uint16)
    ids[2500] = 300
    ids.tofile(tmp_path / "train.bin")
    (tmp_path / "odd.bin").write_bytes(b"123")
    (tmp_path / "empty.bin").write_bytes(b"")
    np.save(tmp_path / "square.npy", np.zeros((4, 4), np.int64))

    def spec(name: str = "train.bin", **changes: Any) -> CorpusSpec:
        fields = {"source": "tokens", "tokenizer": "none", "vocab_size": 257, "validation_tokens": 1000} | changes
        return CorpusSpec(paths=[str(tmp_path / name)], **fields)

    for changes, message in (
        (spec(), r"id 300, outside data\.vocab_size=257; declare"),
        (spec("odd.bin"), r"odd\.bin has 3 bytes, which are not"),
        (spec("empty.bin"), r"empty\.bin has 0 bytes"),
        (spec("square.npy"), r"of shape \(4, 4\)"),
        (spec("missing.bin"), "matches no file"),
        (spec(vocab_size=301, tokenizer="bpe"), "no text to train one on"),
        (spec(vocab_size=301, tokenizer=str(wordpiece)), r"vocab_size=301 is less than the \d+ ids"),
        (spec(vocab_size=301, validation_tokens=5000), "only 5,000 tokens, too few for data.validation_tokens=5,000"),
    ):
        with pytest.raises(InputError, match=message):
            CorpusRecipe.read(changes).training_tokens(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": "\xff"}\n', r"a\.jsonl at byte 17 is not UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', r"a\.jsonl at byte 17 is not JSON .*; mend it"),
        ("a.jsonl", b'{"body": "fine"}\n', r"column=text: .* has no such column; it has body"),
        ("a.jsonl", b'{"text": 3}\n', "holds int, not text"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "is not Unicode text"),
        ("a.jsonl", b"[1]\n", "is not a JSON object"),
        ("a.jsonl", b"", "holds no text"),
        ("a.txt", b"", "holds no text"),
        ("a.parquet", b"PAR1", r"a\.parquet is not a Parquet file"),
        ("a.txt", b"fine\n" * 20_000 + b"\xff\n", r"a\.txt is not UTF-8 text \(see byte 100,000\); convert it"),
    ],
)
def test_bad_files_are_refused_when_planning(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    source = {"jsonl": "jsonl", "txt": "text", "parquet": "parquet"}[name.rsplit(".", 1)[1]]
    with pytest.raises(InputError, match=message):
        plan_sweep(compose([f"data={source}", f"data.paths=[{tmp_path / name}]"]))


def test_a_bad_id_in_the_middle_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.data.memmap.BLOCK", 1600)
    ids = np.full(5000, 5, np.uint16)
    ids[2500] = 300
    ids.tofile(tmp_path / "train.bin")
    spec = CorpusSpec(source="tokens", tokenizer="none", paths=[str(tmp_path / "train.bin")], validation_tokens=1000)
    recipe = CorpusRecipe.read(spec)
    with pytest.raises(InputError, match=r"id 300, outside data\.vocab_size=257"):
        recipe.build(tmp_path / "corpora")


def test_bad_datasets_and_tokenizers_are_refused(
    tmp_path: Path, same_everywhere: dict[str, CorpusSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = vars(same_everywhere["saved"])
    (tmp_path / "empty").mkdir()
    for changes, message in (
        ({"column": "body"}, "column=body: .* has no such column; it has text, id"),
        ({"dataset": str(tmp_path / "none")}, "is no folder"),
        ({"dataset": None}, "dataset is empty"),
        ({"dataset": str(tmp_path / "empty")}, "matches no file|cannot be loaded"),
        ({"dataset": vars(same_everywhere["folder"])["dataset"], "split": "test"}, "cannot be loaded"),
        ({"tokenizer": str(tmp_path / "tokenizer.json")}, "there is no .*tokenizer.json; give bytes, bpe"),
        ({"tokenizer": str(tmp_path)}, "there is no .*tokenizer.json"),
        ({"tokenizer": "bpe", "vocab_size": 200}, "too small for BPE"),
    ):
        with pytest.raises(InputError, match=message):
            CorpusRecipe.read(CorpusSpec(**{**saved, **changes}))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        CorpusRecipe.read(CorpusSpec(**{**saved, "tokenizer": str(tmp_path)}))


def test_a_tokenizer_that_is_not_the_manifests_is_refused(same_everywhere: dict[str, CorpusSpec], tmp_path: Path) -> None:
    spec = CorpusSpec(**{**vars(same_everywhere["jsonl"]), "tokenizer": "bpe", "vocab_size": 300})
    corpus = CorpusRecipe.read(spec).build(tmp_path)
    train_bpe((text.encode() for text in some_documents(200)), 400).save(corpus.directory)
    with pytest.raises(InputError, match=r"has 400 ids where the manifest of its corpus says 300; delete"):
        corpus.tokenizer()


def test_a_dataset_shorter_than_the_plan_is_refused_before_it_is_made(
    same_everywhere: dict[str, CorpusSpec], tmp_path: Path
) -> None:
    paths = same_everywhere["jsonl"].paths
    sweep = ["data=jsonl", f"data.paths={paths}", "data.validation_tokens=2048", "grid=list", f"store={tmp_path / 'store'}"]
    with pytest.raises(InputError, match="is longer than the data"):
        plan_sweep(compose([*sweep, "grid.runs=[{N: 3000, D: 1e7}]"]))
    plan_sweep(compose([*sweep, "grid.runs=[{N: 3000, D: 1e5}]"]))
    assert not (tmp_path / "store").exists()


def test_planning_a_large_corpus_reads_little_of_it(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with open(path, "wb") as file:
        file.write(b"the first line\n")
        file.truncate(20 << 30)  # zeros that take no space on disk
    start = time.monotonic()
    spec = CorpusSpec(source="text", paths=[str(path)])
    name = CorpusRecipe.read(spec).fingerprint
    assert CorpusRecipe.read(spec).training_tokens(tmp_path) > 2e10
    assert time.monotonic() - start < 2
    with open(path, "r+b") as file:
        file.seek(10)
        file.write(b"T")
    assert CorpusRecipe.read(spec).fingerprint != name


def test_planning_a_remote_dataset_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("c4", "fineweb_edu", "wikitext103", "code"):
        recipe = CorpusRecipe.read(compose([f"data={name}", "data.tokenizer=bytes"]).data)
        assert len(recipe.fingerprint) == 16
    pinned = CorpusRecipe.read(compose(["data=c4", "data.tokenizer=bytes", "data.revision=abc"]).data)
    assert pinned.fingerprint != CorpusRecipe.read(compose(["data=c4", "data.tokenizer=bytes"]).data).fingerprint


def test_small_texts_are_known_by_their_content_and_large_ones_by_their_files(
    tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(texts))
    spec = CorpusSpec(source="text", paths=[str(tmp_path / "a.txt")], validation_tokens=1000)
    small = CorpusRecipe.read(spec).build(tmp_path / "corpora")
    monkeypatch.setattr("sweep.data.text.WHOLE_BYTES", 1000)
    assert TextContents.read(spec).documents is None
    large = CorpusRecipe.read(spec).build(tmp_path / "corpora")
    assert large.fingerprint != small.fingerprint
    assert large.manifest["parts"] == small.manifest["parts"]
