"""Configuration of the runs: the size ladder, the grid, the optimizer and its rules, the schedule."""

from dataclasses import dataclass, field

from sweep.config.data import SourceConfig
from sweep.config.fields import choice, nonempty, number


@dataclass(kw_only=True)
class ModelFamily:
    """The size ladder: the fields of `models.SizeLadder`, without vocabulary and context, which the data define."""

    aspect_ratio: float = number(16, above=0)
    head_dim: int = 8
    kv_groups: int = number(1, at_least=1)
    tied_embeddings: bool = False
    rope_theta: float = number(10_000.0, above=1)


@dataclass(kw_only=True)
class PowerRule:
    """A hyperparameter as a function of the run: `coefficient * N^parameters * D^tokens`, kept within `min` and `max`."""

    coefficient: float = number(above=0)
    parameters: float = 0.0
    tokens: float = 0.0
    min: float = 0.0
    max: float = float("inf")

    def __call__(self, N: float, D: float) -> float:
        return min(max(self.coefficient * N**self.parameters * D**self.tokens, self.min), self.max)


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW. `peak_lr` and `batch_tokens` replace their rules; `lr_scale` multiplies the peak rate."""

    beta1: float = number(0.9, above=0, below=1)
    beta2: float = number(0.95, above=0, below=1)
    eps: float = number(1e-8, above=0)
    weight_decay: float = number(0.1, at_least=0)
    grad_clip: float = number(1.0, above=0)
    lr_rule: PowerRule = field(default_factory=lambda: PowerRule(coefficient=0.02))
    batch_rule: PowerRule = field(default_factory=lambda: PowerRule(coefficient=512))
    peak_lr: float | None = number(None, above=0)
    batch_tokens: int | None = number(None, at_least=1)
    lr_scale: float = number(1.0, above=0)


@dataclass(kw_only=True)
class ScheduleConfig:
    """Linear warm-up of about `warmup_tokens_per_parameter` x N tokens, then a cosine; see `sweep.train.schedule`."""

    warmup_tokens_per_parameter: float = number(1.0, at_least=0)
    max_warmup_fraction: float = number(0.1, at_least=0, at_most=1)
    final_fraction: float = number(0.1, at_least=0, at_most=1)
    cycle: float = number(1.0, at_least=1)


@dataclass(kw_only=True)
class EvaluationConfig:
    """`points` held-out losses per run, the last at the horizon, with `noise_scale` each beside the gradient noise scale (see
    `sweep.train.noise_scale`); `isosweep evaluate` measures finished runs on the first `tokens` tokens of each of the named
    `sets`."""

    points: int = number(1, at_least=1)
    noise_scale: bool = False
    sets: dict[str, SourceConfig] | None = None
    tokens: int = number(131_072, at_least=1)


@dataclass(kw_only=True)
class IsoflopGrid:
    """`sizes` shapes per budget, spread evenly in log N over a factor `span` around the N whose D/N is expected to be
    optimal (`tokens_per_parameter`). `flops` is the convention that a budget is counted in; fits choose theirs separately."""

    budgets: list[float] = nonempty()
    sizes: int = number(at_least=1)
    span: float = number(at_least=1)
    tokens_per_parameter: float = number(above=0)
    flops: str = choice("6N", "kaplan", "chinchilla", "exact")


@dataclass(kw_only=True)
class HorizonsGrid:
    """Every size in `parameters` at every D/N in `tokens_per_parameter`."""

    parameters: list[float] = nonempty()
    tokens_per_parameter: list[float] = nonempty()


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
    runs: list[NamedRun] | None = nonempty(None)
