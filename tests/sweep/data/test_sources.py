"""Documents from every kind of source."""

import json
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.commands.sweeps import plan_sweep
from sweep.config import CorpusSpec, SourceConfig, compose, conf_directory
from sweep.data import CorpusRecipe
from sweep.data.corpus import CONTENTS
from sweep.data.sources import reader as files
from sweep.data.sources import reader_of, text
from sweep.data.text import TextContents
from sweep.errors import InputError
from tests.sweep.data.cases import documents_of, write_jsonl


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
    monkeypatch.setattr(files, "UNIT_BYTES", 5000)
    monkeypatch.setattr(text, "PIECE_BYTES", 700)
    (tmp_path / "long.txt").write_text("\n".join(texts))
    (tmp_path / "short.txt").write_text("short")
    write_jsonl(tmp_path / "lines.jsonl", texts)
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet", row_group_size=50)
    for source, suffix in (("text", "txt"), ("jsonl", "jsonl"), ("parquet", "parquet")):
        reader = reader_of(SourceConfig(source=source, paths=[f"{tmp_path}/*.{suffix}"]))
        units = reader.units()
        assert len(units) > 5, source
        read = [document.decode() for unit in reversed(units) for document in reader.documents(unit)]
        lines = [line for document in read for line in document.splitlines()]  # each record is one line
        assert sorted(lines) == sorted([*texts, "short"] if source == "text" else texts), source


def test_lines_that_begin_where_units_do_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UNIT_BYTES", 1000)
    texts = [f"{i:087}" for i in range(100)]
    (tmp_path / "lines.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))  # of 100 bytes each
    reader = reader_of(SourceConfig(source="jsonl", paths=[str(tmp_path)]))
    assert [document.decode() for document in reader] == texts
    assert len(reader.units()) == 10


def test_lines_become_documents_again(tmp_path: Path) -> None:
    lines = ["= A title =\n", "", *(f"line {i} of an article\n" for i in range(10_000))]
    pq.write_table(pa.table({"text": lines}), tmp_path / "rows.parquet")
    reader = reader_of(SourceConfig(source="parquet", paths=[str(tmp_path)], rows="lines"))
    documents = list(reader)
    assert b"".join(documents).decode() == "".join(line or "\n" for line in lines)
    assert len(documents) == math.ceil(sum(map(len, lines)) / files.PIECE_BYTES)


def test_a_text_without_line_ends_is_cut_between_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PIECE_BYTES", 10)
    monkeypatch.setattr(text, "LONGEST_LINE", 20)
    content = ("漢字" * 50).encode()
    pieces = [content[start:end] for start, end in text.cuts(content)]
    assert b"".join(pieces) == content
    assert len(pieces) > 10
    for piece in pieces:
        piece.decode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": "\xff"}\n', r"a\.jsonl at byte 17 is not UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', r"a\.jsonl at byte 17 is not JSON .*; fix it"),
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


def test_a_new_source_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SOURCES", dict(files.SOURCES))
    monkeypatch.setattr("sweep.data.sources.SOURCES", files.SOURCES)
    monkeypatch.setattr("sweep.data.corpus.SOURCES", files.SOURCES)

    class Squares(files.Reader, name="squares"):
        def identity(self) -> int:
            return 1000

        def most_tokens(self) -> float:
            return 20_000

        def units(self) -> list[int]:
            return [0, 500]

        def documents(self, unit: int) -> Iterator[bytes]:
            return (f"{i} squared is {i * i}".encode() for i in range(unit, unit + 500))

    corpus = CorpusRecipe.read(CorpusSpec(source="squares", validation_tokens=1000)).build(tmp_path)
    assert "31 squared is 961" in documents_of(corpus) + documents_of(corpus, "validation")
    with pytest.raises(InputError, match=r"^data\.source=cubes is none of .*text, squares, mixture"):
        CorpusRecipe.read(CorpusSpec(source="cubes"))
    assert [*reader_of(SourceConfig(source="squares"))][-1] == b"999 squared is 998001"


def test_every_file_of_conf_names_a_source() -> None:
    for path in (conf_directory() / "data").glob("*.yaml"):
        if path.stem != "defaults":
            overrides = ["data.vocab_size=257"] if path.stem == "tokens" else []
            assert compose([f"data={path.stem}", *overrides]).data.source in {**files.SOURCES, **CONTENTS}
