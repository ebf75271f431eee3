"""How fast a corpus is built, compared with the tokenizer alone, in one run on one machine.

    python scripts/bench_tokenise.py [megabytes=200] [workers=2] [vocab_size=4096] [out=results/tokenise-speed]

The text is the source code of the standard library, repeated with a number in each copy, as JSON lines and as Parquet. "Raw"
is `encode_batch_fast` of the `tokenizers` library on documents already in memory, with as many threads as there are workers,
discarding the ids; for bytes it only reads the file. "Ours" is the whole way from the files to train.bin and validation.bin:
reading, parsing, hashing, deduplication, encoding, shuffling, and the overlap of the two parts. The last column is the
largest memory of any of our processes.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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


def raw(folder: Path, tokenizer: str) -> None:
    """Runs in its own process: encode everything, and print the seconds that the encoding alone took."""
    if tokenizer == "bytes":
        start = time.perf_counter()
        with open(folder / "lines.jsonl", "rb") as file:
            while file.read(BATCH_BYTES):
                pass
        print(time.perf_counter() - start)
        return
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
    print(taken)


def ours(folder: Path, kind: str, tokenizer: str, workers: int) -> None:
    """Runs in its own process: build the corpus, and print the seconds it took and the largest memory of a process in MB."""
    from sweep.config import CorpusSpec
    from sweep.data import CorpusRecipe

    path = folder / {"jsonl": "lines.jsonl", "parquet": "rows.parquet"}[kind]
    start = time.perf_counter()
    CorpusRecipe.read(CorpusSpec(source=kind, paths=[str(path)], tokenizer=tokenizer)).build(
        folder / f"corpora-{kind}", workers=workers
    )
    taken = time.perf_counter() - start
    memory = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(taken, max(memory))


def timed(*arguments: object, threads: int) -> list[float]:
    """The numbers that `raw` or `ours` prints, run in a new process."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, __file__, *map(str, arguments)]
    return [float(word) for word in subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout.split()]


def main(arguments: list[str]) -> None:
    options = dict(argument.split("=", 1) for argument in arguments)
    workers = int(options.get("workers", len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory(dir=options.get("scratch")) as scratch:
        folder = Path(scratch)
        size = prepare(folder, float(options.get("megabytes", 200)), int(options.get("vocab_size", 4096)))
        print(f"{size / MEGABYTE:,.0f} MB of text, {workers} workers, {os.cpu_count()} cores")
        record: dict[str, object] = {"bytes": size, "workers": workers, "cores": os.cpu_count()}
        for name, tokenizer in (("bytes", "bytes"), ("bpe", str(folder / "tokenizer.json"))):
            (raw_s,) = timed("raw", folder, tokenizer, threads=workers)
            for kind in ("jsonl", "parquet"):
                seconds, memory = timed("ours", folder, kind, tokenizer, workers, threads=workers)
                rates = [size / MEGABYTE / taken for taken in (seconds, raw_s)]
                print(
                    f"{name:6} {kind:8} {rates[0]:8.1f} MB/s   raw {rates[1]:8.1f} MB/s   {raw_s / seconds:5.2f} of raw   "
                    f"{memory:6.0f} MB of memory"
                )
                record[f"{name} from {kind}"] = {"seconds": seconds, "raw_seconds": raw_s, "memory_mb": memory}
    if "out" in options:
        out = Path(options["out"])
        out.mkdir(parents=True, exist_ok=True)
        (out / "tokenise_speed.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["raw"]:
        raw(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["ours"]:
        ours(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main(sys.argv[1:])
