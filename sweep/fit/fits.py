"""All three approaches on one table, each with its numbers or its reason for having none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sweep.fit.envelope import EnvelopeFit, fit_envelope
from sweep.fit.isoflop import IsoflopFit, fit_isoflop
from sweep.fit.parametric import ParametricFit, fit_parametric
from sweep.fit.result import LawError
from sweep.fit.table import Curve, RunTable

Fit = TypeVar("Fit")


@dataclass(frozen=True, kw_only=True)
class Fits:
    """What a sweep says.

    Attributes:
        convention: which loss, N and C the fits used, by name.
        runs: the table; `runs.excluded` is what was left out.
        curves: the curves Approach 1 used.
        envelope, isoflop, parametric: Approaches 1, 2 and 3, or why one could not be fitted.
        level: of every interval.
    """

    convention: dict[str, str]
    runs: RunTable
    curves: Sequence[Curve]
    envelope: EnvelopeFit | LawError
    isoflop: IsoflopFit | LawError
    parametric: ParametricFit | LawError
    level: float

    def to_dict(self) -> dict[str, Any]:
        """What fits.json holds."""
        excluded = [{"run_id": run.run_id, "reason": run.reason} for run in self.runs.excluded]
        return {
            "convention": self.convention,
            "level": self.level,
            "runs": {"used": len(self.runs), "excluded": excluded},
            "envelope": self.envelope.to_dict(),
            "isoflop": self.isoflop.to_dict(),
            "parametric": self.parametric.to_dict(),
        }

    def summary(self) -> str:
        """The same for a reader."""
        convention = ", ".join(f"{name} = {value}" for name, value in self.convention.items())
        lines = [
            f"{len(self.runs)} runs, {len(self.runs.excluded)} left out; {convention}",
            f"N_opt = k C^a, D_opt = k' C^b; {self.level:.0%} intervals",
            "",
        ]
        for title, law in (
            ("Approach 1, envelope of the curves", self.envelope),
            ("Approach 2, IsoFLOP profiles", self.isoflop),
            ("Approach 3, parametric surface", self.parametric),
        ):
            lines.append(f"{title}\n  {law.summary()}" if isinstance(law, LawError) else law.summary())
        return "\n".join(lines)


def fit_all(
    runs: RunTable,
    curves: Sequence[Curve],
    *,
    convention: dict[str, str],
    delta: float = 1e-3,
    envelope_points: int = 1500,
    resamples: int = 200,
    level: float = 0.8,
    seed: int = 0,
) -> Fits:
    """Fit Approaches 1, 2 and 3; see each for its arguments. A law that cannot be fitted does not keep the others."""
    intervals: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    return Fits(
        convention=convention,
        runs=runs,
        curves=curves,
        envelope=_or_reason(lambda: fit_envelope(curves, points=envelope_points, **intervals)),
        isoflop=_or_reason(lambda: fit_isoflop(runs, **intervals)),
        parametric=_or_reason(lambda: fit_parametric(runs, delta=delta, **intervals)),
        level=level,
    )


def _or_reason(fit: Callable[[], Fit]) -> Fit | LawError:
    try:
        return fit()
    except LawError as error:
        return error
