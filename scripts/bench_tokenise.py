"""How fast a corpus is built, compared with the tokenizer alone, in one run on one machine.

The text is the source code of the standard library, repeated with a number in each copy, as JSON lines and as Parquet. "Raw"
is `encode_batch_fast` of the `tokenizers` library on documents already in memory, with as many threads as there are workers,
discarding the ids; for bytes it only reads the file. "Ours" is the whole way from the files to train.bin and validation.bin:
reading, parsing, hashing, deduplication, encoding, shuffling, and the overlap of the two parts. The last column is the
largest memory of any of our processes. The default takes about 3 minutes on two cores.
"""

import json
import multiprocessing
import os
import resource
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from sweep.machine import cores

T = TypeVar("T")
MEGABYTE = 1e6
BATCH_BYTES = 1 << 22  # encoded at once, as in ours


def documents(megabytes: float) -> Iterator[str]:
    """Different documents, `megabytes` in total."""
    from sweep.config import SourceConfig
    from sweep.data.sources import reader_of

    texts = [text.decode() for text in reader_of(SourceConfig(source="stdlib"))]
    left, copy = megabytes * MEGABYTE, 0
    while left > 0:
        for text in texts:
            text = f"# copy {copy}\n{text}"
            yield text
            if (left := left - len(text.encode())) <= 0:
                return
        copy += 1


def prepare(folder: Path, megabytes: float, vocab_size: int) -> int:
    """Write the text as lines.jsonl and rows.parquet, and a BPE. Returns the bytes of text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sweep.data.tokenizer import train_bpe

    size, schema = 0, pa.schema({"text": pa.string()})
    with open(folder / "lines.jsonl", "w") as lines, pq.ParquetWriter(folder / "rows.parquet", schema) as rows:
        batch: list[str] = []
        for text in documents(megabytes):
            size += len(text.encode())
            lines.write(json.dumps({"text": text}) + "\n")
            batch.append(text)
            if len(batch) == 256:
                rows.write_batch(pa.record_batch({"text": batch}))
                batch = []
        if batch:
            rows.write_batch(pa.record_batch({"text": batch}))
    train_bpe((text.encode() for text in documents(8)), vocab_size).save(folder)
    return size


def raw(folder: Path, tokenizer: str) -> float:
    """The seconds that encoding everything takes, without reading it."""
    if tokenizer == "bytes":
        start = time.perf_counter()
        with open(folder / "lines.jsonl", "rb") as file:
            while file.read(BATCH_BYTES):
                pass
        return time.perf_counter() - start
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(tokenizer)
    taken, batch, size = 0.0, [], 0
    with open(folder / "lines.jsonl") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    for i, text in enumerate(texts):
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES or i + 1 == len(texts):
            start = time.perf_counter()
            library.encode_batch_fast(batch, add_special_tokens=False)
            taken += time.perf_counter() - start
            batch, size = [], 0
    return taken


def ours(folder: Path, kind: str, tokenizer: str, workers: int) -> tuple[float, float]:
    """The seconds that building the corpus takes, and the largest memory of a process in MB."""
    from sweep.config import CorpusSpec
    from sweep.data import CorpusRecipe

    path = folder / {"jsonl": "lines.jsonl", "parquet": "rows.parquet"}[kind]
    start = time.perf_counter()
    CorpusRecipe.read(CorpusSpec(source=kind, paths=[str(path)], tokenizer=tokenizer)).build(
        folder / f"corpora-{kind}", workers=workers
    )
    taken = time.perf_counter() - start
    memory = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return taken, max(memory)


def in_a_fresh_process(work: Callable[..., T], *arguments: object) -> T:
    """What `work` returns, from a process whose memory nothing else has used."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(work, *arguments).result()


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=200, help="of text (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=cores(), help="processes (default: one per core)")
    parser.add_argument("--vocab-size", type=int, default=4096, help="of the BPE (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, help="folder for the text and the corpora (default: the system's)")
    parser.add_argument("--out", type=Path, help="folder for tokenise_speed.json (default: only print)")
    options = parser.parse_args()
    workers = options.workers
    os.environ |= {"RAYON_NUM_THREADS": str(workers), "TOKENIZERS_PARALLELISM": "true"}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        size = prepare(folder, options.megabytes, options.vocab_size)
        print(f"{size / MEGABYTE:,.0f} MB of text, {workers} workers, {os.cpu_count()} cores")
        record: dict[str, object] = {"bytes": size, "workers": workers, "cores": os.cpu_count()}
        for name, tokenizer in (("bytes", "bytes"), ("bpe", str(folder / "tokenizer.json"))):
            raw_s = in_a_fresh_process(raw, folder, tokenizer)
            for kind in ("jsonl", "parquet"):
                seconds, memory = in_a_fresh_process(ours, folder, kind, tokenizer, workers)
                rates = [size / MEGABYTE / taken for taken in (seconds, raw_s)]
                print(
                    f"{name:6} {kind:8} {rates[0]:8.1f} MB/s   raw {rates[1]:8.1f} MB/s   {raw_s / seconds:5.2f} of raw   "
                    f"{memory:6.0f} MB of memory",
                    flush=True,
                )
                record[f"{name} from {kind}"] = {"seconds": seconds, "raw_seconds": raw_s, "memory_mb": memory}
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "tokenise_speed.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
