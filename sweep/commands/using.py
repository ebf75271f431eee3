"""Commands that use the answer: train-optimal, export."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.commands import DONE
from sweep.commands.laws import read_tables, surface_options, writing
from sweep.commands.shared import composed, expand_on, ladder_of, plan_runs
from sweep.commands.training import launch_sweep
from sweep.config import GridConfig, NamedRun, SweepConfig
from sweep.errors import InputError
from sweep.files import write_json
from sweep.plan.grid import PlannedRun
from sweep.store import Store
from sweep.store.states import DONE as TRAINED

if TYPE_CHECKING:
    from sweep.fit import Allocation, Curve, Estimate, RunTable
    from sweep.fit.frontier import Approach

APPROACHES, DEFAULT_APPROACH = ("envelope", "isoflop", "parametric"), "parametric"
BEYOND = 1.1  # times the largest C fitted, or one over that times the smallest: a budget there is an extrapolation


@dataclass(frozen=True, kw_only=True)
class OptimalRun:
    """The run that a fit asks for at a budget, before it is trained.

    Attributes:
        budget: FLOPs, in the sweep's convention `fit.flops`.
        optimum: what the approach says.
        planned: the nearest model of the ladder, on as many tokens as the budget buys for it.
        predicted: the loss that Approach 3 expects of it, with the prediction interval of a single run; else why there is none.
        fitted: smallest and largest C of the runs that were fitted.
        known: whether it was one of them.
    """

    budget: float
    optimum: "Allocation"
    planned: PlannedRun
    predicted: "Estimate | str"
    fitted: tuple[float, float]
    known: bool

    def summary(self, level: float) -> str:
        """For a reader."""
        run, shape = self.planned.run, self.planned.run.model
        lines = [
            f"the optimum     {self.optimum.line()}",
            f"the run         {run.run_id}: N = {run.N:,} (width {shape.d_model}, {shape.n_layers} layers), D = {run.D:,}, "
            f"{run.D / run.N:.3g} tokens per parameter, 6ND = {6 * run.N * run.D:.3g}; {run.steps:,} steps of "
            f"{run.batch_tokens:,} tokens, peak rate {run.optimizer.peak_lr:.3g}",
        ]
        if isinstance(self.predicted, str):
            lines.append(f"predicted loss  none: {self.predicted}")
        else:
            lines.append(f"predicted loss  {self.predicted}, {level:.0%} of single runs")
        low, high = self.fitted
        if self.budget > BEYOND * high:
            lines.append(
                f"extrapolation   by a factor of {self.budget / high:.3g}: the largest C that was fitted is {high:.3g}"
            )
        if self.budget < low / BEYOND:
            lines.append(f"extrapolation   by a factor of {low / self.budget:.3g} down: the smallest C fitted is {low:.3g}")
        if self.known:
            lines.append("no new run      it is one of those that were fitted: its loss does not test the law")
        return "\n".join(lines)

    def verdict(self, measured: float, level: float) -> str:
        """The measured loss against the prediction."""
        if isinstance(self.predicted, str) or self.predicted.low is None:
            return f"measured loss   {measured:.4f}; there is no interval to compare it with"
        where = "inside" if self.holds(measured) else "OUTSIDE"
        return (
            f"measured loss   {measured:.4f}, {measured - self.predicted.value:+.4f} from the prediction: {where} its "
            f"{level:.0%} interval, {self.predicted.low:.4f} to {self.predicted.high:.4f}"
        )

    def holds(self, measured: float) -> bool | None:
        """Whether the measured loss is inside the prediction's interval; None if there is none."""
        if isinstance(self.predicted, str) or self.predicted.low is None or self.predicted.high is None:
            return None
        return self.predicted.low <= measured <= self.predicted.high

    def to_dict(self, measured: float | None) -> dict[str, Any]:
        """Plain values."""
        run, none = self.planned.run, isinstance(self.predicted, str)
        return {
            "budget": self.budget,
            "optimum": self.optimum.to_dict(),
            "run": {"run_id": run.run_id, "N": run.N, "D": run.D, "C": 6 * run.N * run.D},
            "predicted": {"reason": self.predicted} if none else self.predicted.to_dict(),  # type: ignore[union-attr]
            "fitted_C": list(self.fitted),
            "was_fitted": self.known,
            "measured": measured,
            "inside": None if measured is None else self.holds(measured),
        }


def train_optimal(options: Namespace) -> int:
    """Compose the compute-optimal run at `budget`, print it with its predicted loss, and with `yes` train it and compare."""
    from sweep.follow.status import duration
    from sweep.plan.device import resolve_device
    from sweep.store.benchmarks import speed_of_sweep
    from sweep.store.collect import collect

    config, budget = composed(options), options.budget
    if not budget > 0:
        raise InputError(f"--budget {budget:g} is out of range; it must be above 0")
    runs, curves, _ = read_tables(config)
    swept, recipe = plan_runs(config)
    optimum, surface = _fit(config, options, runs, curves)
    alone = _sweep_of_one(config, optimum)
    (planned,) = expand_on(alone, recipe)
    chosen = OptimalRun(
        budget=budget,
        optimum=optimum,
        planned=planned,
        predicted=surface if isinstance(surface, str) else _predict(config, surface, runs, planned),
        fitted=(float(runs.C.min()), float(runs.C.max())),
        known=planned.run.run_id in runs.run_id,
    )
    print(chosen.summary(config.fit.level))
    store, device = Store(Path(config.store)), resolve_device(config.device)
    speed = speed_of_sweep((p.run for p in swept), store, config)
    record = Path(config.out) / f"optimal-{budget:.4g}-{options.approach}.json"

    def write(measured: float | None) -> None:
        with writing(record.parent):
            write_json(record, chosen.to_dict(measured))
        print(f"wrote {record}")

    if not options.yes:
        print(f"expected time   {duration(speed.seconds(planned.run))} on {device}; --yes trains it and compares")
        write(None)
        return DONE
    code = launch_sweep(alone)
    if store.run(planned.run.run_id).status()["state"] != TRAINED:
        print("the same command again compares its loss with the prediction when it is done")
        write(None)
        return code
    (row,) = collect([planned], store, config.fit)[0].to_dict("records")
    measured = float(row["train_loss" if config.fit.loss == "train" else "loss"])
    print(chosen.verdict(measured, config.fit.level))
    write(measured)
    return code


def _fit(config: SweepConfig, asked: Namespace, runs: "RunTable", curves: "Sequence[Curve]") -> tuple["Allocation", Any]:
    """What the chosen approach says at the budget, and Approach 3's fit, which alone predicts any run's loss, or its reason.

    Raises:
        InputError: if the chosen approach cannot be fitted.
    """
    from sweep.fit import LawError, allocate, fit_envelope, fit_isoflop, fit_parametric

    options = config.fit
    intervals: dict[str, Any] = {"resamples": options.resamples, "level": options.level, "seed": options.seed}
    surface: Any
    try:
        surface = fit_parametric(runs, **surface_options(options), **intervals)
    except LawError as error:
        surface = error
    try:
        law: Approach
        match asked.approach:
            case "parametric" if isinstance(surface, LawError):
                raise surface
            case "parametric":
                law = surface
            case "isoflop":
                law = fit_isoflop(runs, seed_noise=options.seed_noise, **intervals)
            case _:
                law = fit_envelope(curves, method=options.envelope, points=options.envelope_points, **intervals)
    except LawError as error:
        raise InputError(f"--approach {asked.approach} is {error.summary()}; add runs, or take another --approach") from error
    return allocate(law, [asked.budget])[0], f"Approach 3 is {surface.summary()}" if isinstance(surface, LawError) else surface


def _sweep_of_one(config: SweepConfig, optimum: "Allocation") -> SweepConfig:
    """The sweep with one run for its grid: the model of the ladder nearest to N_opt, on the tokens that the budget buys."""
    from models import count_parameters, flops_per_token

    try:
        shape = ladder_of(config).nearest(optimum.N.value, config.fit.parameters)
    except ValueError as error:
        raise InputError(f"--budget {optimum.C:g}: {error}") from error
    D = optimum.C / flops_per_token(shape, config.fit.flops)
    return replace(config, grid=GridConfig(runs=[NamedRun(N=count_parameters(shape).total, D=D)]))


def _predict(config: SweepConfig, surface: Any, runs: "RunTable", planned: PlannedRun) -> "Estimate":
    from models import count_parameters
    from sweep.fit import predict_runs

    N = count_parameters(planned.run.model).by_convention(config.fit.parameters)
    return predict_runs(surface, runs, [N], [planned.run.D], seed=config.fit.seed)[0]


def export(options: Namespace) -> int:
    """Write a finished run as a Hugging Face folder."""
    from sweep.use.export import export as write

    config = composed(options)
    if Path(config.out) == Path(config.store) / "sweeps" / config.name:  # the default: where a sweep's figures go
        raise InputError("out=DIR says where to: a folder that does not exist yet, or is empty")
    print(f"wrote {write(Store(Path(config.store)), options.run_id, Path(config.out))}")
    return DONE
