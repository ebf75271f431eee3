"""The compute-optimal run at a budget, and the loss that the fit predicts for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from models import count_parameters, flops_per_token
from sweep.config import GridConfig, GridRun, SweepConfig
from sweep.errors import InputError, LawError
from sweep.plan.grid import PlannedRun, expand, ladder_of
from sweep.plan.written import CorpusFacts
from sweep.words import counted

if TYPE_CHECKING:
    import numpy as np

    from sweep.fit import Allocation, Curve, Estimate, RunTable

KAPLAN = "kaplan"  # the --approach that is none of the registry's
BEYOND = 1.1  # times the largest C fitted, or one over that times the smallest: a budget there is an extrapolation


@dataclass(frozen=True, kw_only=True)
class OptimalRun:
    """The compute-optimal run at a budget, before it is trained.

    Attributes:
        budget: FLOPs, in the sweep's convention `fit.flops`.
        optimum: N, D and the loss by the chosen approach.
        planned: the nearest model of the ladder, trained on the tokens that the budget buys for it.
        predicted: Approach 3's loss with the prediction interval of a single run, or the reason why there is none.
        fitted: smallest and largest C of the runs that were fitted.
        known: whether it is one of them.
    """

    budget: float
    optimum: "Allocation"
    planned: PlannedRun
    predicted: "Estimate | str"
    fitted: tuple[float, float]
    known: bool

    def summary(self, level: float) -> str:
        """A few lines of text."""
        run, shape = self.planned.run, self.planned.run.model
        lines = [
            f"the optimum     {self.optimum.line()}",
            f"the run         {run.run_id}: N = {run.N:,} (width {shape.d_model}, {counted(shape.n_layers, 'layer')}), "
            f"D = {run.D:,}, {run.D / run.N:.3g} tokens per parameter, 6ND = {6 * run.N * run.D:.3g}; {run.steps:,} steps of "
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
        """One line that compares the measured loss with the prediction."""
        if isinstance(self.predicted, str) or self.predicted.low is None:
            return f"measured loss   {measured:.4f}; there is no interval to compare it with"
        where = "inside" if self.holds(measured) else "OUTSIDE"
        return (
            f"measured loss   {measured:.4f}, {measured - self.predicted.value:+z.4f} from the prediction: {where} its "
            f"{level:.0%} interval, {self.predicted.low:.4f} to {self.predicted.high:.4f}"
        )

    def holds(self, measured: float) -> bool | None:
        """Whether the measured loss is inside the prediction's interval; None if there is none."""
        return None if isinstance(self.predicted, str) else self.predicted.contains(measured)

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


def optimal_run(
    config: SweepConfig,
    corpus: CorpusFacts,
    budget: float,
    approach: str,
    runs: "RunTable",
    curves: "Sequence[Curve]",
    conventions: "Mapping[str, RunTable]",
) -> OptimalRun:
    """The run that `approach`, fitted to `runs` and `curves`, asks for at `budget`, and its predicted loss.

    It uses the sweep's ladder, data, rules and schedule. `budget` is in FLOPs by the convention `config.fit.flops`, and
    `approach` is one of "envelope", "isoflop", "parametric", and "kaplan": Approach 3 to the same runs with N and C as Kaplan
    et al. 2020 counted them, without embeddings, from `conventions`, the runs under every convention that the table has.

    Raises:
        InputError: if the approach cannot be fitted, or no model of the ladder is near its N.
    """
    from sweep.fit import Laws, Options, allocate, predict_runs

    laws = Laws(runs=runs, curves=curves, options=Options.of(config.fit))
    surface = laws["parametric"]
    if approach == KAPLAN:
        optimum = _kaplans(budget, config, conventions)
    else:
        law = laws[approach]
        if not law.fitted:
            raise InputError(f"--approach {approach} is {law.summary()}; add runs, or take another --approach")
        (optimum,) = allocate(law, [budget])
    planned = _plan_one(config, corpus, optimum)
    predicted: Estimate | str = f"Approach 3 is {surface.summary()}"
    if surface.fitted:
        N = count_parameters(planned.run.model).by_convention(config.fit.parameters)
        (predicted,) = predict_runs(surface, runs, [N], [planned.run.D], seed=config.fit.seed)
    return OptimalRun(
        budget=budget,
        optimum=optimum,
        planned=planned,
        predicted=predicted,
        fitted=(float(runs.C.min()), float(runs.C.max())),
        known=planned.run.run_id in runs.run_id,
    )


def _kaplans(budget: float, config: SweepConfig, conventions: "Mapping[str, RunTable]") -> "Allocation":
    """What Kaplan et al.'s counting asks for at `budget`, in all parameters. Raises InputError if the table has no such
    columns, the sweep counts otherwise than C = 6 N D, or the law cannot be fitted."""
    from sweep.fit import Allocation, Estimate, Options, fit_parametric
    from sweep.fit.kaplan.counting import Counting
    from sweep.tables.conventions import ALL_COUNTING, KAPLAN_COUNTING

    if (config.fit.parameters, config.fit.flops) != ("total", "6N"):
        raise InputError(f"--approach {KAPLAN} takes --budget as C = 6ND; leave fit.parameters=total and fit.flops=6N")
    if KAPLAN_COUNTING not in conventions or ALL_COUNTING not in conventions:
        raise InputError(f"--approach {KAPLAN} needs the columns N, C, N_non_embedding and C_kaplan in the table")
    counted_so, all_of = conventions[KAPLAN_COUNTING], conventions[ALL_COUNTING]
    options = Options.of(config.fit).surface
    try:
        law = fit_parametric(counted_so, **options)
    except LawError as error:
        raise InputError(f"--approach {KAPLAN} is not fitted: {error}; add runs, or take another --approach") from error
    counting = Counting.of(all_of.N, counted_so.N)
    N, drawn = counting.answers(law.surface, budget)[0], counting.answers(law.replicates, budget)

    def estimate(value: float, resamples: "np.ndarray") -> "Estimate":
        return Estimate.from_resamples(value, resamples, law.level)

    return Allocation(
        approach=f"{KAPLAN}: N and C of the law without embeddings, a = {law.a}",
        C=budget,
        N=estimate(N, drawn),
        D=estimate(budget / (6 * N), budget / (6 * drawn)),
        tokens_per_parameter=estimate(budget / (6 * N**2), budget / (6 * drawn**2)),
        loss=None,
    )


def _plan_one(config: SweepConfig, corpus: CorpusFacts, optimum: "Allocation") -> PlannedRun:
    """The model of the ladder nearest to N_opt, with the tokens that the budget buys for it."""
    ladder = ladder_of(config, corpus.vocab_size)
    try:
        shape = ladder.nearest(optimum.N.value, config.fit.parameters)
    except ValueError as error:
        raise InputError(f"--budget {optimum.C:g}: {error}") from error
    D = optimum.C / flops_per_token(shape, config.fit.flops)
    alone = replace(config, grid=GridConfig(runs=[GridRun(N=count_parameters(shape).total, D=D)]))
    (planned,) = expand(alone, corpus=corpus.fingerprint, vocab_size=corpus.vocab_size, training_tokens=corpus.training_tokens)
    return planned
