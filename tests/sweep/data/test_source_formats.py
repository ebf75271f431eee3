"""Files in the forms that people have: compressions, structs and bytes, saved datasets, tokenizers of others."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.config import CorpusSpec, SourceConfig
from sweep.data import CorpusRecipe
from sweep.data.sources import reader_of
from sweep.data.sources.reader import Reader
from sweep.data.tokenizer import ready_tokenizer
from sweep.errors import InputError
from tests.sweep.data.cases import save_dataset, some_documents

TEXTS = some_documents(100)


def read(reader: Reader) -> list[str]:
    return [document.decode() for document in reader]


def of(source: str, *paths: Path, **fields: Any) -> Reader:
    return reader_of(SourceConfig(source=source, paths=[str(path) for path in paths], **fields))


@pytest.mark.parametrize("ending", [".jsonl.zstd", ".json.zst", ".jsonl.zst", ".json.bz2", ".jsonl.gz"])
def test_compressed_lines(tmp_path: Path, ending: str) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    packed = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(ending).suffix, pa.Codec("zstd").compress)
    half = len(lines) // 2
    content = b"".join(bytes(packed(piece)) for piece in (lines[:half], lines[half:]))  # two frames one after another
    (tmp_path / f"web{ending}").write_bytes(content)
    assert read(of("jsonl", tmp_path)) == read(of("jsonl", tmp_path / f"web{ending}")) == TEXTS


def test_zstd_with_a_long_window(tmp_path: Path) -> None:
    # A frame with the window of zstd --long=31, 2 GB, and one raw block: RFC 8878, 3.1.1.
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + (len(lines) << 3 | 1).to_bytes(3, "little") + lines
    path = tmp_path / "long.jsonl.zst"
    path.write_bytes(frame)
    try:
        import zstandard  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(InputError, match=r"longer window .*; pip install zstandard, or write it again: zstd -d --long=31"):
            read(of("jsonl", path))
    else:
        path.write_bytes(frame + frame)
        assert read(of("jsonl", path)) == TEXTS + TEXTS


def test_a_field_inside_a_column(tmp_path: Path) -> None:
    records: list[Any] = [{"doc": {"meta": {"text": text}}, "id": i} for i, text in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.Table.from_pylist([*records, {"doc": None, "id": 0}]), tmp_path / "a.parquet")
    for source in ("jsonl", "parquet"):
        path = tmp_path / f"a.{source}"
        assert read(of(source, path, column="doc.meta.text")) == TEXTS
        with pytest.raises(InputError, match=r"column=doc: .*: name one|holds dict, not text"):
            read(of(source, path, column="doc"))
        with pytest.raises(InputError, match=r"column=doc\.text: .* no such column; it has doc\.meta\.text"):
            read(of(source, path, column="doc.text"))
    (tmp_path / "dotted.jsonl").write_text(json.dumps({"doc.text": TEXTS[0], "doc": {"text": "other"}}))
    pq.write_table(pa.table({"doc.text": TEXTS}), tmp_path / "dotted.parquet")
    assert read(of("jsonl", tmp_path / "dotted.jsonl", column="doc.text")) == TEXTS[:1]
    assert read(of("parquet", tmp_path / "dotted.parquet", column="doc.text")) == TEXTS
    save_dataset(tmp_path / "saved", TEXTS)
    import datasets

    datasets.Dataset.from_list(records).save_to_disk(str(tmp_path / "nested"))
    nested = reader_of(SourceConfig(source="huggingface", dataset=str(tmp_path / "nested"), column="doc.meta.text"))
    assert read(nested) == TEXTS


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.large_string(), pa.string_view()])
def test_text_of_every_type_in_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array([text.encode() for text in TEXTS], pa.binary()).cast(kind)
    pq.write_table(pa.table({"text": column, "list": [[text] for text in TEXTS], "n": range(100)}), tmp_path / "a.parquet")
    assert read(of("parquet", tmp_path)) == TEXTS
    for column in ("n", "list", "list.list.element"):
        with pytest.raises(InputError, match="has no such column; it has text: name one"):
            read(of("parquet", tmp_path, column=column))


def test_a_dictionary_in_parquet_is_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", "b"] * 50).dictionary_encode()}), tmp_path / "a.parquet")
    assert read(of("parquet", tmp_path)) == ["a", "b"] * 50


def test_the_split_of_a_saved_dataset_is_what_is_read(tmp_path: Path) -> None:
    import datasets

    save_dataset(tmp_path / "one", TEXTS)
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict({"text": TEXTS}), "test": datasets.Dataset.from_dict({"text": TEXTS[:9]})}
    )
    both.save_to_disk(str(tmp_path / "both"))
    named = datasets.Dataset.from_dict({"text": TEXTS}, split=datasets.Split.VALIDATION)
    named.save_to_disk(str(tmp_path / "named"))

    def rows(folder: str, split: str) -> list[str]:
        return read(reader_of(SourceConfig(source="huggingface", dataset=str(tmp_path / folder), split=split)))

    assert rows("one", "train") == rows("both", "train") == rows("named", "validation") == TEXTS
    assert rows("one", "train[:50]") == TEXTS[:50]
    assert rows("one", "train[90%:]") == TEXTS[90:]
    assert rows("both", "train[:5]+test") == TEXTS[:5] + TEXTS[:9]
    for folder, split, there in (("one", "test", "train"), ("named", "train", "validation"), ("both", "dev", "train, test")):
        with pytest.raises(InputError, match=rf"data\.split={split}: .* has no such split, but {there} .*name one of them"):
            rows(folder, split)
    with pytest.raises(InputError, match="holds no rows"):
        rows("one", "train[:0]")


def test_a_tokenizer_without_an_unknown_token_is_one_line(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    library = Tokenizer(models.WordLevel({"a": 0, "b": 1, "</s>": 2}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("a b c " * 2000)
    spec = CorpusSpec(source="text", paths=[str(tmp_path)], tokenizer=str(tmp_path / "tokenizer.json"), validation_tokens=100)
    with pytest.raises(InputError, match=r"data\.tokenizer cannot encode a document .*Missing \[UNK\].*; give it an unknown"):
        CorpusRecipe.read(spec).build(tmp_path / "corpora")


def test_files_of_a_tokenizer_may_begin_with_a_byte_order_mark(tmp_path: Path, wordpiece: Path) -> None:
    content = (wordpiece / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8-sig")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "[CLS]"}', encoding="utf-8-sig")
    tokenizer = ready_tokenizer(CorpusSpec(tokenizer=str(tmp_path)))
    assert tokenizer is not None
    assert tokenizer.end_of_document == 1
    for wrong in ("{", "[]", "\x00"):
        (tmp_path / "tokenizer_config.json").write_text(wrong)
        with pytest.raises(
            InputError, match=r"tokenizer_config\.json cannot be read .*name the token with data.end_of_document"
        ):
            ready_tokenizer(CorpusSpec(tokenizer=str(tmp_path)))
