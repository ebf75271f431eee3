"""Configuration of the runs: the size ladder, the grid, the optimizer and its rules, the schedule."""

from dataclasses import dataclass, field
from typing import Any

from sweep.config.data import SourceConfig
from sweep.config.fields import checked, choice, nonempty, number


@dataclass(kw_only=True)
class ModelFamily:
    """The size ladder: the fields of `models.SizeLadder`, without vocabulary and context, which the data define. `body` is
    "transformer", "lstm", or FILE.py:Class, a class of your own, for which --allow-code is needed; see `models.own`."""

    aspect_ratio: float = number(16, above=0)
    head_dim: int = 8
    kv_groups: int = number(1, at_least=1)
    tied_embeddings: bool = False
    rope_theta: float = number(10_000.0, above=1)
    dropout: float = number(0.0, at_least=0, below=1)
    n_layers: int | None = number(None, at_least=1)
    exact_size: bool = False
    body: str = "transformer"
    norm: str = choice("rms", "layer")
    feed_forward: str = choice("swiglu", "gelu")
    position: str = choice("rope", "learned", "none")
    qk_norm: bool = False
    shared: bool = False


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
    """`peak_lr` and `batch_tokens` replace their rules; `lr_scale` multiplies the peak rate. `kind` is how the weights decay:

    adamw    apart from the gradient: each step takes lr x weight_decay of every matrix (Loshchilov & Hutter 2019)
    adam     within it: weight_decay x weight is added to the clipped gradient (L2), so that Adam's moments scale it too

    With weight_decay=0 they are the same.
    """

    kind: str = choice("adamw", "adam")
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
    """Linear warm-up of about `warmup_tokens_per_parameter` x N tokens, then a `shape`; see `sweep.train.schedule`:

    cosine          to `final_fraction` of the peak, over `cycle` times the run
    linear          the same in a straight line
    constant        the peak
    inverse_sqrt    peak x sqrt(warm-up steps / step); without a warm-up, as after one of one step
    wsd             warm-up, stable, decay: the peak, then linear to `final_fraction` over the last `decay_fraction` of the run

    `decay_fraction` changes wsd alone. A `cycle` above 1 goes with cosine and linear. In place of one that fits each run,
    `warmup_tokens` and `cycle_tokens` are a warm-up and a schedule of so many tokens for all runs, as in Kaplan et al. 2020; a
    longer run has a schedule as long as itself.
    """

    shape: str = choice("cosine", "linear", "constant", "inverse_sqrt", "wsd")
    warmup_tokens_per_parameter: float = number(1.0, at_least=0)
    max_warmup_fraction: float = number(0.1, at_least=0, at_most=1)
    final_fraction: float = number(0.1, at_least=0, at_most=1)
    cycle: float = number(1.0, at_least=1)
    decay_fraction: float = number(0.2, above=0, at_most=1)
    warmup_tokens: float | None = number(None, at_least=0)
    cycle_tokens: float | None = number(None, above=0)


@dataclass(kw_only=True)
class ObjectiveConfig:
    """What a run learns to predict: "causal", the next token, or "blank_infilling", spans that were cut out of the text as in
    GLM; the fields of `sweep.plan.run.ObjectiveSettings`, which only the latter uses."""

    kind: str = choice("causal", "blank_infilling")
    masked: float = number(0.15, above=0, below=1)
    mean_span: float = number(3.0, at_least=1)
    document: float = number(0.5, at_least=0, at_most=1)
    sentence: float = number(0.0, at_least=0, at_most=1)


@dataclass(kw_only=True)
class AxisConfig:
    """What a sweep varies beside N and D: each (N, D) of its grid is trained with every combination of these.

    Attributes:
        vary: values of fields: {schedule.cycle: [1, 1.5, 2]}. The first of each is the baseline's.
        variants: fields that belong together, by a name: {adamw: {}, adam: {optimizer.kind: adam}}. The first is the baseline.
        seeds: each combination is trained with these, in place of `seed`.
    """

    vary: dict[str, list[Any]] | None = None
    variants: dict[str, dict[str, Any] | None] | None = None
    seeds: list[int] | None = None


def _expectations(value: dict[str, str]) -> str | None:
    return None if set(value.values()) <= {"worse", "better", "same"} else "has a value that is none of worse, better, same"


@dataclass(kw_only=True)
class AboutConfig:
    """What an experiment is about.

    Attributes:
        paper: the figure of the paper that it repeats.
        found: what was found there.
        expected: what to expect here.
        labels: what the paper says of a label beside the baseline: "worse", "better" or "same".
        exponents: that the exponent a is the same for all labels, in the paper's numbers.
        analysis: of its runs beside the comparison, one of `sweep.compare.ANALYSES`.
    """

    paper: str = ""
    found: str = ""
    expected: str = ""
    labels: dict[str, str] | None = checked(_expectations, default=None)
    exponents: str | None = None
    analysis: str | None = None


@dataclass(kw_only=True)
class TaskConfig:
    """A multiple-choice task; see `sweep.use.items`. One of `kind` and `path` says where its items are from.

    Attributes:
        kind: "continuation": which of `choices` texts goes on with the one before it? Made from the corpus's held-out part.
        context, continuation: lengths of the text before and of each choice, in tokens. Without a context there is nothing to
            know, so that 0 makes a task of pure chance.
        items: at most so many; a short held-out part has fewer pieces.
        choices: of each item, the true one included.
        seed: of the choice of pieces, and of what is beside what.
        path: of JSON lines {"context": …, "choices": […, …], "answer": 0}; all of them are asked.
    """

    kind: str | None = choice("continuation", default=None)
    context: int = number(32, at_least=0)
    continuation: int = number(4, at_least=1)
    items: int = number(2000, at_least=1)
    choices: int = number(4, at_least=2)
    seed: int = number(0, at_least=0)
    path: str | None = None


@dataclass(kw_only=True)
class EvaluationConfig:
    """`points` held-out losses per run, the last at the horizon, with `noise_scale` each beside the gradient noise scale (see
    `sweep.train.noise_scale`); `isosweep evaluate` measures finished runs on the first `tokens` tokens of each of the named
    `sets`, and scores them on the named `tasks`.
    `keep` checkpoints of each run are kept for it, so that it measures these too. They change no result and no run_id. The last
    is the horizon's, each of the others at half the step of the next; closer, and evenly in log steps, where a run has too few
    steps for that. So runs whose horizons differ by a factor of two meet at equal tokens.
    """

    points: int = number(1, at_least=1)
    keep: int = number(0, at_least=0)
    noise_scale: bool = False
    sets: dict[str, SourceConfig] | None = None
    tokens: int = number(131_072, at_least=1)
    tasks: dict[str, TaskConfig] | None = None


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
class AroundGrid:
    """At each of `budgets`, in FLOPs of C = 6 N D, the N that are `factors` times the one whose D/N is expected to be optimal
    (`tokens_per_parameter`), and D = C / 6N: sizes off the optimum at equal compute."""

    budgets: list[float] = nonempty()
    factors: list[float] = nonempty()
    tokens_per_parameter: float = number(above=0)


@dataclass(kw_only=True)
class Shape:
    """A whole shape; the vocabulary and the context are the data's, all else `model`'s. Keys and values have as many heads as
    queries."""

    d_model: int = number(at_least=2)
    n_layers: int = number(at_least=1)
    n_heads: int = number(at_least=1)
    d_ff: int = number(at_least=1)


@dataclass(kw_only=True)
class GridRun:
    """One (N, D), or one shape and D."""

    N: float | None = None
    shape: Shape | None = None
    D: float


@dataclass(kw_only=True)
class GridConfig:
    """The runs of a sweep: the union of the parts that are given. A larger copy has the `scale` k: widths of whole shapes times
    k, N, D and other fields in tokens times k^2 (`optimizer.batch_tokens` times k), budgets times k^4: D/N, and what one run is
    to another, stay."""

    isoflop: IsoflopGrid | None = None
    around: AroundGrid | None = None
    horizons: HorizonsGrid | None = None
    runs: list[GridRun] | None = nonempty(None)
    scale: int = number(1, at_least=1)
