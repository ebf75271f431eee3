"""One set of documents, as every kind of source."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.config import CorpusSpec
from tests.sweep.data.cases import save_dataset, some_documents, write_jsonl


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return some_documents(400)


@pytest.fixture(scope="session")
def same_everywhere(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, CorpusSpec]:
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
