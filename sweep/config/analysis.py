"""Configuration of the analysis of finished runs: fits, questions, the report, the next runs, a table's columns."""

from dataclasses import dataclass, field

from sweep.config.fields import choice, choice_or_name, choices, number
from sweep.config.training import NamedRun


@dataclass(kw_only=True)
class CriticalBatchConfig:
    """B_crit(L) = B_star / L^(1 / alpha_B), in tokens per step; Kaplan et al. 2020 measured 2e8 and 0.21 on WebText2."""

    B_star: float = number(above=0)
    alpha_B: float = number(above=0, below=5)


@dataclass(kw_only=True)
class CompareConfig:
    """How the labels of an axis are compared; see `sweep.compare.labels.compare_labels`.

    Attributes:
        baseline: the label that others are compared with; by default the first.
        level: of the intervals, for all comparisons of a sweep together.
        margin: the smallest difference that matters, in nats per token; by default 1 % of the loss.
        law: where the baseline's L(N, D) is from, if its own runs have none: a launched sweep that was fitted, or a fits.json.
        losses: whether the losses of tables={…} may be compared: they are of one held-out text.
    """

    baseline: str | None = None
    level: float = number(0.95, above=0, below=1)
    margin: float | None = number(None, above=0)
    law: str | None = None
    losses: bool = True


@dataclass(kw_only=True)
class FitConfig:
    """How runs become laws; see `sweep.fit`."""

    loss: str = choice_or_name("val", "train", "bits_per_byte")  # or a set that isosweep evaluate has measured
    parameters: str = choice("total", "non_embedding")
    flops: str = choice("6N", "kaplan", "chinchilla", "exact")
    objective: str = choice("huber", "lad", "log_mse", "linear_mse")
    huber_delta: float = number(1e-3, above=0)
    tied: bool = False
    fixed_E: float | None = number(None, at_least=0)
    seed_noise: float | None = number(None, above=0)
    envelope: str = choice("between_sizes", "interpolated", "bins", "hull")
    smoothing_steps: float = number(10, at_least=0)
    envelope_points: int = number(1500, at_least=30)
    critical_batch: CriticalBatchConfig | None = None
    resamples: int = number(200, at_least=0)
    level: float = number(0.8, above=0, below=1)
    seed: int = number(0, at_least=0, below=2**63)


@dataclass(kw_only=True)
class AskedModel(NamedRun):
    """One (N, D), and the GPU-hours of its training if they are known."""

    gpu_hours: float | None = None


@dataclass(kw_only=True)
class AskConfig:
    """Questions to the fits; see `sweep.fit.answers.Questions`, which checks what is inside lists and models."""

    budgets: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    improve: list[float] = field(default_factory=list)
    at: NamedRun | None = None
    models: dict[str, AskedModel] | None = None
    inference_tokens: float = number(0, at_least=0)
    flops_per_second: float | None = number(None, above=0)
    watts: float = number(700, above=0)
    pue: float = number(1.1, at_least=1)
    tonnes_per_MWh: float = number(0.385, at_least=0)


@dataclass(kw_only=True)
class FiguresConfig:
    """The files that `plot` writes of each figure: png, svg, pdf."""

    formats: list[str] = choices("png", "svg", "pdf", default=("png", "svg"))


@dataclass(kw_only=True)
class ReportConfig:
    """The report's title (by default the sweep's name, or the table's), whether it shows host names and absolute paths, and the
    power that a CPU core is assumed to draw."""

    title: str | None = None
    places: bool = False
    core_watts: float = number(10, above=0)


@dataclass(kw_only=True)
class NextConfig:
    """Choosing the next runs; see `sweep.fit.design.next_runs`. Without `flops`, they may cost as much as all runs so far."""

    flops: float | None = number(None, above=0)
    target: str = choice("a", "loss")
    target_C: float | None = number(None, above=0)
    max_runs: int = number(20, at_least=1)
    reach: float = number(4, above=0)


@dataclass(kw_only=True)
class Columns:
    """Names of a table's columns, and their units (see `sweep.tables.units.Units`). `weight`, `cluster`, `batch_tokens`, and
    N and C under other conventions, are used if they are there; `tokens` and `curve_loss` (null: as `loss`) are columns
    of the curves. `replicates` says what becomes of several rows of one (N, D); see `sweep.tables.rows.replicates`."""

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
    loss_unit: str = choice("nats", "bits", "bits_per_byte", "perplexity")
    bytes_per_token: float | None = number(None, above=0)
    replicates: str | None = choice("best", "seeds", "refuse", default=None)
