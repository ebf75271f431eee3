"""The runs of a sweep: each (N, D) of the grid, with its hyperparameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models import ModelConfig, SizeLadder, count_parameters, flops_per_token
from sweep.config import PowerRule, SweepConfig
from sweep.config.training import ScheduleConfig
from sweep.errors import InputError
from sweep.plan.axis import label_of, variations
from sweep.plan.code import adopt
from sweep.plan.device import resolve_device
from sweep.plan.run import (
    BLANK_INFILLING,
    CAUSAL,
    SPECIAL_IDS,
    ObjectiveSettings,
    OptimizerSettings,
    RunConfig,
    ScheduleSettings,
    check_unique_tokens,
    count_sequences,
)
from sweep.plan.targets import targets_of

MIN_BLANKS = 8  # tokens of an example: some text, a blank, and what was in it
CYCLES = ("cosine", "linear")  # shapes that a longer cycle stretches


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run and its place in the sweep.

    Attributes:
        run: what is trained.
        budget: the planned C that groups it into an IsoFLOP profile, in FLOPs; None outside the IsoFLOP part.
        cell: the place of its (N, D) in the grid, which it shares with the runs of other labels and seeds.
        labels: what distinguishes it from other runs of its cell but for the seed, by name; see `sweep.plan.axis`.
        engine: the engine expected to train it (`sweep.plan.cost.choose_engine`); empty before the plan is made.
        expected_s: expected training time in seconds; None if unknown.
    """

    run: RunConfig
    budget: float | None
    cell: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""
    expected_s: float | None = None

    @property
    def label(self) -> str:
        """Its labels as one text; empty without an axis."""
        return label_of(self.labels)


def shown_labels(planned: Sequence[PlannedRun]) -> list[str]:
    """What distinguishes each run from the others of its (N, D), in a table: its label, and its seed where they differ. Without
    an axis the texts are empty."""
    seeds = len({each.run.seed for each in planned}) > 1
    return [", ".join(filter(None, (each.label, f"seed {each.run.seed}" if seeds else ""))) for each in planned]


class TooLongError(InputError):
    """A horizon is longer than the data."""


def expand(config: SweepConfig, *, corpus: str, vocab_size: int, training_tokens: float) -> list[PlannedRun]:
    """Every run of the sweep, largest FLOPs first, each once: the grid with every combination of the axis.

    Args:
        config: the sweep.
        corpus: fingerprint of its data.
        vocab_size: of its tokenizer.
        training_tokens: size of the training part, or an upper bound of it.

    Raises:
        InputError: if the grid is empty, a size does not exist, a horizon is shorter than one step or longer than the data;
            or if the axis is wrong (`sweep.plan.axis.variations`), or two of its labels name the same run.
    """
    data = config.data
    if data.validation_tokens < 2 * data.context_length:
        raise InputError(
            f"data.validation_tokens={data.validation_tokens:,} are not two sequences of data.context_length="
            f"{data.context_length:,}; raise the one or lower the other"
        )
    planned: dict[str, PlannedRun] = {}
    for variation in variations(config):
        varied, labels = variation.config, variation.labels
        targets = targets_of(varied.grid, ladder_of(varied, vocab_size))
        if not targets:
            several = "several as grid=[…], or grid=list"
            raise InputError(f"grid: there is no run in it; choose grid=isoflop, around or horizons, {several}")
        for cell, target in enumerate(targets):
            run = resolve(target.model, target.tokens, varied, corpus)
            _check_horizon(run, varied.data.max_epochs, training_tokens)
            earlier = planned.get(run.run_id)
            if earlier is not None and earlier.labels != labels:
                raise InputError(
                    f"axis: {label_of(earlier.labels)} and {label_of(labels)} are the same run (N = {run.N:,}, D = {run.D:,}); "
                    "leave one out, or give it another value"
                )
            # A run in two parts of the grid is trained once, and keeps its budget if one part gives it one.
            if earlier is None or earlier.budget is None:
                planned[run.run_id] = PlannedRun(run=run, budget=target.budget, cell=cell, labels=labels)
    return sorted(planned.values(), key=lambda p: -flops_per_token(p.run.model, "exact") * p.run.D)


def ladder_of(config: SweepConfig, vocab_size: int) -> SizeLadder:
    """The shapes that a sweep chooses from. Raises InputError if there are none of that kind, or as `sweep.plan.code.adopt`."""
    family = {**vars(config.model), "body": adopt(config.model.body)}
    if config.objective.kind == BLANK_INFILLING:
        if config.model.body != "transformer":
            raise InputError(f"objective.kind={BLANK_INFILLING} needs attention, and model.body={config.model.body} has none")
        vocab_size, family["position_ids"] = vocab_size + SPECIAL_IDS, 2
    try:
        return SizeLadder(vocab_size=vocab_size, context_length=config.data.context_length, **family)
    except ValueError as error:
        raise InputError(str(error)) from error


def resolve(model: ModelConfig, tokens: float, config: SweepConfig, corpus: str) -> RunConfig:
    """The run that trains `model` for about `tokens` tokens: rules become numbers, tokens become whole steps. Raises InputError
    if the tokens are fewer than half a step."""
    optimizer, schedule = config.optimizer, config.schedule
    counts, T = count_parameters(model), model.context_length
    N = counts.total
    # The rules use N without embeddings: at every size it follows the width, which determines the best rate.
    k = config.grid.scale
    batch_tokens = (optimizer.batch_tokens or 0) * k or _by_rule(
        "batch_rule", optimizer.batch_rule, counts.non_embedding, tokens
    )
    # A power of two gives neighbouring runs of a profile the same batch, and suits the kernels.
    batch_size = 2 ** max(0, round(math.log2(batch_tokens / T)))
    steps = round(tokens / (batch_size * T))
    if steps < 1:
        raise InputError(
            f"a horizon of {tokens:,.0f} tokens for the model of {N:,} parameters is shorter than one step of "
            f"{batch_size * T:,} tokens; raise the budget or lower optimizer.batch_tokens"
        )
    peak_lr = optimizer.lr_scale * (optimizer.peak_lr or _by_rule("lr_rule", optimizer.lr_rule, counts.non_embedding, tokens))
    warmup_tokens = (
        schedule.warmup_tokens_per_parameter * N if schedule.warmup_tokens is None else k**2 * schedule.warmup_tokens
    )
    warmup_steps = round(min(warmup_tokens / (batch_size * T), schedule.max_warmup_fraction * steps))
    return RunConfig(
        model=model,
        corpus=corpus,
        batch_size=batch_size,
        steps=steps,
        optimizer=OptimizerSettings(
            peak_lr=float(f"{peak_lr:.4g}"),
            **{name: getattr(optimizer, name) for name in ("kind", "beta1", "beta2", "eps", "weight_decay", "grad_clip")},
        ),
        schedule=_schedule(schedule, warmup_steps, steps, batch_size * T / k**2),
        seed=config.seed,
        precision=resolve_precision(config),
        evaluation_points=config.evaluation.points,
        unique_tokens=None if config.data.unique_tokens is None else int(k**2 * config.data.unique_tokens),
        noise_scale=config.evaluation.noise_scale,
        objective=_objective(config),
    )


def _objective(config: SweepConfig) -> ObjectiveSettings:
    """What the run predicts. Raises InputError if its levels are more than all sequences, or something else cannot go with
    it."""
    asked = config.objective
    if asked.kind == CAUSAL:
        return ObjectiveSettings()  # the other fields change nothing, and are no part of the identity
    if asked.document + asked.sentence > 1:
        raise InputError(
            f"objective.document={asked.document:g} and objective.sentence={asked.sentence:g} are more than all sequences; "
            "lower one of them"
        )
    if config.data.context_length < MIN_BLANKS:
        raise InputError(
            f"data.context_length={config.data.context_length} is too short for blanks; raise it to at least {MIN_BLANKS}"
        )
    if config.evaluation.noise_scale:
        raise InputError(f"evaluation.noise_scale=true is measured for objective.kind={CAUSAL} only; leave it out")
    return ObjectiveSettings(**vars(asked))


def _schedule(config: ScheduleConfig, warmup_steps: int, steps: int, batch_tokens: float) -> ScheduleSettings:
    """A run's schedule; `batch_tokens` is over what multiplies `cycle_tokens`. Raises InputError if a cycle longer than the run
    has no meaning in its shape."""
    cycle = config.cycle
    if config.cycle_tokens is not None:
        if cycle > 1:
            raise InputError(
                f"schedule.cycle={cycle:g} and schedule.cycle_tokens={config.cycle_tokens:g} are both given; drop one"
            )
        decaying = max(steps - 1 - warmup_steps, 1)
        cycle = float(f"{max(1.0, (config.cycle_tokens / batch_tokens - 1 - warmup_steps) / decaying):.6g}")
    if cycle > 1 and config.shape not in CYCLES:
        raise InputError(
            f"schedule.cycle={cycle:g} has no meaning for schedule.shape={config.shape}; set it to 1, or choose "
            f"schedule.shape={' or '.join(CYCLES)}"
        )
    decays_late = {"decay_fraction": config.decay_fraction} if config.shape == "wsd" else {}
    return ScheduleSettings(
        warmup_steps=warmup_steps,
        final_fraction=config.final_fraction,
        cycle=cycle,
        shape=config.shape,
        **decays_late,  # which changes no other shape, and is no part of their identity
    )


def _by_rule(name: str, rule: PowerRule, N: float, D: float) -> float:
    """The value of a rule. Raises InputError if it is not a positive number."""
    try:
        value = rule(N, D)
    except OverflowError:
        value = math.inf
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"optimizer.{name} gives {value:g} for N = {N:,}, D = {D:,.0f}; fix its exponents and limits")
    return value


def resolve_precision(config: SweepConfig) -> str:
    """ "auto" means bf16 where the sweep runs on CUDA, fp32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if resolve_device(config.device) == "cuda" else "fp32"


def _check_horizon(run: RunConfig, max_epochs: float, training_tokens: float) -> None:
    """Raises TooLongError if the horizon repeats the data more often than `max_epochs`. With `unique_tokens` the repetition is
    meant, and `max_epochs` does not bound it; InputError is raised if these are too few or too many."""
    T, known = run.model.context_length, math.isfinite(training_tokens)  # it is not before the corpus is made
    tokens = count_sequences(int(training_tokens), T) * T if known else math.inf
    if run.unique_tokens is not None:
        check_unique_tokens(run.unique_tokens, run.batch_tokens, tokens)
    elif run.D > (available := tokens * max_epochs):
        raise TooLongError(
            f"a horizon of {run.D:,} tokens (the model of {run.N:,} parameters) is longer than the data, {available:,.0f} "
            f"tokens in data.max_epochs={max_epochs:g}; shorten the horizon, bring more text, or raise data.max_epochs"
        )
