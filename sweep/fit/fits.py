"""All laws on one table, each with its numbers or the reason why there are none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.fit.answers import Answers, Questions, answer
from sweep.fit.approaches import APPROACHES, Approach, Laws, Options
from sweep.fit.approaches.envelope import CurvesLike, EnvelopeFit
from sweep.fit.approaches.isoflop import IsoflopFit
from sweep.fit.approaches.parametric import ParametricFit
from sweep.fit.judge.collapse import Collapse, collapse
from sweep.fit.judge.conventions import ConventionRow, compare_conventions
from sweep.fit.judge.decide import decide
from sweep.fit.judge.form_fits import fit_forms
from sweep.fit.judge.holdout import RollingHoldOut, rolling_hold_out
from sweep.fit.judge.sensitivity import Variant, sensitivity
from sweep.fit.judge.verdict import Verdict
from sweep.fit.kaplan.follows import Follows, what_follows
from sweep.fit.kaplan.law_fit import LawFit
from sweep.fit.kaplan.table import fit_kaplan
from sweep.fit.lack_of_fit import LackOfFit, lack_of_fit, pure_noise
from sweep.fit.result import Refused, Tell, attempt, plain, told
from sweep.tables.conventions import KAPLAN_COUNTING
from sweep.tables.curves import Curve, as_curves
from sweep.tables.table import RunsLike, RunTable, as_runs
from sweep.words import counted


@dataclass(frozen=True, kw_only=True)
class Fits:
    """All that the fits find in a table.

    Attributes:
        convention: which loss, N and C the fits used, by name.
        runs: the table; `runs.excluded` is what was left out.
        curves: the training curves.
        laws: each approach's law by its name, or a `Refused`; `envelope`, `isoflop` and `parametric` are Approaches 1, 2 and 3.
        answers: optimal runs at some budgets, and what else was asked.
        extrapolation: each budget predicted from the smaller ones; the last is the largest.
        sensitivity: a under other choices.
        conventions: a under other conventions and protocols, where the table has them.
        adequacy: how the surface's residuals compare with a noise that no law explains; None if one of the two is not known.
        forms: other forms of L(N, D) by name, the best at predicting larger budgets first, or a `Refused`.
        verdict: what to go by; None if no approach was fitted.
        kaplan: Kaplan's laws by name, or a `Refused`; of N without embeddings where the table has that.
        kaplan_runs: the table that these were fitted to.
        follows: what Kaplan's laws imply.
        collapse: how well the normalised curves of the runs near the optimum fall on each other, or a `Refused`.
        level: of every interval.
    """

    convention: dict[str, str]
    runs: RunTable
    curves: Sequence[Curve]
    laws: Mapping[str, Any]
    answers: Answers
    extrapolation: RollingHoldOut | Refused
    sensitivity: tuple[Variant, ...]
    conventions: tuple[ConventionRow, ...]
    adequacy: LackOfFit | None
    forms: dict[str, Any]
    verdict: Verdict | None
    kaplan: dict[str, LawFit[Any] | Refused]
    kaplan_runs: RunTable
    follows: Follows
    collapse: Collapse | Refused
    level: float

    @property
    def envelope(self) -> EnvelopeFit | Refused:
        return self.laws["envelope"]

    @property
    def isoflop(self) -> IsoflopFit | Refused:
        return self.laws["isoflop"]

    @property
    def parametric(self) -> ParametricFit | Refused:
        return self.laws["parametric"]

    @property
    def fitted(self) -> dict[str, Approach]:
        """The laws that could be fitted, by the name of the approach."""
        return {name: law for name, law in self.laws.items() if law.fitted}

    @property
    def refused(self) -> dict[str, Refused]:
        """Why the others could not, by the name of the approach."""
        return {name: law for name, law in self.laws.items() if not law.fitted}

    def to_dict(self) -> dict[str, Any]:
        excluded = [{"run_id": run.run_id, "reason": run.reason} for run in self.runs.excluded]
        return {
            "verdict": plain(self.verdict),
            "convention": self.convention,
            "level": self.level,
            "runs": {"used": len(self.runs), "excluded": excluded, "notes": list(self.runs.notes)},
            **{name: law.to_dict() for name, law in self.laws.items()},
            "answers": self.answers.to_dict(),
            "extrapolation": self.extrapolation.to_dict(),
            "sensitivity": plain(self.sensitivity),
            "conventions": plain(self.conventions),
            "adequacy": plain(self.adequacy),
            "forms": plain(self.forms),
            "kaplan": plain(self.kaplan),
            "follows": plain(self.follows),
            "collapse": self.collapse.to_dict(),
        }

    def summary(self, *, full: bool = True) -> str:
        """The verdict; then what it rests on; then, if `full`, every judgement."""
        convention = ", ".join(f"{name} = {value}" for name, value in self.convention.items())
        lines = [*(self.verdict.lines() if self.verdict else ["No law could be fitted"]), ""]
        lines += [
            f"{counted(len(self.runs), 'run')}, {len(self.runs.excluded)} left out; {convention}",
            *(f"  {remark}" for remark in self.runs.remarks()),
            f"N_opt = k C^a, D_opt = k' C^b; {self.level:.0%} intervals",
            "",
        ]
        for name, law in self.laws.items():
            lines.append(law.summary() if law.fitted else f"{APPROACHES[name].heading()}\n  {law.summary()}")
        if self.adequacy:
            lines.append(f"  the surface is {self.adequacy.line()}")
        lines += ["", self.answers.summary(), *self.follows.lines(self.verdict.a if self.verdict else None, full=full)]
        return "\n".join(lines + (self._judgements() if full else ["", "--full prints the judgements too; fits.json has all"]))

    def _judgements(self) -> list[str]:
        lines = [
            "",
            *(self.verdict.parts() if self.verdict else []),
            "",
            "Forms of L(N, D), by how they predict larger budgets",
        ]
        for name, form in self.forms.items():
            lines.append(f"  {form.line() if form.fitted else f'{name}: not fitted: {form}'}")
        lines += ["", "Extrapolation, held out", f"  {self.extrapolation.summary()}"]
        lines += ["", "a under other choices", *(f"  {variant.line()}" for variant in self.sensitivity)]
        if self.conventions:
            lines += ["", "a under other conventions", *(f"  {row.line()}" for row in self.conventions)]
        lines += ["", "Kaplan's laws"]
        lines += [f"  {name}: " + law.summary().replace("\n", "\n  ") for name, law in self.kaplan.items()]
        return [*lines, "", "Collapse of the training curves", f"  {self.collapse.summary()}"]


def fit_all(
    runs: RunsLike,
    curves: CurvesLike = (),
    *,
    convention: dict[str, str] | None = None,
    conventions: Mapping[str, RunTable] | None = None,
    questions: Questions = Questions(),
    options: Options = Options(),
    tell: Tell | None = None,
) -> Fits:
    """Fit every law. A law that cannot be fitted does not prevent the others.

    Args:
        runs: the table, as `fit_parametric` takes it.
        curves: as `fit_envelope` takes them.
        convention: what N, C and the loss in them are, by name.
        conventions: the same runs under other conventions, by name.
        questions: to answer with the fits.
        options: of the fits.
        tell: is told what is being fitted and how far that is; see `Tell`.
    """
    laws = Laws(runs=as_runs(runs), curves=as_curves(curves), options=options)
    by_name = {name: laws[name] for name in told(tell, "the approaches", list(APPROACHES))}
    others, intervals = conventions or {}, options.intervals
    parametric, noise = by_name["parametric"], pure_noise(laws.runs, options.seed_noise)
    E = float(parametric.surface.E) if parametric.fitted and parametric.status == "converged" else None
    kaplan_runs = others.get(KAPLAN_COUNTING, laws.runs)
    answers = answer(list(by_name.values()), questions, largest=float(laws.runs.C.max()), best=laws.runs.best())
    kaplan = fit_kaplan(kaplan_runs, laws.curves, critical_batch=options.critical_batch, intervals=intervals)
    judged: dict[str, Any] = {
        "adequacy": lack_of_fit(
            laws.runs, parametric.predict(laws.runs.N, laws.runs.D), free=parametric.free.shape[1], noise=noise
        )
        if parametric.fitted and noise
        else None,
        "forms": fit_forms(laws.runs, options.delta, tell=tell),
        "extrapolation": attempt(lambda: rolling_hold_out(laws.runs, laws=laws, tell=tell, **options.surface)),
    }
    variants = sensitivity(laws.runs, curves=laws.curves, delta=options.delta, intervals=intervals, laws=laws, tell=tell)
    return Fits(
        convention=convention or {},
        runs=laws.runs,
        curves=laws.curves,
        laws=by_name,
        answers=answers,
        **judged,
        sensitivity=variants,
        verdict=decide(by_name, answers, variants=variants, **judged),
        conventions=compare_conventions(others, laws.curves, delta=options.delta, intervals=intervals, tell=tell),
        kaplan=kaplan,
        kaplan_runs=kaplan_runs,
        follows=what_follows(kaplan_runs, kaplan, critical_batch=options.critical_batch, intervals=intervals),
        collapse=attempt(lambda: collapse(laws.curves, laws.runs, E)),
        level=intervals.level,
    )
