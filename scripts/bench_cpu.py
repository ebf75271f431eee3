"""How much faster a CPU trains small models with isosweep than with the step as a tutorial writes it.

The yardstick is plain fp32 eager torch: module, torch.optim.AdamW, clip_grad_norm_; as one process with two threads, and as two
processes with one thread each. Against it, two one-thread processes of what a launch chooses, in fp32 and in bf16. Every round
measures everything once, in turn, so that a ratio compares what ran within a minute; quoted are medians over the rounds. The
result says which processor it was, with which instructions, and the variables that took instructions away.

The sizes are of the ladder that CPU sweeps use, with a head_dim of 8; the last row has a head_dim of 32. It takes 6 minutes.
"""

import json
import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from statistics import geometric_mean, median

import torch

from models import ModelConfig, SizeLadder, count_parameters
from sweep.config import compose
from sweep.plan.measured import processor, processor_name
from sweep.train.bench import PLAIN, Measurement, measure

SIZES = (3e4, 1e5, 4e5, 8e5, 5e6)
WIDE = ModelConfig(vocab_size=257, d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=344, context_length=64)
WIDE_BATCH_TOKENS = 768
MODES = {  # engine, precision, processes, threads
    "plain 1x2": (PLAIN, "fp32", 1, 2),
    "plain 2x1": (PLAIN, "fp32", 2, 1),
    "fp32 2x1": ("native", "fp32", 2, 1),
    "bf16 2x1": ("native", "bf16", 2, 1),
}
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")  # as /proc/cpuinfo calls them
LIMITS = ("ISOSWEEP_CXXFLAGS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def machine() -> dict:
    """The processor, what it can do, and what torch and the kernels were told not to use of it."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "instructions": [name for name in INSTRUCTIONS if name in processor().split()],
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "limits": {name: os.environ[name] for name in LIMITS if name in os.environ},
    }


def one_round(model: ModelConfig, modes: list[str], seconds: float, batch_tokens: int) -> dict[str, Measurement]:
    return {
        mode: measure(
            model,
            engine,
            device="cpu",
            precision=precision,
            processes=processes,
            threads=threads,
            batch_tokens=batch_tokens,
            seconds=seconds,
        )
        for mode, (engine, precision, processes, threads) in MODES.items()
        if mode in modes
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/throughput-cpu"), help="folder of throughput.json")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement (default: %(default)s)")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="tokens per optimizer step (default: %(default)s)")
    parser.add_argument("--only", choices=["wide"], help="wide: only the shape with a head_dim of 32")
    parser.add_argument("--no-bf16", action="store_true", help="leave bf16 out, which a processor without AVX-512 emulates")
    options = parser.parse_args()
    modes = [mode for mode in MODES if not (options.no_bf16 and mode.startswith("bf16"))]
    family = compose(["experiment=smoke"]).model
    ladder = SizeLadder(vocab_size=257, context_length=128, **vars(family))
    rows = []
    print(f"{'N':>10} " + " ".join(f"{mode:>12}" for mode in modes) + "   tokens/s;  x plain 1x2, x plain 2x1, share of peak")
    cases = [(ladder.nearest(size), options.batch_tokens) for size in SIZES if options.only != "wide"]
    for model, batch_tokens in [*cases, (WIDE, WIDE_BATCH_TOKENS)]:
        found = [one_round(model, modes, options.seconds, batch_tokens) for _ in range(options.rounds)]
        row: dict = {
            "N": count_parameters(model).total,
            "head_dim": model.head_dim,
            "tokens_per_s": {},
            "share_of_peak": {},
            "peak_flops_per_s": {},
        }
        for mode in modes:
            row["tokens_per_s"][mode] = median(each[mode].tokens_per_s for each in found)
            row["share_of_peak"][mode] = median(each[mode].share_of_peak for each in found)
            row["peak_flops_per_s"][mode] = median(each[mode].peak_flops_per_s for each in found)
        for mode in modes[2:]:
            for plain in ("plain 1x2", "plain 2x1"):
                ratios = [each[mode].tokens_per_s / each[plain].tokens_per_s for each in found]
                row[f"{mode} / {plain}"] = median(ratios)
        rows.append(row)
        ours = modes[-1]
        print(
            f"{row['N']:>10,} " + " ".join(f"{row['tokens_per_s'][mode]:>12,.0f}" for mode in modes)
            + f"   {row[f'{ours} / plain 1x2']:.2f}, {row[f'{ours} / plain 2x1']:.2f}, {row['share_of_peak'][ours]:.0%}",
            flush=True,
        )  # fmt: skip
    means = {ratio: geometric_mean(row[ratio] for row in rows) for ratio in rows[0] if " / " in ratio}
    for ratio, mean in means.items():
        print(f"{ratio}: {mean:.2f} (geometric mean over sizes)")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "throughput.json").write_text(
        json.dumps({"machine": machine(), "rounds": options.rounds, "rows": rows, "geometric_means": means}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
