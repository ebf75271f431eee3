"""One interface: a law that is new, or refused, goes everywhere that the three of the paper go."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.figures import DRAWINGS, figures_of
from sweep.fit import (
    APPROACHES,
    Approach,
    Estimate,
    Intervals,
    LawError,
    Laws,
    Noise,
    Options,
    Refused,
    Simulator,
    Surface,
    allocate,
    fit_all,
)
from sweep.fit.result import attempt
from sweep.report import Origin, render

SURFACE = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
RUNS = Simulator(surface=SURFACE, noise=Noise(run=0.005)).isoflop(np.geomspace(1e18, 1e20, 4), sizes=6)
QUICK = Options(intervals=Intervals(20))


@dataclass(frozen=True, kw_only=True, eq=False)
class Twenty(Approach):
    """Twenty tokens per parameter, whatever the runs say."""

    name: ClassVar[str] = "twenty"
    number: ClassVar[int] = 4
    method: ClassVar[str] = "a rule of thumb"
    form: ClassVar[str] = "D = 20 N"
    resampled: ClassVar[str] = "nothing"
    variants: ClassVar[dict[str, str]] = {"rule of thumb": "a"}

    @classmethod
    def fit(cls, laws: Laws) -> "Twenty":
        if len(laws.runs) < 6:
            raise LawError("too_few_runs", "a rule of thumb needs six runs: add some")
        return cls(a=Estimate(0.5), b=Estimate(0.5), level=laws.options.intervals.level)

    def optimal(self, C: Any) -> tuple[Any, Any]:
        return np.sqrt(C / 120), 20 * np.sqrt(C / 120)

    def optimal_loss(self, C: Any) -> Any:
        return self.predict(*self.optimal(C))

    def predict(self, N: Any, D: Any) -> Any:
        return SURFACE.predict(N, D)

    def resampled_at(self, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.empty(0), np.empty(0), np.empty(0)

    def to_dict(self) -> dict[str, Any]:
        return {"status": self.status, "a": self.a.to_dict()}

    def remarks(self) -> list[str]:
        return ["it has nothing to remark"]


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(APPROACHES, "twenty", Twenty)


def test_a_new_law_needs_only_its_entry(fourth: None) -> None:
    fits = fit_all(RUNS, convention={"loss": "val"}, conventions={"as it is": RUNS}, options=QUICK)
    assert list(fits.laws) == ["envelope", "isoflop", "parametric", "twenty"]
    assert list(fits.fitted) == ["isoflop", "parametric", "twenty"]
    text = fits.summary()
    assert "Approach 4, a rule of thumb" in text
    assert "it has nothing to remark" in text
    saved = json.loads(json.dumps(fits.to_dict(), allow_nan=False))
    assert saved["twenty"]["a"]["value"] == 0.5
    assert {row["approach"] for row in saved["answers"]["allocations"]} == set(fits.fitted)
    assert "4, rule of thumb" in {row["label"] for row in saved["sensitivity"]}
    assert {row["approach"] for row in saved["conventions"]} == {"parametric", "twenty"}
    assert "twenty" in saved["extrapolation"][-1]["optima"][0]["predicted"]
    (row,) = allocate(fits.laws["twenty"], [1.2e20])
    assert (row.N.value, row.D.value) == (1e9, 2e10)
    (legend,) = figures_of(fits)["frontier"].legends
    assert "Approach 4" in [entry.get_text() for entry in legend.get_texts()]


def test_a_new_law_is_in_the_report_with_its_figure(fourth: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    monkeypatch.setitem(DRAWINGS, "twenty", lambda fits, law: {"twenty": Figure()})
    origin = Origin(title="four", from_store=False, trained=(), made=(), cost="not known", setup={}, config="")
    page = render(fit_all(RUNS, convention={"loss": "val"}, options=QUICK), origin, FitConfig(resamples=20))
    for part in ("<h3>Approach 4: a rule of thumb</h3>", 'id="figure-twenty"', 'data-law="twenty"', "D = 20 N"):
        assert part in page
    few = fit_all(RUNS.where(np.arange(5)), convention={"loss": "val"}, options=QUICK)
    assert not few.fitted
    assert [law.status for law in few.refused.values()][-1] == "too_few_runs"


def test_a_refusal_has_the_interface_of_a_law() -> None:
    law = attempt(lambda: Twenty.fit(Laws(runs=RUNS.where(np.arange(4)))))
    assert isinstance(law, Refused)
    assert not law.fitted
    assert law.status == "too_few_runs"
    assert law.to_dict() == {"status": "too_few_runs", "reason": str(law)}
    assert law.summary() == f"not fitted (too_few_runs): {law.reason}"
    assert law.error.__traceback__ is None  # it would keep the fit's arrays
    assert attempt(lambda: 3) == 3


def test_each_law_is_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweep.fit.approaches import parametric

    fitted = []
    original = parametric.fit_parametric

    def count(*runs: Any, **options: Any) -> Any:
        fitted.append(1)
        return original(*runs, **options)

    monkeypatch.setattr(parametric, "fit_parametric", count)
    laws = Laws(runs=RUNS, options=QUICK)
    assert laws["isoflop"].fitted
    assert laws["parametric"] is laws["parametric"]
    assert len(fitted) == 1


def test_options_are_those_of_the_configuration() -> None:
    config = FitConfig(objective="lad", huber_delta=0.01, seed_noise=0.1, envelope="bins", resamples=7, level=0.5, seed=3)
    options = Options.of(config)
    assert options.intervals == Intervals(7, 0.5, 3)
    assert (options.objective, options.delta, options.seed_noise, options.envelope) == ("lad", 0.01, 0.1, "bins")
    assert options.surface.keys() == {"objective", "delta", "tied", "fixed_E", "intervals"}


def test_laws_are_told_apart_by_their_interface() -> None:
    """No type checks of laws and refusals; and what judges or shows the laws does not name the paper's approaches."""
    root = Path(__file__).resolve().parents[3] / "sweep"
    for path in [path for room in ("fit", "figures", "report", "use") for path in (root / room).rglob("*.py")]:
        assert not re.search(r"isinstance\([^)]*(LawError|Refused|Fit)\b", path.read_text()), path
    for name in ("answers.py", "frontier.py", "judge/sensitivity.py", "judge/conventions.py", "judge/holdout.py"):
        assert not re.search("EnvelopeFit|IsoflopFit", (root / "fit" / name).read_text()), name
