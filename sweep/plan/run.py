"""A run: every value that changes its result, and the run_id that these values define."""

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

from models import ModelConfig, count_parameters
from sweep.errors import InputError
from sweep.files import content_hash

RESIDUAL_BF16, WEIGHTS_BF16 = "bf16_residual", "bf16_weights"
PRECISIONS = ("fp32", "bf16", RESIDUAL_BF16, WEIGHTS_BF16)
NOISE_SEQUENCES = 64  # whose gradients give a noise scale, one by one; those of a whole curve are averaged later
CAUSAL, BLANK_INFILLING = "causal", "blank_infilling"
SPECIAL_IDS = 3  # of blank infilling, beside the tokenizer's: MASK, START, END
FORMAT = 1  # part of every run's identity: raise it when the training code changes what a configuration means


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101), or "adam" with coupled decay, and a global-norm clip before; the decay
    touches matrices only."""

    peak_lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    grad_clip: float
    kind: str = field(default="adamw", metadata={"later": True})


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Warm-up, in steps, and what follows it; see `sweep.train.schedule.learning_rate`."""

    warmup_steps: int
    final_fraction: float
    cycle: float
    shape: str = field(default="cosine", metadata={"later": True})
    decay_fraction: float = field(default=0.2, metadata={"later": True})


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What is predicted: the next token ("causal"), or spans that were cut out ("blank_infilling"); see
    `sweep.data.infilling`.

    Attributes:
        masked: share of a text's tokens in spans, of the levels of tokens and sentences.
        mean_span: of the lengths of spans, of the level of tokens.
        document, sentence: shares of the sequences with one span of 50 to 100 % of the text, and with whole sentences; the
            others have spans of tokens.
    """

    kind: str = CAUSAL
    masked: float = 0.15
    mean_span: float = 3.0
    document: float = 0.0
    sentence: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that defines a run. Paths, device, launcher and micro-batch do not change the result and are not part of it.

    Attributes:
        model: the shape, the context length T included.
        corpus: fingerprint of the data.
        batch_size: sequences of T tokens per optimizer step.
        steps: optimizer steps; D = steps x batch_size x T.
        seed: of the weights and of the order of the data.
        precision: "fp32", "bf16" autocast over fp32 master weights, "bf16_residual": a residual stream in bf16 as well, or
            "bf16_weights": that, and weights, gradients and moments in bf16, without an fp32 copy.
        evaluation_points: validation losses per run.
        unique_tokens: train on only so many tokens of the corpus, repeated up to the horizon; None for all of it. See
            `sweep.data.batches.TrainingSequences`.
        noise_scale: measure the gradient noise scale at each of them; see `sweep.train.noise_scale`. It moves no weight, but
            curve.jsonl, which is a function of this configuration, has more in it.
        objective: what is predicted. The vocabulary and the positions of the model follow from it.
    """

    model: ModelConfig
    corpus: str
    batch_size: int
    steps: int
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    seed: int
    precision: str
    evaluation_points: int
    unique_tokens: int | None = field(default=None, metadata={"later": True})
    noise_scale: bool = field(default=False, metadata={"later": True})
    objective: ObjectiveSettings = field(default=ObjectiveSettings(), metadata={"later": True})

    @cached_property
    def run_id(self) -> str:
        """Hash of all fields: runs with the same result have the same run_id."""
        return content_hash({"format": FORMAT, **self.identity()})

    def identity(self) -> dict[str, Any]:
        """The fields that `run_id` is the hash of. One that was added after runs were published is left out while it has its
        default."""
        return _identity(self)

    @property
    def batch_tokens(self) -> int:
        """Tokens per optimizer step."""
        return self.batch_size * self.model.context_length

    @property
    def causal(self) -> bool:
        """Whether the run predicts the next token."""
        return self.objective.kind == CAUSAL

    @property
    def N(self) -> int:
        """All parameters."""
        return count_parameters(self.model).total

    @property
    def D(self) -> int:
        """Tokens seen by the end."""
        return self.steps * self.batch_tokens

    def to_dict(self) -> dict:
        """Plain values for config.yaml; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "RunConfig":
        """The inverse of `to_dict`. Raises InputError if a field is missing, unknown or impossible."""
        try:
            nested = {
                "model": ModelConfig(**values["model"]),
                "optimizer": OptimizerSettings(**values["optimizer"]),
                "schedule": ScheduleSettings(**values["schedule"]),
                "objective": ObjectiveSettings(**values.get("objective", {})),
            }
            return cls(**{**values, **nested})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a run configuration: {error}") from error


def _identity(config: Any) -> dict[str, Any]:
    """The fields of a dataclass, without those marked `metadata={"later": True}` that have their default: a field that is
    added after runs were published must not rename them."""
    values = {each.name: getattr(config, each.name) for each in fields(config)}
    later = {each.name for each in fields(config) if each.metadata.get("later") and values[each.name] == each.default}
    return {name: _identity(v) if is_dataclass(v) else v for name, v in values.items() if name not in later}


def count_sequences(tokens: int, context_length: int) -> int:
    """How many whole sequences `tokens` tokens hold. Raises InputError if there is not one."""
    sequences = (tokens - 1) // context_length
    if sequences < 1:
        raise InputError(
            f"data: {tokens:,} tokens do not fill one sequence of data.context_length={context_length:,}; "
            "shorten the context or bring more text"
        )
    return sequences


def check_unique_tokens(unique_tokens: int, batch_tokens: int, available: float) -> None:
    """Raises InputError if `unique_tokens` are fewer than one batch, which would then hold a sequence twice, or more than the
    `available` tokens, which may be infinite where their number is not known yet."""
    if unique_tokens < batch_tokens:
        raise InputError(
            f"data.unique_tokens={unique_tokens:,} are fewer than one batch of {batch_tokens:,} tokens, which would hold a "
            "sequence twice; raise it, or lower optimizer.batch_tokens"
        )
    if unique_tokens > available:
        raise InputError(
            f"data.unique_tokens={unique_tokens:,} are more than the {available:,.0f} tokens that there are; lower it, or "
            "bring more text"
        )
