"""What follows from Kaplan et al.'s laws, from a table of runs on: the exponents, and where the laws contradict each other."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from sweep.errors import LawError
from sweep.fit import Intervals, fit_all, fit_kaplan
from sweep.fit.kaplan.follows import Follows, Meeting, Optimum, what_follows
from sweep.fit.kaplan.laws import B_CRIT, L_ND, L_NS, CriticalBatch
from sweep.fit.result import Refused
from sweep.tables.table import RunTable, as_runs
from tests.sweep.fit.kaplan_cases import SIZES, noise

BATCH = 5e5


def with_curves(sigma: float = 0.0) -> tuple[RunTable, pd.DataFrame]:
    """Runs and curves that obey the published L(N, S_min) and B_crit(L), at one batch size."""
    rows, curves = [], []
    for i, N in enumerate(SIZES):
        S_min = np.geomspace(1e3, 3e4 * (1 + i), 200)
        loss = L_NS.predict(N, S_min) * noise(sigma, S_min.shape, seed=i)
        steps = np.maximum.accumulate(S_min * (1 + B_CRIT.predict(L_NS.predict(N, S_min)) / BATCH))
        rows.append({"run_id": f"r{i}", "N": N, "D": steps[-1] * BATCH, "loss": loss[-1], "batch_tokens": BATCH})
        curves.append(pd.DataFrame({"run_id": f"r{i}", "tokens": steps * BATCH, "loss": loss, "N": N}))
    return as_runs(pd.DataFrame(rows)), pd.concat(curves)


def followed(critical_batch: CriticalBatch | None, sigma: float = 0.0) -> Follows:
    runs, curves = with_curves(sigma)
    return what_follows(runs, fit_kaplan(runs, curves, critical_batch=critical_batch), critical_batch=critical_batch)


def test_the_papers_constants_give_the_papers_optimum() -> None:
    optimum = followed(B_CRIT).optimum
    assert isinstance(optimum, Optimum)
    found = [getattr(optimum, name).value for name in ("alpha_C", "N", "B", "S")]
    assert found == pytest.approx([0.052, 0.68, 0.25, 0.07], abs=5e-3)


def test_intervals_hold_the_truth_and_something() -> None:
    optimum = followed(B_CRIT, sigma=0.003).optimum
    assert isinstance(optimum, Optimum)
    for name, truth in (("N", 0.0523 / 0.077), ("B", 0.0523 / 0.21), ("S", 0.0523 / 0.76)):
        of = getattr(optimum, name)
        assert of.low is not None
        assert of.low < of.value < of.high
        assert of.value == pytest.approx(truth, rel=0.1)


def test_without_a_critical_batch_there_is_a_reason() -> None:
    optimum = followed(None).optimum
    assert isinstance(optimum, Refused)
    assert optimum.status == "no_critical_batch"
    assert "fit.critical_batch" in optimum.reason


def grid(smallest: float, sigma: float = 0.0) -> RunTable:
    """Runs of seven sizes, from `smallest` over three decades, on seven amounts of data, by the published L(N, D)."""
    N, D = (each.ravel() for each in np.meshgrid(smallest * np.geomspace(1, 1e3, 7), np.geomspace(3e8, 1e11, 7)))
    return as_runs(pd.DataFrame({"N": N, "D": D, "loss": L_ND.predict(N, D) * noise(sigma, N.shape)}))


def meeting(runs: RunTable, **settings: int) -> Meeting | Refused:
    return what_follows(runs, fit_kaplan(runs), intervals=Intervals(**settings)).meeting


def test_the_laws_meet_where_a_search_finds_it() -> None:
    runs = grid(1e7)
    found = meeting(runs, resamples=0)
    assert isinstance(found, Meeting)

    def unbeaten(X: np.ndarray) -> list[int]:
        """Runs to which no other run of as little X is equal or better."""
        worse = [[runs.loss[j] <= runs.loss[i] and X[j] <= X[i] for j in range(len(X)) if j != i] for i in range(len(X))]
        return [i for i, row in enumerate(worse) if not any(row)]

    of_C, of_D = unbeaten(runs.C), unbeaten(runs.D)
    by_C = np.polyfit(np.log(runs.C[of_C]), np.log(runs.loss[of_C]), 1)
    by_D = np.polyfit(np.log(runs.D[of_D]), np.log(runs.loss[of_D]), 1)
    data = np.polyfit(np.log(runs.C[of_C]), np.log(runs.D[of_C]), 1)
    log_C = brentq(lambda log_C: np.polyval(by_C, log_C) - np.polyval(by_D, np.polyval(data, log_C)), 0, 500)
    assert np.log(found.C.value) == pytest.approx(log_C, rel=1e-9)
    assert np.log(found.D.value) == pytest.approx(np.polyval(data, log_C), rel=1e-9)
    assert np.log(found.loss.value) == pytest.approx(np.polyval(by_C, log_C), rel=1e-6)
    assert found.beyond == pytest.approx(np.exp(log_C) / runs.C.max(), rel=1e-9)


def test_its_interval_comes_from_resampled_runs() -> None:
    noisy, exact = meeting(grid(1e7, sigma=0.002), resamples=100), meeting(grid(1e7), resamples=0)
    assert isinstance(noisy, Meeting)
    assert isinstance(exact, Meeting)
    assert noisy.C.low is not None
    assert noisy.C.high is not None
    assert noisy.C.low < exact.C.value < noisy.C.high
    assert noisy.C.high / noisy.C.low > 1.5
    assert exact.C.low is None


def test_small_models_show_no_lack_of_data() -> None:
    """More than data is scarce in all of them, so L(D) is too steep and the laws meet among the runs."""
    found = meeting(grid(1e6), resamples=0)
    assert isinstance(found, Refused)
    assert found.status == "among_the_runs"
    assert "add larger models" in found.reason


def test_fit_prints_it() -> None:
    runs = grid(1e7)
    fits = fit_all(runs)
    assert "What follows from Kaplan's laws" in fits.summary(full=False)
    assert "by L(N, S_min)" not in fits.summary(full=False)  # nothing to say
    assert "by L(N, S_min) and B_crit(L): not fitted" in fits.summary()
    assert fits.to_dict()["follows"]["meeting"]["C"]["value"] == pytest.approx(fits.follows.meeting.C.value)  # type: ignore[union-attr]  # it is there


def test_refused_laws_are_the_reason() -> None:
    runs = grid(1e7).where(np.arange(2))
    laws = {name: Refused(LawError("too_few_runs", "2 points")) for name in ("L_N", "L_D", "L_C", "L_ND", "L_NS")}
    found = what_follows(runs, laws, critical_batch=B_CRIT)
    assert not found.optimum.fitted
    assert "L(C) is not fitted: 2 points" in found.meeting.summary()
    assert found.lines(None, full=False) == []
