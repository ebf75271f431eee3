"""What a grid asks for: shapes, each with the tokens it should see, before rules and rounding make runs of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models import ModelConfig, SizeLadder, count_parameters, flops_per_token
from models.ladder import counted
from sweep.config import AroundGrid, GridConfig, GridRun, IsoflopGrid, Shape
from sweep.errors import InputError

MAX_REMARKS = 5


@dataclass(frozen=True, kw_only=True)
class Target:
    """A shape and the tokens it should see, before rounding to steps."""

    model: ModelConfig
    tokens: float
    budget: float | None = None


def targets_of(grid: GridConfig, ladder: SizeLadder) -> list[Target]:
    """The (shape, tokens) pairs of all parts of a grid. Raises InputError if one cannot be had."""
    grid = scaled(grid)
    targets = []
    if grid.isoflop:
        for budget in grid.isoflop.budgets:
            _require_positive("grid.isoflop.budgets", budget)
            targets += [
                Target(model=shape, tokens=budget / flops_per_token(shape, grid.isoflop.flops), budget=budget)
                for shape in _sizes_around_optimum(grid.isoflop, budget, ladder)
            ]
    if grid.around:
        for budget in grid.around.budgets:
            _require_positive("grid.around.budgets", budget)
            targets += [
                Target(model=shape, tokens=budget / flops_per_token(shape), budget=budget)
                for shape in _sizes_off_optimum(grid.around, budget, ladder)
            ]
    if grid.horizons:
        for N in grid.horizons.parameters:
            shape = _nearest(ladder, N, "grid.horizons.parameters")
            for ratio in grid.horizons.tokens_per_parameter:
                _require_positive("grid.horizons.tokens_per_parameter", ratio)
                targets.append(Target(model=shape, tokens=ratio * count_parameters(shape).total))
    for named in grid.runs or []:
        _require_positive("grid.runs: D", named.D)
        targets.append(Target(model=_shape_of(named, ladder), tokens=named.D))
    return targets


def scaled(grid: GridConfig) -> GridConfig:
    """The grid with its `scale` k multiplied out: widths times k, N and D times k^2, budgets times k^4."""
    k = grid.scale

    def times(power: int, values: Sequence[float]) -> list[float]:
        return [value * k**power for value in values]

    return GridConfig(
        isoflop=grid.isoflop and replace(grid.isoflop, budgets=times(4, grid.isoflop.budgets)),
        around=grid.around and replace(grid.around, budgets=times(4, grid.around.budgets)),
        horizons=grid.horizons and replace(grid.horizons, parameters=times(2, grid.horizons.parameters)),
        runs=grid.runs and [_scaled_run(run, k) for run in grid.runs],
    )


def _scaled_run(run: GridRun, k: int) -> GridRun:
    shape = run.shape and replace(run.shape, d_model=k * run.shape.d_model, d_ff=k * run.shape.d_ff)
    return GridRun(N=None if run.N is None else run.N * k**2, shape=shape, D=run.D * k**2)


def remarks_on_sizes(grid: GridConfig, ladder: SizeLadder) -> list[str]:
    """A sentence on each N asked for by its number that no shape of the ladder is near. Raises InputError as `targets_of`."""
    grid = scaled(grid)
    asked = {
        "grid.horizons.parameters": grid.horizons.parameters if grid.horizons else [],
        "grid.runs": [named.N for named in grid.runs or [] if named.N is not None],
    }
    found = [f"{field}: {text}" for field, sizes in asked.items() for N in dict.fromkeys(sizes) if (text := ladder.remark(N))]
    return found if len(found) <= MAX_REMARKS else [*found[:MAX_REMARKS], f"and {len(found) - MAX_REMARKS} more such sizes"]


def _expected_optimum(budget: float, tokens_per_parameter: float) -> float:
    """N of C = 6 N D at D = tokens_per_parameter · N."""
    return math.sqrt(budget / 6 / tokens_per_parameter)


def _sizes_around_optimum(grid: IsoflopGrid, budget: float, ladder: SizeLadder) -> list[ModelConfig]:
    """`grid.sizes` different shapes evenly spread in log N around the expected optimum of `budget`."""
    centre = _expected_optimum(budget, grid.tokens_per_parameter)
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


def _sizes_off_optimum(grid: AroundGrid, budget: float, ladder: SizeLadder) -> list[ModelConfig]:
    """The shapes nearest to each of `grid.factors` times the expected optimum of `budget`. Raises InputError if two factors
    have the same, because a comparison of the two would compare a run with itself."""
    centre, chosen = _expected_optimum(budget, grid.tokens_per_parameter), dict[ModelConfig, float]()
    for factor in grid.factors:
        _require_positive("grid.around.factors", factor)
        shape = _nearest(ladder, factor * centre, f"grid.around at {factor:g} times the optimum of budget {budget:g}")
        if shape in chosen:
            N, sizes = count_parameters(shape).total, [size for size, _ in ladder.sized()]
            others = sizes[max(0, sizes.index(N) - 1) : sizes.index(N) + 2]
            beside = " and ".join(f"{size:,} ({size / centre:.3g})" for size in others if size != N)
            raise InputError(
                f"grid.around.factors={chosen[shape]:g} and {factor:g} at budget {budget:g} both give N = {N:,}, "
                f"{N / centre:.3g} times the optimum; the neighbours on the ladder are {beside}: take other factors"
            )
        chosen[shape] = factor
    return list(chosen)


def _shape_of(named: GridRun, ladder: SizeLadder) -> ModelConfig:
    """The shape that is given, or the ladder's nearest to N."""
    if (named.N is None) == (named.shape is None):
        raise InputError("grid.runs: each run has either N or shape, and D: {N: 2e4, D: 1e6}")
    if named.N is not None:
        return _nearest(ladder, named.N, "grid.runs: N")
    assert named.shape is not None
    return _whole(named.shape, ladder)


def _whole(shape: Shape, ladder: SizeLadder) -> ModelConfig:
    """`shape` with the ladder's vocabulary, context and rest. Raises InputError if heads do not divide it evenly."""
    try:
        return counted(replace(ladder.shape(shape.d_model), **vars(shape), n_kv_heads=shape.n_heads))
    except ValueError as error:
        raise InputError(f"grid.runs: shape: {error}") from error


def _nearest(ladder: SizeLadder, N: float, field: str) -> ModelConfig:
    try:
        return ladder.nearest(N)
    except ValueError as error:
        raise InputError(f"{field}: {error}") from error


def _require_positive(field: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{field}={value} is out of range; it must be a positive number")
