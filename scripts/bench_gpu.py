"""Training steps on a GPU: one run and several at once, in bf16 and with the residual stream in bf16 too, beside nanoGPT.

The shapes are compiled first, many at a time. Each row is written to bench.json at once, and no row is begun after --seconds.
"""

import json
import os
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from typing import Any

from models import ModelConfig, SizeLadder, flops_per_token
from sweep.config import ClusterConfig
from sweep.errors import InputError
from sweep.launch import mps
from sweep.launch.ahead import Ahead
from sweep.launch.launchers import Launch
from sweep.machine import cores
from sweep.store import Store
from sweep.train.bench import Measurement, measure, run_of
from sweep.train.device import matmul_peak

COMPILED, EAGER, NANOGPT = "compiled, graph", "eager, graph", "nanoGPT"
SHORT, LONG = 2**14, 2**16  # tokens per step


@dataclass(frozen=True, kw_only=True)
class Row:
    size: float
    batch_tokens: int
    engine: str = COMPILED
    precision: str = "bf16"
    processes: int = 0  # 0 is this one

    def model(self) -> ModelConfig:
        return SizeLadder(vocab_size=257, context_length=1024, aspect_ratio=64, head_dim=64).nearest(self.size)


def rows() -> list[Row]:
    """The most useful first."""
    one = [Row(size=size, batch_tokens=SHORT) for size in (1e6, 6e6, 1.7e7)]
    one += [Row(size=size, batch_tokens=LONG) for size in (1.7e7, 1.1e8)]
    several = [Row(size=size, batch_tokens=SHORT, processes=count) for size, count in ((1e6, 4), (6e6, 3), (1.7e7, 2))]
    more = [Row(size=size, batch_tokens=SHORT, processes=count) for size, count in ((1e6, 8), (6e6, 4), (1.7e7, 3))]
    alone, packed = ([replace(row, precision="bf16_residual") for row in rows] for rows in (one, several))
    rival = [replace(row, engine=NANOGPT) for row in one[-2:]]
    return [*one, *alone, *rival, *several, *packed, *more, *(replace(row, engine=EAGER) for row in one)]


def compile_ahead(wanted: Sequence[Row], cache: Path) -> float:
    """Compile all shapes, several at a time, into `cache`; the seconds that it took."""
    import torch

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    runs = [run_of(row.model(), row.precision, row.batch_tokens // 1024) for row in wanted if row.engine == COMPILED]
    launch = Launch(name="bench", store=Store(cache), corpus=cache, device="cuda", cluster=ClusterConfig(), compile="on")
    begin, free = time.monotonic(), torch.cuda.mem_get_info()[0]
    with Ahead(runs, launch, cores()) as ahead:
        while ahead.waiting or ahead.going:
            ahead.go_on(runs, free)
            time.sleep(0.1)
    return time.monotonic() - begin


def nanogpt(path: Path, row: Row) -> dict[str, Any]:
    """The GPT class of nanoGPT's model.py with the row's layers and width, in a step like that of nanoGPT's train.py."""
    import torch

    shape, batch_tokens = row.model(), row.batch_tokens
    spec = spec_from_file_location("nanogpt", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {"n_layer": shape.n_layers, "n_head": shape.n_heads, "n_embd": shape.d_model}
    model = module.GPT(module.GPTConfig(block_size=1024, vocab_size=264, bias=False, dropout=0.0, **sizes)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    compiled, ids = torch.compile(model), torch.randint(257, (batch_tokens // 1024, 1025), device="cuda")

    def steps(count: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            with torch.autocast("cuda", torch.bfloat16):
                _, loss = compiled(ids[:, :-1], ids[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) / count

    first = steps(1)
    steps(5)
    rate = batch_tokens / median(steps(10) for _ in range(8))
    parameters = sum(p.numel() for p in model.parameters())
    return {"N": parameters, "engine": NANOGPT, "batch_tokens": batch_tokens, "tokens_per_s": rate, "first_step_s": first}


def main() -> None:
    import torch  # here: a script that has torch's name would give its processes other keys into torch's cache

    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/throughput-gpu"), help="folder of bench.json")
    parser.add_argument("--seconds", type=float, default=300, help="after which no row is begun (default: %(default)s)")
    parser.add_argument("--nanogpt", type=Path, help="nanoGPT's model.py, to be measured too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here")
    end = time.monotonic() + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []

    def keep(row: dict[str, Any], shape: ModelConfig) -> None:
        flops = row["tokens_per_s"] * flops_per_token(shape, "exact")
        found.append(row | {"share_of_peak": round(flops / matmul_peak("cuda", "bf16"), 4)})
        (options.out / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
        print(
            f"N {row['N']:>11,}  {row['engine']:15} {row.get('precision', ''):13} x{row.get('processes', 1)} "
            f"{row['batch_tokens']:>6} tokens: {row['tokens_per_s']:>11,.0f} tokens/s  {flops / 1e12:6.1f} TFLOP/s  "
            f"{found[-1]['share_of_peak']:5.1%} of peak  first step {row['first_step_s']:.1f} s",
            flush=True,
        )

    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: bf16 peak {matmul_peak('cuda', 'bf16') / 1e12:.0f} TFLOP/s"
    )
    with tempfile.TemporaryDirectory() as directory:
        print(f"compiled in {compile_ahead(rows(), Path(directory)):.0f} s", flush=True)
        for row in rows():
            if time.monotonic() > end:
                print("out of time")
                break
            if row.engine == NANOGPT and not options.nanogpt:
                continue
            try:
                with mps.served(wanted=row.processes > 1):
                    keep(nanogpt(options.nanogpt, row) if row.engine == NANOGPT else one_row(row), row.model())
            except (InputError, RuntimeError) as error:
                print(f"{row}: {error}", flush=True)


def one_row(row: Row) -> dict[str, Any]:
    measured: Measurement = measure(
        row.model(),
        row.engine,
        device="cuda",
        precision=row.precision,
        processes=row.processes,
        threads=1,
        batch_tokens=row.batch_tokens,
        seconds=1.5,
    )
    return asdict(measured)


if __name__ == "__main__":
    main()
