"""Training steps on a GPU: engines, packing and batch sizes, against what was expected of one stream.

It measures the most useful cases first, writes each result to bench.json at once, and stops after --seconds. "Expected" is a
share of 790 TFLOP/s, which an H200 reaches in large bf16 matrix products.
"""

import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from models import SizeLadder
from sweep.errors import InputError
from sweep.train.bench import measure, save

EXPECTED = {7e4: 0.05, 1e6: 0.20, 5e6: 0.30, 2e7: 0.385, 1e8: 0.51, 4e8: 0.62}
ONE_STREAM = ("compiled, graph", "eager, graph", "compiled", "eager")
PACKED = (2, 4, 8)


def questions() -> list[tuple[float, str, int, int, int]]:
    """(size, engine, processes, tokens per step, vocabulary)."""
    one = [(size, "compiled, graph", 1, 2**16, 257) for size in EXPECTED]
    packed = [(size, "compiled, graph", k, 2**14, 257) for k in PACKED for size in (1e6, 5e6, 7e4, 2e7)]
    batch = [(size, "compiled, graph", 1, 2**14, 257) for size in EXPECTED]
    engines = [(size, engine, 1, 2**14, 257) for engine in ONE_STREAM[1:] for size in EXPECTED]
    vocabulary = [(size, "compiled, graph", 1, 2**16, 8192) for size in EXPECTED]
    return one + batch + packed + engines + vocabulary


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/throughput-gpu"), help="folder of bench.json")
    parser.add_argument("--seconds", type=float, default=340, help="how long it may take (default: %(default)s)")
    options = parser.parse_args()
    out, end = options.out, time.monotonic() + options.seconds
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for size, engine, processes, batch_tokens, vocab_size in questions():
        if time.monotonic() > end:
            print("out of time")
            break
        model = SizeLadder(vocab_size=vocab_size, context_length=1024, aspect_ratio=64, head_dim=64).nearest(size)
        try:
            row = measure(
                model,
                engine,
                device="cuda",
                precision="bf16",
                processes=processes,
                threads=1,
                batch_tokens=batch_tokens,
                seconds=2,
            )
        except InputError as error:
            print(error, flush=True)
            continue
        found.append(row)
        save(out / "bench.json", found)
        print(
            f"N {row.N:>12,}  {engine:16} x{processes}  {batch_tokens:>6} tokens, vocabulary {vocab_size:>5}: "
            f"{row.tokens_per_s:>12,.0f} tokens/s  {row.flops_per_s / 1e12:6.1f} TFLOP/s  {row.share_of_peak:5.1%} of peak "
            f"(expected {EXPECTED[size]:.0%})  {row.memory_bytes / 2**30:.1f} GiB  first step {row.first_step_s:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
