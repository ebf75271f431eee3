"""The bench command."""

import sys
from argparse import Namespace
from pathlib import Path

from sweep.commands import DONE, columns, console
from sweep.commands.sweeps import composed
from sweep.errors import InputError
from sweep.plan import code
from sweep.store import Store

ENGINES = ("auto", "plain", "native", "eager", "compiled", "eager, graph", "compiled, graph")
BATCH_TOKENS = {"cpu": 2**10, "cuda": 2**14}  # by default
COLUMNS = ("N", "engine", "precision", "processes", "tokens/s", "GFLOP/s", "of peak", "memory", "first step", "most time in")
LEAST = ("most time in", "first step", "memory", "of peak", "precision", "processes")


def bench(options: Namespace) -> int:
    """Measure steps, print a table, and keep it as bench.json in the store, for `plan` to estimate from."""
    from sweep.data import CorpusRecipe
    from sweep.follow.status import text_table
    from sweep.launch import mps
    from sweep.launch.pool import pool_size
    from sweep.plan.cost import PLAIN, choose_engine
    from sweep.plan.device import require_device, resolve_device
    from sweep.plan.grid import ladder_of, resolve_precision
    from sweep.train.bench import Measurement, measure, save

    config = composed(options)
    device = resolve_device(config.device)
    require_device(device)
    store = Store(Path(config.store))
    store.require_writable()
    wanted, vocab_size = config.bench, CorpusRecipe.read(config.data).vocab_size
    ladder = ladder_of(config, vocab_size)
    if unknown := set(wanted.engines) - set(ENGINES):
        raise InputError(f"bench.engines: {', '.join(sorted(unknown))} is none of {', '.join(ENGINES)}")
    if device == "cpu" and (graphs := [engine for engine in wanted.engines if engine.endswith("graph")]):
        raise InputError(f"bench.engines: {graphs[0]} needs device=cuda: it is captured as a CUDA graph")
    if device == "cuda" and "native" in wanted.engines:
        raise InputError("bench.engines: native needs device=cpu")
    shapes = []
    for size in wanted.sizes:
        try:
            shapes.append(ladder.nearest(size))
            if remark := ladder.remark(size):
                print(f"isosweep: bench.sizes: {remark}", file=sys.stderr)
        except ValueError as error:
            raise InputError(f"bench.sizes: {error}") from error
    code.keep(shapes, store.root)
    chosen = choose_engine(device, compiled=config.runtime.compile, compile_pays=True, parallel_size=1, micro_batch=None)
    found: list[Measurement] = []
    for shape in shapes:
        for engine in wanted.engines:
            for processes in wanted.processes or [pool_size(config.cluster, device)]:
                with mps.served(wanted=device == "cuda" and processes > 1):
                    measured = measure(
                        shape,
                        chosen if engine == "auto" else engine,
                        device=device,
                        precision="fp32" if engine == PLAIN else resolve_precision(config),
                        processes=processes,
                        threads=config.cluster.threads,
                        batch_tokens=wanted.batch_tokens or BATCH_TOKENS[device],
                        seconds=wanted.seconds,
                    )
                found.append(measured)
                save(store.bench, found)  # an interrupted bench keeps its results so far
                print(f"N {measured.N:,} {measured.engine} x{processes}: {measured.tokens_per_s:,.0f} tokens/s", flush=True)
    rows = []
    for m in found:
        most = ", ".join(f"{name} {share:.0%}" for name, share in list(m.breakdown.items())[:3])
        speed = (f"{m.tokens_per_s:,.0f}", f"{m.flops_per_s / 1e9:,.1f}", f"{m.share_of_peak:.0%}")
        memory, first = f"{m.memory_bytes / 1e6:,.0f} MB", f"{m.first_step_s:.1f} s"
        rows.append((f"{m.N:,}", m.engine, m.precision, f"{m.processes}x{m.threads}", *speed, memory, first, most))
    table = text_table(COLUMNS, rows, left=("engine", "precision", "most time in"), width=columns(), least=LEAST)
    console().print(table, soft_wrap=True)
    print(f"kept in {store.bench}")
    return DONE
