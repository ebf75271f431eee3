"""How to compute a run: which engine, whether compiling pays, how many runs share a GPU, how much memory.

The numbers are conservative estimates; no result depends on them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TypeAlias

from models import ModelConfig, flops_per_token
from sweep.plan.run import WEIGHTS_BF16, RunConfig

Shape: TypeAlias = tuple[ModelConfig, int, str, str]  # of a step: model, sequences, precision, optimizer

# On an H200 a graph of eager kernels does 0.5e14 to 1.3e14 FLOP/s, a compiled one about twice that: of 3e14 FLOPs a few seconds
# are saved, for half a minute of a core that would be idle.
COMPILING_PAYS_FROM = 3e14  # FLOPs of all runs of a shape
# Tokens per forward and backward pass on a GPU. Larger ones are no faster, and need more memory.
MAX_PASS_TOKENS = 2**16
# (N, k): up to this N, k concurrent runs do more on a card than one after another; a larger run fills it.
STREAMS = ((2e6, 4), (8e6, 3), (2e7, 2))
MAX_STREAMS = 4
PLAIN = "plain"  # an engine only for benchmarks: the textbook step in fp32
BYTES_PER_PARAMETER, BYTES_PER_TOKEN = 24, 80  # weights, gradients, moments and a checkpoint copy; ids and sums
CONTEXT_BYTES = 6e8  # the CUDA context of each process
USABLE = 0.9  # fraction of a card's free memory


def choose_engine(
    device: str, *, compiled: str, compile_pays: bool, parallel_size: int, micro_batch: int | None, simple: bool = True
) -> str:
    """The engine for a run: "native", "eager", "compiled", "eager, graph" or "compiled, graph". Needs no device.

    Args:
        device: "cpu" or "cuda".
        compiled: runtime.compile, one of "auto", "on", "off": "on" means torch.compile, "off" plain eager torch.
        compile_pays: whether "auto" should compile on CUDA; see `worth_compiling`.
        parallel_size: number of processes that train the run together.
        micro_batch: sequences per forward pass, if set.
        simple: whether the run can be compiled and captured; see `is_simple`.
    """
    if compiled == "off" or parallel_size > 1 or (device == "cuda" and not simple):
        return "eager"
    if device == "cpu" and compiled == "auto" and micro_batch is None:
        return "native"
    step = "compiled" if compiled == "on" or compile_pays else "eager"
    return f"{step}, graph" if device == "cuda" else step


def is_simple(run: RunConfig) -> bool:
    """Whether torch.compile and CUDA graphs can make the steps of `run`: not of an LSTM, of blanks,
    whose batches are made on the host, nor of code that nobody here knows."""
    return run.model.body == "transformer" and run.causal


def shape_of(run: RunConfig) -> Shape:
    """What the speed of a step depends on, and torch.compile must know: runs that have it in common are compiled once."""
    return run.model, run.batch_size, run.precision, run.optimizer.kind


def worth_compiling(runs: Iterable[RunConfig]) -> frozenset[str]:
    """The run_ids of runs whose shape accounts for enough FLOPs in total to repay a compilation."""
    by_shape = defaultdict(list)
    for run in runs:
        if is_simple(run):
            by_shape[shape_of(run)].append(run)
    repaid = (same for same in by_shape.values() if sum(flops(run) for run in same) >= COMPILING_PAYS_FROM)
    return frozenset(run.run_id for same in repaid for run in same)


def sequences_at_once(run: RunConfig) -> int:
    """Sequences per forward pass on a GPU: the batch, or the half, quarter … of it that has at most `MAX_PASS_TOKENS`."""
    sequences = run.batch_size
    while sequences > 1 and sequences * run.model.context_length > MAX_PASS_TOKENS:
        sequences = (sequences + 1) // 2
    return sequences


def flops(run: RunConfig) -> float:
    """Exact FLOPs of the whole run, causal attention counted half."""
    return flops_per_token(run.model, "exact") * run.D


def memory_bytes(run: RunConfig, sequences: int) -> float:
    """Upper estimate of what training `run` holds: weights, gradients, moments, activations of `sequences` at once, logits."""
    model = run.model
    per_token = model.n_layers * (6 * model.d_model + 3 * model.d_ff) + 2 * model.vocab_size
    width = 8 if run.precision == "fp32" else 4  # bytes per value, with what autograd keeps
    activations = width * per_token * sequences * model.context_length
    parameters = BYTES_PER_PARAMETER * run.N * (0.5 if run.precision == WEIGHTS_BF16 else 1)
    return parameters + activations + BYTES_PER_TOKEN * run.batch_tokens


def token_bytes(tokens: int, vocab_size: int) -> int:
    """What a corpus takes on a GPU, where ids are signed."""
    return tokens * (2 if vocab_size <= 2**15 else 4)


def fits_beside(run: RunConfig, running: Collection[RunConfig], free_bytes: float, tokens_bytes: float = 0) -> bool:
    """Whether a card with `free_bytes` that is training `running` should also train `run`. An idle card always may. Each run's
    process has the corpus on the card, `tokens_bytes`."""
    if not running:
        return True
    together = [*running, run]
    memory = sum(memory_bytes(each, sequences_at_once(each)) + CONTEXT_BYTES + tokens_bytes for each in together)
    return sum(1 / streams(each.N) for each in together) <= 1 and memory <= USABLE * free_bytes


def streams(N: int) -> int:
    """How many runs of `N` parameters a card should train at the same time."""
    return next((count for limit, count in STREAMS if limit >= N), 1)
