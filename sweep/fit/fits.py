"""All laws on one table, each with its numbers or its reason for having none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sweep.errors import LawError
from sweep.fit.answers import Answers, Questions, answer
from sweep.fit.approaches.envelope import CurvesLike, EnvelopeFit, fit_envelope
from sweep.fit.approaches.isoflop import IsoflopFit, fit_isoflop
from sweep.fit.approaches.parametric import ParametricFit, fit_parametric
from sweep.fit.judge.conventions import ConventionRow, compare_conventions
from sweep.fit.judge.holdout import HoldOut, rolling_hold_out
from sweep.fit.judge.sensitivity import Variant, sensitivity
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.table import fit_kaplan
from sweep.tables.conventions import KAPLAN_COUNTING
from sweep.tables.curves import Curve, as_curves
from sweep.tables.table import RunsLike, RunTable, as_runs

Fit = TypeVar("Fit")


@dataclass(frozen=True, kw_only=True)
class Fits:
    """What a sweep says.

    Attributes:
        convention: which loss, N and C the fits used, by name.
        runs: the table; `runs.excluded` is what was left out.
        curves: the curves Approach 1 used.
        envelope, isoflop, parametric: Approaches 1, 2 and 3, or why one could not be fitted.
        answers: optimal runs at some budgets, and what else was asked.
        extrapolation: each budget predicted from the smaller ones; the last is the largest.
        sensitivity: a under other choices.
        conventions: a under other conventions and protocols, where the table has them.
        kaplan: Kaplan's laws by name, or why one could not be fitted; of N without embeddings where the table has that.
        level: of every interval.
    """

    convention: dict[str, str]
    runs: RunTable
    curves: Sequence[Curve]
    envelope: EnvelopeFit | LawError
    isoflop: IsoflopFit | LawError
    parametric: ParametricFit | LawError
    answers: Answers
    extrapolation: tuple[HoldOut, ...] | LawError
    sensitivity: tuple[Variant, ...]
    conventions: tuple[ConventionRow, ...]
    kaplan: dict[str, LawFit[Any] | LawError]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """What fits.json holds."""
        excluded = [{"run_id": run.run_id, "reason": run.reason} for run in self.runs.excluded]
        ahead = self.extrapolation
        return {
            "convention": self.convention,
            "level": self.level,
            "runs": {"used": len(self.runs), "excluded": excluded},
            "envelope": self.envelope.to_dict(),
            "isoflop": self.isoflop.to_dict(),
            "parametric": self.parametric.to_dict(),
            "answers": self.answers.to_dict(),
            "extrapolation": ahead.to_dict() if isinstance(ahead, LawError) else [held.to_dict() for held in ahead],
            "sensitivity": [variant.to_dict() for variant in self.sensitivity],
            "conventions": [row.to_dict() for row in self.conventions],
            "kaplan": {name: law.to_dict() for name, law in self.kaplan.items()},
        }

    def summary(self) -> str:
        """The same for a reader."""
        convention = ", ".join(f"{name} = {value}" for name, value in self.convention.items())
        lines = [
            f"{len(self.runs)} runs, {len(self.runs.excluded)} left out; {convention}",
            *(f"  left out: {run.run_id}, {run.reason}" for run in self.runs.excluded),
            f"N_opt = k C^a, D_opt = k' C^b; {self.level:.0%} intervals",
            "",
        ]
        for title, law in (
            ("Approach 1, envelope of the curves", self.envelope),
            ("Approach 2, IsoFLOP profiles", self.isoflop),
            ("Approach 3, parametric surface", self.parametric),
        ):
            lines.append(f"{title}\n  {law.summary()}" if isinstance(law, LawError) else law.summary())
        lines += ["", self.answers.summary(), "", "Extrapolation, held out"]
        ahead = self.extrapolation
        lines += [f"  {ahead.summary()}"] if isinstance(ahead, LawError) else [held.summary() for held in ahead]
        lines += ["", "a under other choices", *(f"  {variant.line()}" for variant in self.sensitivity)]
        if self.conventions:
            lines += ["", "a under other conventions", *(f"  {row.line()}" for row in self.conventions)]
        lines += ["", "Kaplan's laws"]
        for name, kaplan in self.kaplan.items():
            text = kaplan.summary().replace("\n", "\n  ")
            lines.append(f"  {name}: {text}")
        return "\n".join(lines)


def fit_all(
    runs: RunsLike,
    curves: CurvesLike = (),
    *,
    convention: dict[str, str] | None = None,
    conventions: Mapping[str, RunTable] | None = None,
    questions: Questions = Questions(),
    objective: str = "huber",
    delta: float = 1e-3,
    tied: bool = False,
    fixed_E: float | None = None,
    seed_noise: float | None = None,
    envelope_method: str = "interpolated",
    envelope_points: int = 1500,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
) -> Fits:
    """Fit every law; see each for its arguments. A law that cannot be fitted does not keep the others.

    Args:
        runs: what is fitted, as `fit_parametric` takes it.
        curves: as `fit_envelope` takes them.
        convention: what N, C and the loss in them are, by name.
        conventions: the same runs under others, by name.
        questions: to answer with the fits.
    """
    runs, curves = as_runs(runs), as_curves(curves)
    intervals: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    surface: dict[str, Any] = {"objective": objective, "delta": delta, "tied": tied, "fixed_E": fixed_E, **intervals}
    envelope = _or_reason(lambda: fit_envelope(curves, method=envelope_method, points=envelope_points, **intervals))
    parametric = _or_reason(lambda: fit_parametric(runs, **surface))
    known = None if isinstance(parametric, LawError) else parametric.surface
    isoflop = _or_reason(lambda: fit_isoflop(runs, surface=known, seed_noise=seed_noise, **intervals))
    others = conventions or {}
    return Fits(
        convention=convention or {},
        runs=runs,
        curves=curves,
        envelope=envelope,
        isoflop=isoflop,
        parametric=parametric,
        answers=answer((envelope, isoflop, parametric), questions, largest=float(runs.C.max())),
        extrapolation=_or_reason(lambda: rolling_hold_out(runs, **surface)),
        sensitivity=sensitivity(runs, curves=curves, delta=delta, **intervals),
        conventions=compare_conventions(others, curves, delta=delta, **intervals),
        kaplan=fit_kaplan(others.get(KAPLAN_COUNTING, runs), curves, **intervals),
        level=level,
    )


def _or_reason(fit: Callable[[], Fit]) -> Fit | LawError:
    try:
        return fit()
    except LawError as error:
        return error
