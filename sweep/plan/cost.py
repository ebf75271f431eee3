"""How to compute a run: which engine, whether compiling pays, how many runs share a GPU, how much memory.

The numbers are conservative estimates; no result depends on them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from models import flops_per_token
from sweep.plan.run import RunConfig

# torch.compile takes about a minute per shape. A small model in a graph of eager kernels keeps a GPU busy at some 5e13 FLOP/s,
# compiled at about twice that: the minute is recovered after 2 * 60 s * 5e13 / s.
COMPILING_PAYS_FROM = 6e15  # FLOPs of all runs of a shape
# (N, k): up to this N, k concurrent runs do more on a card than one after another; a larger run fills it.
STREAMS = ((2e6, 4), (8e6, 3), (2e7, 2))
MAX_STREAMS = 4
PLAIN = "plain"  # an engine only for benchmarks: the textbook step in fp32
BYTES_PER_PARAMETER, BYTES_PER_TOKEN = 24, 80  # weights, gradients, moments and a checkpoint copy; ids and sums
CONTEXT_BYTES = 6e8  # the CUDA context of each process
USABLE = 0.9  # fraction of a card's free memory


def choose_engine(device: str, *, compiled: str, compile_pays: bool, parallel_size: int, micro_batch: int | None) -> str:
    """The engine for a run: "native", "eager", "compiled", "eager, graph" or "compiled, graph". Needs no device.

    Args:
        device: "cpu" or "cuda".
        compiled: runtime.compile, one of "auto", "on", "off": "on" means torch.compile, "off" plain eager torch.
        compile_pays: whether "auto" should compile on CUDA; see `worth_compiling`.
        parallel_size: number of processes that train the run together.
        micro_batch: sequences per forward pass, if set.
    """
    if compiled == "off" or parallel_size > 1:
        return "eager"
    if device == "cpu" and compiled == "auto" and micro_batch is None:
        return "native"
    step = "compiled" if compiled == "on" or compile_pays else "eager"
    return f"{step}, graph" if device == "cuda" else step


def worth_compiling(runs: Iterable[RunConfig]) -> frozenset[str]:
    """The run_ids of runs whose shape, batch size and precision account for enough FLOPs in total to repay a compilation."""
    by_shape = defaultdict(list)
    for run in runs:
        by_shape[run.model, run.batch_size, run.precision].append(run)
    repaid = (same for same in by_shape.values() if sum(flops(run) for run in same) >= COMPILING_PAYS_FROM)
    return frozenset(run.run_id for same in repaid for run in same)


def flops(run: RunConfig) -> float:
    """Exact FLOPs of the whole run, causal attention counted half."""
    return flops_per_token(run.model, "exact") * run.D


def memory_bytes(run: RunConfig) -> float:
    """Upper estimate of what training `run` holds: weights, gradients, moments, activations of a whole batch, logits."""
    model = run.model
    per_token = model.n_layers * (6 * model.d_model + 3 * model.d_ff) + 2 * model.vocab_size
    width = 4 if run.precision == "bf16" else 8  # bytes per value, with what autograd keeps
    return BYTES_PER_PARAMETER * run.N + (width * per_token + BYTES_PER_TOKEN) * run.batch_tokens


def fits_beside(run: RunConfig, running: Collection[RunConfig], free_bytes: float) -> bool:
    """Whether a card with `free_bytes` that is training `running` should also train `run`. An idle card always may."""
    if not running:
        return True
    together = [*running, run]
    memory = sum(memory_bytes(each) + CONTEXT_BYTES for each in together)
    return sum(1 / streams(each.N) for each in together) <= 1 and memory <= USABLE * free_bytes


def streams(N: int) -> int:
    """How many runs of `N` parameters a card should train at the same time."""
    return next((count for limit, count in STREAMS if limit >= N), 1)
