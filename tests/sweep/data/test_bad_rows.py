"""Documents that cannot be read are refused with their place, or skipped and counted."""

import gzip
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.cli import main
from sweep.config import CorpusSpec, SourceConfig
from sweep.data import CorpusRecipe
from sweep.data.sources import reader as files
from sweep.data.sources import reader_of
from sweep.errors import InputError
from tests.sweep.data.cases import documents_of, some_documents

GOOD = [json.dumps({"text": text}).encode() for text in some_documents(300)]
BAD = {
    "no text": b'{"error": "timeout"}',
    "a number": b'{"text": 3}',
    "half a surrogate": b'{"text": "fine \\ud83d"}',
    "latin-1": '{"text": "caf\u00e9"}'.encode("latin-1"),
    "cut off": b'{"text": "the end is',
    "an array": b"[1, 2]",
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_refused_with_its_place_or_skipped_and_counted(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK_BYTES", 1000)  # planning does not see the bad rows
    lines = [*GOOD[:200], BAD[kind], *GOOD[200:], BAD[kind]]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    spec = CorpusSpec(source="jsonl", paths=[str(path)], validation_tokens=2000)
    place = sum(map(len, GOOD[:200])) + 200
    with pytest.raises(InputError, match=rf"rows\.jsonl at byte {place:,} .*; data\.on_error=skip leaves out and counts"):
        CorpusRecipe.read(spec).build(tmp_path / "corpora")
    recipe = CorpusRecipe.read(CorpusSpec(**{**vars(spec), "on_error": "skip"}))
    assert recipe.fingerprint != CorpusRecipe.read(spec).fingerprint
    corpus = recipe.build(tmp_path / "corpora", workers=2)
    assert corpus.manifest["skipped"]["jsonl"]["documents"] == 2
    assert f"at byte {place:,}" in corpus.left_out()
    assert "2 bad documents skipped" in corpus.left_out()
    assert corpus.manifest["documents"] == 300
    held_out = corpus.tokenizer().decode(corpus.tokens("validation").tolist())
    assert all(document in held_out or document in set(documents_of(corpus)) for document in some_documents(300)[:5])


def test_one_file_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    for i, text in enumerate(some_documents(60)):
        (tmp_path / f"{i:02}.txt").write_text(text)
    (tmp_path / "30.txt").write_bytes("caf\u00e9 ".encode("latin-1") * 20)
    spec = CorpusSpec(source="text", paths=[str(tmp_path)], validation_tokens=2000)
    with pytest.raises(InputError, match=r"30\.txt is not UTF-8 text \(see byte 3\); convert it .*data\.on_error=skip"):
        CorpusRecipe.read(spec).fingerprint  # noqa: B018
    corpus = CorpusRecipe.read(CorpusSpec(**{**vars(spec), "on_error": "skip"})).build(tmp_path / "corpora")
    assert corpus.manifest["skipped"]["text"]["documents"] == 1
    (tmp_path / "30.txt").unlink()
    assert CorpusRecipe.read(spec).fingerprint == corpus.fingerprint  # the documents are the same
    (tmp_path / "wide.txt").write_text("wide", encoding="utf-16")
    with pytest.raises(InputError, match="iconv -f UTF-16 -t UTF-8"):
        CorpusRecipe.read(spec).fingerprint  # noqa: B018


def test_damaged_files_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(GOOD))[:-100])
    (tmp_path / "b.jsonl").write_bytes(GOOD[0])
    source = SourceConfig(source="jsonl", paths=[str(tmp_path)], on_error="skip")
    reader = reader_of(source)
    assert GOOD[0] in [json.dumps({"text": document.decode()}).encode() for document in reader]
    assert reader.take_skipped().first.startswith(f"data.paths: {tmp_path / 'a.jsonl.gz'} cannot be read")
    pq.write_table(pa.table({"text": some_documents(50)}), tmp_path / "a.parquet", row_group_size=10)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    pq.write_table(pa.table({"body": ["other"]}), tmp_path / "other.parquet")
    latin = pa.array([b"fine", "caf\u00e9".encode("latin-1")], pa.binary())
    pq.write_table(pa.table({"text": latin.view(pa.string())}), tmp_path / "latin.parquet")
    reader = reader_of(SourceConfig(source="parquet", paths=[str(tmp_path)], on_error="skip"))
    assert [document.decode() for document in reader] == [*some_documents(50), "fine"]
    assert reader.take_skipped().documents == 3
    with pytest.raises(InputError, match=r"cut\.parquet is not a Parquet file"):
        reader_of(SourceConfig(source="parquet", paths=[str(tmp_path / "cut.parquet")])).units()
    with pytest.raises(InputError, match=r"latin\.parquet, row 1 from 0 is not Unicode text"):
        list(reader_of(SourceConfig(source="parquet", paths=[str(tmp_path / "latin.parquet")])))


def test_a_wrong_column_is_not_skipped_in_silence(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(GOOD))
    spec = CorpusSpec(source="jsonl", paths=[str(tmp_path)], column="body", on_error="skip")
    with pytest.raises(InputError, match=r"holds no text \(300 bad documents skipped \(the first: .*no such column"):
        CorpusRecipe.read(spec).build(tmp_path / "corpora")


def test_what_is_skipped_or_dropped_is_said_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = some_documents(100)
    rows = [json.dumps({"text": text}) for text in texts + texts[:80]]
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows[:20], "{}", *rows[20:]]))
    sweep = ["data=jsonl", f"data.paths=[{tmp_path / 'rows.jsonl'}]", "data.validation_tokens=2048", "grid=list"]
    sweep += [f"store={tmp_path / 'store'}", "cluster.workers=1", "device=cpu", "data.on_error=skip"]
    # At most twice as long as it will be: planning cannot know, and the launch says why.
    assert main(["launch", *sweep, "grid.runs=[{N: 2252, D: 60_000}]"]) == 2
    captured = capsys.readouterr()
    assert "80 duplicates (44" in captured.out
    assert "of the bytes; data.deduplicate=false keeps them)" in captured.out
    assert "1 bad document skipped" in captured.out
    assert "is longer than the data" in captured.err
    assert "left out of the text: 80 duplicates" in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_that_is_too_long_is_refused_in_little_memory(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    with gzip.open(path, "wb", 1) if packed else open(path, "wb") as file:
        file.write(GOOD[0] + b'\n{"text": "')
        for _ in range(300):
            file.write(b"a" * (1 << 20))
        file.write(b'"}\n' + GOOD[1])
    script = (
        "import resource, sys\n"
        "from sweep.config import SourceConfig\n"
        "from sweep.data.sources import reader_of\n"
        "import pyarrow\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"reader = reader_of(SourceConfig(source='jsonl', paths=[{str(path)!r}], on_error=sys.argv[1]))\n"
        "try:\n"
        "    print(len(list(reader)), reader.take_skipped())\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    for on_error, said in (("refuse", "data.max_line_bytes=100,000,000: "), ("skip", "2 1 bad document skipped")):
        done = subprocess.run([sys.executable, "-c", script, on_error], capture_output=True, text=True, check=True)
        message, megabytes = done.stdout.splitlines()
        assert message.startswith(said)
        assert f"{path} has a longer line at byte {len(GOOD[0]) + 1:,}" in message
        assert int(megabytes) < 280
    short = reader_of(
        SourceConfig(source="jsonl", paths=[str(path)], max_line_bytes=max(map(len, GOOD[:2])) + 1, on_error="skip")
    )
    assert len(list(short)) == 2
    longer = reader_of(SourceConfig(source="jsonl", paths=[str(path)], max_line_bytes=4e8))
    assert len(list(longer)) == 3


def test_one_document_cannot_be_both_held_out_and_trained_on(tmp_path: Path) -> None:
    """A text without line ends is one document; the remedy that is named works."""
    letters = "".join(np.random.default_rng(0).choice(list("acgt"), 300_000))
    (tmp_path / "letters.txt").write_text(letters)
    spec = CorpusSpec(source="text", paths=[str(tmp_path / "letters.txt")], tokenizer="bytes", validation_tokens=2048)
    with pytest.raises(InputError, match=r"300,001 tokens in 1 document, too few .*; .* add text or line ends, for more"):
        CorpusRecipe.read(spec).build(tmp_path / "corpora")
    (tmp_path / "letters.txt").write_text("\n".join(textwrap.wrap(letters, 1000)))
    assert len(CorpusRecipe.read(spec).build(tmp_path / "corpora").tokens("train")) > 150_000
