"""What a sweep is: the schema that conf/ composes into, and the composing.

Hydra composes, this schema checks names and types, and nothing in a file is ever instantiated or executed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.errors import InputError


@dataclass(kw_only=True)
class ModelFamily:
    """The size ladder: the fields of `models.SizeLadder` but those that the data give."""

    aspect_ratio: float = 16
    head_width: int = 8
    queries_per_kv_head: int = 1
    tied_embeddings: bool = False
    rope_theta: float = 10_000.0


@dataclass(kw_only=True)
class SourceConfig:
    """Where documents come from.

    Attributes:
        source: "stdlib", the running Python's standard library; "text", "jsonl" or "parquet", local files; "huggingface", a
            dataset by name or local folder; and, for a whole corpus only, "mixture", "tokens" or "synthetic".
        paths: files, folders or globs of local files.
        column: that holds the text, in JSONL, Parquet and Hugging Face datasets.
        dataset, config, split, revision: of "huggingface", as `datasets.load_dataset` takes them.
        rows: "documents", or "lines" of longer texts, which are joined and cut into documents again as text files are.
        max_bytes: use only the first documents, until they have this many bytes.
        weight: share of the training tokens, in a mixture; given for all of its sources, adding up to 1, or for none.
        epochs: how often a source of a mixture is repeated; where there are weights, how often at most.
    """

    source: str = "text"
    paths: list[str] = field(default_factory=list)
    column: str = "text"
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    rows: str = "documents"
    max_bytes: float | None = None
    weight: float | None = None
    epochs: float = 1


@dataclass(kw_only=True)
class MemmapConfig:
    """Flat files of token ids that somebody has made before, as nanoGPT and llm.c read them.

    Attributes:
        dtype: of the ids in .bin files; .npy files say it themselves.
        header_bytes: to skip at the start of each .bin file (1024 in llm.c's).
        validation_paths: files of held-out tokens; without any, the end of the others is held out.
        bytes_per_token: of the text behind the held-out tokens, if it is known, for losses in bits per byte.
    """

    dtype: str = "uint16"
    header_bytes: int = 0
    validation_paths: list[str] = field(default_factory=list)
    bytes_per_token: float | None = None


@dataclass(kw_only=True)
class SyntheticConfig:
    """A Markov chain of known entropy rate; see `sweep.data.synthetic`.

    Attributes:
        tokens: to train on; the held-out part comes on top.
        zipf: token k has a weight of (k + offset)^-zipf.
        offset: see above.
        coupling: standard deviation of the logarithm of how much more often than by chance two tokens meet.
        decay: its r-th eigenvalue falls as r^-decay.
        seed: of the chain and of the walk on it.
    """

    tokens: float = 2e7
    zipf: float = 0.0
    offset: float = 2.0
    coupling: float = 1.0
    decay: float = 0.75
    seed: int = 0


@dataclass(kw_only=True)
class CorpusSpec(SourceConfig):
    """What a corpus is made of.

    Attributes:
        sources: of a mixture, by name.
        tokenizer: "bytes"; "bpe", trained on the corpus; a tokenizer.json, a folder with one, or a Hugging Face name.
        vocab_size: ids of a BPE, the end of document included, of ready tokens, or of the synthetic chain. Other tokenizers
            say themselves how many they have (bytes: 257).
        end_of_document: the token that ends a document, for a tokenizer whose own is not found.
        validation_tokens: length of the held-out part, taken from whole documents that training never sees.
        shuffle_seed: seed of the order of the documents.
        deduplicate: leave out documents that are there already.
        near_duplicates: leave out documents of whose lines at least this share is in other documents before them.
        memmap: of source=tokens.
        synthetic: of source=synthetic.
    """

    source: str = "stdlib"
    sources: dict[str, SourceConfig] | None = None
    tokenizer: str = "bytes"
    vocab_size: int = 257
    end_of_document: str | None = None
    validation_tokens: int = 131_072
    shuffle_seed: int = 0
    deduplicate: bool = True
    near_duplicates: float | None = None
    memmap: MemmapConfig | None = None
    synthetic: SyntheticConfig | None = None


@dataclass(kw_only=True)
class DataConfig(CorpusSpec):
    """The corpus, the context T, how often it may be repeated, and how many processes make it."""

    context_length: int = 128
    max_epochs: float = 1
    workers: int | None = None


@dataclass(kw_only=True)
class PowerRule:
    """`coefficient * N^parameters * D^tokens`, never above `max`: a hyperparameter as a function of the run."""

    coefficient: float
    parameters: float = 0.0
    tokens: float = 0.0
    min: float = 0.0
    max: float = float("inf")

    def __call__(self, N: float, D: float) -> float:
        return min(max(self.coefficient * N**self.parameters * D**self.tokens, self.min), self.max)


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW. `peak_lr` and `batch_tokens` override their rules; `lr_scale` multiplies the rate either gives."""

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    lr_rule: PowerRule = field(default_factory=lambda: PowerRule(coefficient=0.02))
    batch_rule: PowerRule = field(default_factory=lambda: PowerRule(coefficient=512))
    peak_lr: float | None = None
    batch_tokens: int | None = None
    lr_scale: float = 1.0


@dataclass(kw_only=True)
class ScheduleConfig:
    """Linear warm-up of about `warmup_tokens_per_parameter` x N tokens, then a cosine; see `sweep.schedule`."""

    warmup_tokens_per_parameter: float = 1.0
    max_warmup_fraction: float = 0.1
    final_fraction: float = 0.1
    cycle: float = 1.0


@dataclass(kw_only=True)
class IsoflopGrid:
    """`sizes` shapes per budget, spread evenly in log N over a factor `span` around the N whose D/N is expected to be
    optimal (`tokens_per_parameter`). `flops` is the convention in which a budget is spent; fits choose theirs apart."""

    budgets: list[float]
    sizes: int
    span: float
    tokens_per_parameter: float
    flops: str = "6N"


@dataclass(kw_only=True)
class HorizonsGrid:
    """Every size in `parameters` at every D/N in `tokens_per_parameter`."""

    parameters: list[float]
    tokens_per_parameter: list[float]


@dataclass(kw_only=True)
class NamedRun:
    """One (N, D)."""

    N: float
    D: float


@dataclass(kw_only=True)
class GridConfig:
    """The runs of a sweep: the union of the parts that are given."""

    isoflop: IsoflopGrid | None = None
    horizons: HorizonsGrid | None = None
    runs: list[NamedRun] | None = None


@dataclass(kw_only=True)
class SlurmConfig:
    """What an array task asks Slurm for; conf/cluster/slurm.yaml says what each means."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_task: int = 0
    cpus_per_task: int = 2
    memory_mb: int | None = None
    time_limit_minutes: int | None = None
    task_minutes: float = 60
    most_at_once: int | None = None
    signal_s: int = 120
    directives: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    python: str | None = None


@dataclass(kw_only=True)
class ClusterConfig:
    """How runs share the machine or the cluster, and how (`strategy`) one run is spread over several processes; nothing here
    changes a result."""

    launcher: str = "local"
    workers: str = "auto"
    threads: int = 1
    checkpoint_interval_s: float = 60
    log_interval_s: float = 1
    micro_batch: int | None = None
    strategy: str = "ddp"
    slurm: SlurmConfig | None = None


@dataclass(kw_only=True)
class RuntimeConfig:
    """How a step is computed, which changes no result beyond rounding: see `sweep.engine`. `compile` is "auto" (what is
    fastest), "on" (torch.compile, whether or not it pays) or "off" (plain eager torch)."""

    compile: str = "auto"


@dataclass(kw_only=True)
class BenchConfig:
    """What `isosweep bench` measures: every size with every engine ("auto" is what a launch would choose, "plain" a tutorial's
    step in fp32) and number of processes at once; by default as many as a launch would have."""

    sizes: list[float] = field(default_factory=lambda: [3e4, 1e5, 4e5, 8e5, 5e6])
    engines: list[str] = field(default_factory=lambda: ["auto"])
    processes: list[int] = field(default_factory=list)
    batch_tokens: int = 1024
    seconds: float = 3


@dataclass(kw_only=True)
class TrackerConfig:
    """Where curves are mirrored to; see `sweep.tracking`. Nothing here changes a result."""

    kind: str = "none"
    project: str = "isosweep"
    entity: str | None = None
    mode: str = "auto"
    timeout_s: float = 60


@dataclass(kw_only=True)
class EvaluationConfig:
    """`points` validation losses per run, the last at the horizon."""

    points: int = 3


@dataclass(kw_only=True)
class FitConfig:
    """How runs become laws; see `sweep.fit`."""

    loss: str = "val"
    parameters: str = "total"
    flops: str = "6N"
    objective: str = "huber"
    huber_delta: float = 1e-3
    tied: bool = False
    fixed_E: float | None = None
    seed_noise: float | None = None
    envelope: str = "interpolated"
    smoothing_steps: float = 10
    envelope_points: int = 1500
    resamples: int = 200
    level: float = 0.8
    seed: int = 0


@dataclass(kw_only=True)
class AskConfig:
    """What the fits are asked; see `sweep.fit.answers.Questions`."""

    budgets: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    inference_tokens: float = 0
    flops_per_second: float | None = None
    watts: float = 700


@dataclass(kw_only=True)
class ReportConfig:
    """The report's title (by default the sweep's name, or the table's), and what one CPU core is taken to draw."""

    title: str | None = None
    core_watts: float = 10


@dataclass(kw_only=True)
class NextConfig:
    """What to run next; see `sweep.fit.design.next_runs`. Without `flops`, as many as all runs took so far."""

    flops: float | None = None
    target: str = "a"
    target_C: float | None = None
    most: int = 20
    reach: float = 4


@dataclass(kw_only=True)
class Columns:
    """Names of a table's columns, and their units (see `sweep.fit.units.Units`). `weight`, `cluster`, `batch_tokens`, and N and
    C under other conventions, are used if they are there; `tokens` and `curve_loss` (null: as `loss`) are of the curves."""

    run_id: str = "run_id"
    N: str = "N"
    D: str = "D"
    C: str = "C"
    loss: str = "loss"
    budget: str = "budget"
    weight: str = "weight"
    cluster: str = "cluster"
    batch_tokens: str = "batch_tokens"
    N_non_embedding: str = "N_non_embedding"
    C_kaplan: str = "C_kaplan"
    C_chinchilla: str = "C_chinchilla"
    C_exact: str = "C_exact"
    tokens: str = "tokens"
    curve_loss: str | None = None
    N_unit: str = "1"
    D_unit: str = "1"
    C_unit: str = "1"
    tokens_unit: str = "1"
    loss_unit: str = "nats"
    bytes_per_token: float | None = None


@dataclass(kw_only=True)
class SweepConfig:
    """A whole sweep, as conf/sweep.yaml composes it."""

    name: str = "sweep"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    store: str = "store"
    out: str = "store/sweeps/sweep"
    model: ModelFamily = field(default_factory=ModelFamily)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    ask: AskConfig = field(default_factory=AskConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    next: NextConfig = field(default_factory=NextConfig)
    retry: str | None = None
    watch: bool = False
    budget: float | None = None
    approach: str = "parametric"
    yes: bool = False
    run_id: str | None = None
    submission: str | None = None
    task: int | None = None
    table: str | None = None
    curves: str | None = None
    columns: Columns = field(default_factory=Columns)


CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "fp32", "bf16"),
    "data.source": ("stdlib", "text", "jsonl", "parquet", "huggingface", "mixture", "tokens", "synthetic"),
    "data.rows": ("documents", "lines"),
    "data.memmap.dtype": ("uint8", "uint16", "int16", "int32", "uint32", "int64"),
    "cluster.launcher": ("local", "slurm"),
    "cluster.strategy": ("ddp", "fsdp"),
    "runtime.compile": ("auto", "on", "off"),
    "retry": ("failed",),
    "approach": ("envelope", "isoflop", "parametric"),
    "fit.loss": ("val", "train", "bits_per_byte"),
    "fit.parameters": ("total", "non_embedding"),
    "grid.isoflop.flops": ("6N", "kaplan", "chinchilla", "exact"),
    "fit.flops": ("6N", "kaplan", "chinchilla", "exact"),
    "fit.objective": ("huber", "lad", "log_mse", "linear_mse"),
    "fit.envelope": ("interpolated", "bins", "hull"),
    "columns.loss_unit": ("nats", "bits", "bits_per_byte", "perplexity"),
    "next.target": ("a", "loss"),
    "tracker.kind": ("none", "wandb"),
    "tracker.mode": ("auto", "online", "offline"),
}

# field: (smallest allowed, whether that value itself is allowed)
BOUNDS = {
    "seed": (0, True),
    "data.shuffle_seed": (0, True),
    "fit.seed": (0, True),
    "optimizer.lr_rule.coefficient": (0, False),
    "optimizer.batch_rule.coefficient": (0, False),
    "model.aspect_ratio": (0, False),
    "model.queries_per_kv_head": (1, True),
    "model.rope_theta": (1, False),
    "data.context_length": (1, True),
    "data.validation_tokens": (1, True),
    "data.max_epochs": (0, False),
    "data.max_bytes": (0, False),
    "data.vocab_size": (2, True),
    "data.near_duplicates": (0, False),
    "data.workers": (1, True),
    "data.memmap.header_bytes": (0, True),
    "data.memmap.bytes_per_token": (0, False),
    "data.synthetic.tokens": (2, True),
    "data.synthetic.zipf": (0, True),
    "data.synthetic.offset": (0, True),
    "data.synthetic.coupling": (0, True),
    "data.synthetic.decay": (0, True),
    "data.synthetic.seed": (0, True),
    "optimizer.eps": (0, False),
    "optimizer.weight_decay": (0, True),
    "optimizer.grad_clip": (0, False),
    "optimizer.lr_scale": (0, False),
    "optimizer.peak_lr": (0, False),
    "optimizer.batch_tokens": (1, True),
    "schedule.warmup_tokens_per_parameter": (0, True),
    "schedule.max_warmup_fraction": (0, True),
    "schedule.final_fraction": (0, True),
    "schedule.cycle": (1, True),
    "evaluation.points": (1, True),
    "grid.isoflop.sizes": (1, True),
    "grid.isoflop.span": (1, True),
    "grid.isoflop.tokens_per_parameter": (0, False),
    "cluster.threads": (1, True),
    "cluster.checkpoint_interval_s": (0, True),
    "cluster.log_interval_s": (0, True),
    "cluster.micro_batch": (1, True),
    "cluster.slurm.gpus_per_task": (0, True),
    "cluster.slurm.cpus_per_task": (1, True),
    "cluster.slurm.memory_mb": (1, True),
    "cluster.slurm.time_limit_minutes": (1, True),
    "cluster.slurm.task_minutes": (0, False),
    "cluster.slurm.most_at_once": (1, True),
    "cluster.slurm.signal_s": (1, True),
    "task": (0, True),
    "tracker.timeout_s": (0, False),
    "budget": (0, False),
    "fit.huber_delta": (0, False),
    "fit.fixed_E": (0, True),
    "fit.seed_noise": (0, False),
    "fit.smoothing_steps": (0, True),
    "fit.envelope_points": (30, True),
    "fit.resamples": (0, True),
    "ask.inference_tokens": (0, True),
    "ask.flops_per_second": (0, False),
    "ask.watts": (0, False),
    "report.core_watts": (0, False),
    "bench.batch_tokens": (1, True),
    "bench.seconds": (0, False),
    "columns.bytes_per_token": (0, False),
    "next.flops": (0, False),
    "next.target_C": (0, False),
    "next.most": (1, True),
    "next.reach": (0, False),
}


def conf_directory() -> Path:
    """conf/ of the checkout this package runs from, or the copy inside an installed package."""
    here = Path(__file__).resolve().parent
    for candidate in (here.parent / "conf", here / "conf"):
        if (candidate / "sweep.yaml").exists():
            return candidate
    raise FileNotFoundError(f"conf/sweep.yaml is neither in {here.parent} nor in {here}; reinstall isosweep")


def compose(overrides: Sequence[str], config_name: str = "sweep") -> SweepConfig:
    """The sweep that Hydra overrides describe, names, types and ranges checked.

    Raises:
        InputError: for an unknown key, group or option, a value of the wrong type or out of range.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from yaml import YAMLError

    try:
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            composed = hydra_compose(config_name, list(overrides))
    except HydraException as error:
        raise InputError(_one_line(error)) from error
    except (ValueError, YAMLError) as error:  # Hydra lets these through, for instance of model=null, and names no field
        raise InputError(f"{_one_line(error)}; one of these is wrong: {' '.join(overrides)}") from error
    return from_omegaconf(composed)


def from_omegaconf(composed: Any) -> SweepConfig:
    """Check a composed configuration against the schema; see `compose`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SweepConfig), composed))
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise InputError(f"{where}{_one_line(error)}") from error
    assert isinstance(config, SweepConfig)
    _check_values(config)
    return config


def _check_values(config: SweepConfig) -> None:
    for name, choices in CHOICES.items():
        if (value := _lookup(config, name)) is not None and value not in choices:
            raise InputError(f"{name}={value} is none of {', '.join(choices)}")
    for name, (low, inclusive) in BOUNDS.items():
        value = _lookup(config, name)
        if value is not None and not (math.isfinite(value) and (value > low or (inclusive and value == low))):
            raise InputError(f"{name}={value} is out of range; it must be {'at least' if inclusive else 'above'} {low}")
    for name in ("optimizer.beta1", "optimizer.beta2", "fit.level"):
        if not 0 < (value := _lookup(config, name)) < 1:
            raise InputError(f"{name}={value} is out of range; it must lie between 0 and 1")
    for name in ("schedule.max_warmup_fraction", "schedule.final_fraction", "data.near_duplicates"):
        if (value := _lookup(config, name)) is not None and value > 1:
            raise InputError(f"{name}={value} is out of range; it must be at most 1")
    for name in ("seed", "data.shuffle_seed", "fit.seed"):
        if (value := _lookup(config, name)) >= 2**63:
            raise InputError(f"{name}={value} is out of range; it must be below 2**63")
    for name in ("grid.isoflop.budgets", "grid.horizons.parameters", "grid.horizons.tokens_per_parameter", "grid.runs"):
        if _lookup(config, name) == []:
            raise InputError(f"{name} is empty; name at least one, or leave it out of the grid")
    if config.cluster.launcher == "slurm":
        if config.cluster.slurm is None:
            raise InputError("cluster.launcher=slurm without cluster.slurm; choose cluster=slurm, or a file like it")
        if config.device == "auto":  # a login node's own devices say nothing
            config.device = "cuda" if config.cluster.slurm.gpus_per_task else "cpu"
    workers = config.cluster.workers
    if workers != "auto" and not (workers.isdigit() and int(workers) > 0):
        raise InputError(f"cluster.workers={workers} is neither auto nor a positive number")


def _lookup(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = None if config is None else getattr(config, part)
    return config


def _one_line(error: BaseException) -> str:
    """The message of a Hydra or OmegaConf error without its stack of causes, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type="))]
    text = " ".join(kept)
    cause = error.__cause__
    return f"{text} ({_one_line(cause)})" if cause is not None and str(cause) not in text else text
