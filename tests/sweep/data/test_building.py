"""Corpora are built by several workers, by several processes, and after a kill."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sweep.config import CorpusSpec, SourceConfig
from sweep.data import CorpusRecipe
from sweep.data import tokenise as tokenising
from sweep.data.sources import reader, reader_of
from sweep.data.tokenise import Tokenising
from sweep.data.tokenizer import ByteTokenizer, LibraryTokenizer, train_bpe
from tests.sweep.data.cases import documents_of, some_documents, write_jsonl
from tests.waiting import PATIENCE_S


def _build_slowly(spec: CorpusSpec, root: Path) -> None:
    """In a child: tokenise with small parts and a pause after each."""
    reader.UNIT_BYTES = 1 << 18
    tokenising.PART_BYTES, tokenising.ENCODE_DOCUMENTS = 1 << 16, 50
    CorpusRecipe.read(spec).build(root, workers=1, advance=lambda size, doing="": time.sleep(0.03 if size else 0))


def test_workers_and_parts_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_documents(3000)
    for i in range(3):
        write_jsonl(tmp_path / f"{i}.jsonl", texts[i::3])
    monkeypatch.setattr(reader, "UNIT_BYTES", 1 << 18)
    source = reader_of(SourceConfig(source="jsonl", paths=[str(tmp_path)]))
    tokenizer = train_bpe((text.encode() for text in texts[:300]), 400)
    seen: list[int] = []
    alone = Tokenising(source, tokenizer, tmp_path / "alone").run(1)
    together = Tokenising(source, tokenizer, tmp_path / "together").run(2, seen.append)
    monkeypatch.setattr(tokenising, "PART_BYTES", 1 << 16)
    monkeypatch.setattr(tokenising, "ENCODE_DOCUMENTS", 50)
    small = Tokenising(source, tokenizer, tmp_path / "small").run(1)
    assert len(alone) == len(together) < len(small)
    assert sum(seen) == sum(len(text.encode()) for text in texts)
    content = [b"".join(part.path.read_bytes() for part in parts) for parts in (alone, together, small)]
    assert content[0] == content[1] == content[2]


def test_a_kill_costs_only_the_part_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_documents(3000)
    write_jsonl(tmp_path / "lines.jsonl", texts)
    spec = CorpusSpec(
        source="jsonl", paths=[str(tmp_path / "lines.jsonl")], tokenizer="bpe", vocab_size=400, validation_tokens=500
    )
    monkeypatch.setattr(reader, "UNIT_BYTES", 1 << 18)
    monkeypatch.setattr(tokenising, "PART_BYTES", 1 << 16)
    monkeypatch.setattr(tokenising, "ENCODE_DOCUMENTS", 50)
    clean = CorpusRecipe.read(spec).build(tmp_path / "clean", workers=1)
    root = tmp_path / "killed"
    work = root / f".{clean.fingerprint}.partial"
    for wanted in (1, 5):
        child = multiprocessing.get_context("fork").Process(target=_build_slowly, args=(spec, root))
        child.start()
        deadline = time.monotonic() + PATIENCE_S
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
    again = CorpusRecipe.read(spec).build(root, workers=1, advance=lambda size, doing="": done.append(size))
    total = sum(len(text.encode()) for text in texts)
    assert sum(done) == total
    assert sum(encoded) == total - done[0]  # what was whole is not encoded again
    assert done[0] > 0
    for part in ("train", "validation"):
        assert (again.directory / f"{part}.bin").read_bytes() == (clean.directory / f"{part}.bin").read_bytes()
    assert [path.name for path in root.iterdir()] == [clean.fingerprint]


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "lines.jsonl", some_documents(20_000))
    script = (
        "from sweep.config import CorpusSpec\n"
        "from sweep.data import CorpusRecipe\n"
        "from sweep.data.sources import reader\n"
        "from pathlib import Path\n"
        "reader.UNIT_BYTES = 1 << 20\n"
        "if __name__ == '__main__':\n"
        f"    spec = CorpusSpec(source='jsonl', paths=[{str(tmp_path / 'lines.jsonl')!r}], near_duplicates=0.9)\n"
        f"    CorpusRecipe.read(spec).build(Path({str(tmp_path / 'corpora')!r}), workers=2)\n"
    )
    (tmp_path / "build.py").write_text(script)
    parent = psutil.Popen([sys.executable, str(tmp_path / "build.py")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while not list(tmp_path.glob("corpora/.*/000/*.bin")) and time.monotonic() < deadline and parent.poll() is None:
        time.sleep(0.01)
    children = parent.children(recursive=True)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
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


def test_max_bytes_takes_the_first_documents(
    same_everywhere: dict[str, CorpusSpec], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UNIT_BYTES", 1 << 14)
    for kind in ("jsonl", "parquet", "saved"):
        spec = CorpusSpec(**{**vars(same_everywhere[kind]), "max_bytes": 50_000})
        corpus = CorpusRecipe.read(spec).build(tmp_path)
        ends = np.cumsum([len(text.encode()) for text in texts])
        first = set(texts[: int(np.searchsorted(ends, 50_000)) + 1])
        assert set(documents_of(corpus)) < first
        assert corpus.manifest["bytes"] == ends[len(first) - 1]
        assert CorpusRecipe.read(spec).training_tokens(tmp_path / "none") >= corpus.manifest["parts"]["train"]["tokens"]


def test_max_bytes_stops_workers_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "UNIT_BYTES", 1 << 16)
    texts = some_documents(4000)
    write_jsonl(tmp_path / "lines.jsonl", texts)
    source = reader_of(SourceConfig(source="jsonl", paths=[str(tmp_path / "lines.jsonl")]))
    done: list[int] = []
    parts = Tokenising(source, ByteTokenizer(), tmp_path / "work", max_bytes=200_000).run(2, done.append)
    assert sum(int(part.index()["bytes"].sum()) for part in parts) >= 200_000
    assert sum(done) < 0.6 * sum(len(text.encode()) for text in texts)
