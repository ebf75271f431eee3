"""The runs of a sweep: each (N, D) of the grid, with its hyperparameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from models import ModelConfig, SizeLadder, count_parameters, flops_per_token
from sweep.config import GridConfig, IsoflopGrid, PowerRule, SweepConfig
from sweep.errors import InputError
from sweep.plan.device import resolve_device
from sweep.plan.run import OptimizerSettings, RunConfig, ScheduleSettings, count_sequences

MAX_REMARKS = 5


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run and its place in the sweep.

    Attributes:
        run: what is trained.
        budget: the planned C that groups it into an IsoFLOP profile, in FLOPs; None outside the IsoFLOP part.
        labels: what distinguishes it from other runs of the same N and D, by name.
        engine: the engine expected to train it (`sweep.plan.cost.choose_engine`); empty before the plan is made.
        expected_s: expected training time in seconds; None if unknown.
    """

    run: RunConfig
    budget: float | None
    labels: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""
    expected_s: float | None = None


class TooLongError(InputError):
    """A horizon is longer than the data."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A shape and the tokens it should see, before rounding to steps."""

    model: ModelConfig
    tokens: float
    budget: float | None = None


def expand(config: SweepConfig, *, corpus: str, vocab_size: int, training_tokens: float) -> list[PlannedRun]:
    """Every run of the sweep, largest FLOPs first, each once.

    Args:
        config: the sweep.
        corpus: fingerprint of its data.
        vocab_size: of its tokenizer.
        training_tokens: size of the training part, or an upper bound of it.

    Raises:
        InputError: if the grid is empty, a size does not exist, a horizon is shorter than one step or longer than the data.
    """
    data = config.data
    if data.validation_tokens < 2 * data.context_length:
        raise InputError(
            f"data.validation_tokens={data.validation_tokens:,} are not two sequences of data.context_length="
            f"{data.context_length:,}; raise the one or lower the other"
        )
    targets = targets_of(config.grid, ladder_of(config, vocab_size))
    if not targets:
        raise InputError("grid: there is no run in it; choose grid=isoflop, grid=horizons, both as grid=[…], or grid=list")
    planned: dict[str, PlannedRun] = {}
    for target in targets:
        run = resolve(target.model, target.tokens, config, corpus)
        _check_horizon(run, data.max_epochs, training_tokens)
        # A run in two parts of the grid is trained once, and keeps its budget if one part gives it one.
        if run.run_id not in planned or planned[run.run_id].budget is None:
            planned[run.run_id] = PlannedRun(run=run, budget=target.budget)
    return sorted(planned.values(), key=lambda p: -flops_per_token(p.run.model, "exact") * p.run.D)


def ladder_of(config: SweepConfig, vocab_size: int) -> SizeLadder:
    """The shapes that a sweep chooses from. Raises InputError if there are none of that kind."""
    try:
        return SizeLadder(vocab_size=vocab_size, context_length=config.data.context_length, **vars(config.model))
    except ValueError as error:
        raise InputError(str(error)) from error


def remarks_on_sizes(grid: GridConfig, ladder: SizeLadder) -> list[str]:
    """A sentence on each size asked for by its number that no shape of the ladder is near. Raises InputError as `expand`."""
    asked = {
        "grid.horizons.parameters": grid.horizons.parameters if grid.horizons else [],
        "grid.runs": [named.N for named in grid.runs or []],
    }
    found = [f"{field}: {text}" for field, sizes in asked.items() for N in dict.fromkeys(sizes) if (text := ladder.remark(N))]
    return found if len(found) <= MAX_REMARKS else [*found[:MAX_REMARKS], f"and {len(found) - MAX_REMARKS} more such sizes"]


def targets_of(grid: GridConfig, ladder: SizeLadder) -> list[Target]:
    """The (shape, tokens) pairs of all parts of a grid."""
    targets = []
    if grid.isoflop:
        for budget in grid.isoflop.budgets:
            _require_positive("grid.isoflop.budgets", budget)
            targets += [
                Target(model=shape, tokens=budget / flops_per_token(shape, grid.isoflop.flops), budget=budget)
                for shape in _sizes_around_optimum(grid.isoflop, budget, ladder)
            ]
    if grid.horizons:
        for N in grid.horizons.parameters:
            shape = _nearest(ladder, N, "grid.horizons.parameters")
            for ratio in grid.horizons.tokens_per_parameter:
                _require_positive("grid.horizons.tokens_per_parameter", ratio)
                targets.append(Target(model=shape, tokens=ratio * count_parameters(shape).total))
    for named in grid.runs or []:
        _require_positive("grid.runs: D", named.D)
        targets.append(Target(model=_nearest(ladder, named.N, "grid.runs: N"), tokens=named.D))
    return targets


def _sizes_around_optimum(grid: IsoflopGrid, budget: float, ladder: SizeLadder) -> list[ModelConfig]:
    """`grid.sizes` different shapes evenly spread in log N around the expected optimum of `budget`."""
    centre = math.sqrt(budget / 6 / grid.tokens_per_parameter)  # C = 6 N D and D = tokens_per_parameter · N
    free = list(ladder.sized())
    if len(free) < grid.sizes:
        raise InputError(f"grid.isoflop.sizes={grid.sizes}: the ladder has only {len(free)} shapes")
    chosen = []
    for i in range(grid.sizes):
        place = i / (grid.sizes - 1) - 0.5 if grid.sizes > 1 else 0.0
        N = centre * grid.span**place
        _nearest(ladder, N, f"grid.isoflop at budget {budget:g}")
        best = min(free, key=lambda sized: abs(math.log(sized[0] / N)))
        free.remove(best)
        chosen.append(best[1])
    return chosen


def resolve(model: ModelConfig, tokens: float, config: SweepConfig, corpus: str) -> RunConfig:
    """The run that trains `model` for about `tokens` tokens: rules become numbers, tokens become whole steps. Raises InputError
    if the tokens are fewer than half a step."""
    optimizer, schedule = config.optimizer, config.schedule
    counts, T = count_parameters(model), model.context_length
    N = counts.total
    # The rules use N without embeddings: at every size it follows the width, which determines the best rate.
    batch_tokens = optimizer.batch_tokens or _by_rule("batch_rule", optimizer.batch_rule, counts.non_embedding, tokens)
    # A power of two gives neighbouring runs of a profile the same batch, and suits the kernels.
    batch_size = 2 ** max(0, round(math.log2(batch_tokens / T)))
    steps = round(tokens / (batch_size * T))
    if steps < 1:
        raise InputError(
            f"a horizon of {tokens:,.0f} tokens for the model of {N:,} parameters is shorter than one step of "
            f"{batch_size * T:,} tokens; raise the budget or lower optimizer.batch_tokens"
        )
    peak_lr = optimizer.lr_scale * (optimizer.peak_lr or _by_rule("lr_rule", optimizer.lr_rule, counts.non_embedding, tokens))
    warmup = schedule.warmup_tokens_per_parameter * N / (batch_size * T)
    return RunConfig(
        model=model,
        corpus=corpus,
        batch_size=batch_size,
        steps=steps,
        optimizer=OptimizerSettings(
            peak_lr=float(f"{peak_lr:.4g}"),
            **{name: getattr(optimizer, name) for name in ("beta1", "beta2", "eps", "weight_decay", "grad_clip")},
        ),
        schedule=ScheduleSettings(
            warmup_steps=round(min(warmup, schedule.max_warmup_fraction * steps)),
            final_fraction=schedule.final_fraction,
            cycle=schedule.cycle,
        ),
        seed=config.seed,
        precision=resolve_precision(config),
        evaluation_points=config.evaluation.points,
        noise_scale=config.evaluation.noise_scale,
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
    if math.isinf(training_tokens):  # not known before the corpus is made
        return
    available = count_sequences(int(training_tokens), run.model.context_length) * run.model.context_length * max_epochs
    if run.D > available:
        raise TooLongError(
            f"a horizon of {run.D:,} tokens (the model of {run.N:,} parameters) is longer than the data, {available:,.0f} "
            f"tokens in data.max_epochs={max_epochs:g}; shorten the horizon, bring more text, or raise data.max_epochs"
        )


def _nearest(ladder: SizeLadder, N: float, field: str) -> ModelConfig:
    try:
        return ladder.nearest(N)
    except ValueError as error:
        raise InputError(f"{field}: {error}") from error


def _require_positive(field: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{field}={value} is out of range; it must be a positive number")
