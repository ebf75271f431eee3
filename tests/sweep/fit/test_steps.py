"""L(N, S) of a table's curves: S as taken, or S_min by a critical batch size that is given."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.fit import NO_INTERVALS, Curve, fit_kaplan
from sweep.fit.kaplan.laws import B_CRIT, CriticalBatch, SizeStepsLaw
from sweep.tables.table import RunTable

LAW = SizeStepsLaw(N_c=6.5e13, S_c=2.1e3, alpha_N=0.077, alpha_S=0.76)  # Kaplan et al. 2020, table 3
SIZES = np.geomspace(1e6, 1e9, 8)


def sweep_of(batches: np.ndarray, critical: CriticalBatch) -> tuple[RunTable, list[Curve]]:
    """Runs whose loss after S_min steps is LAW's, each at its own batch size, which takes S_min (1 + B_crit(L) / B) steps."""
    curves = []
    for i, (N, B) in enumerate(zip(SIZES, batches, strict=True)):
        S_min = np.geomspace(1e3, 1e5, 400)
        loss = LAW.predict(N, S_min)
        tokens = S_min * (1 + critical.predict(loss) / B) * B
        curves.append(Curve(run_id=f"r{i}", N=float(N), flops_per_token=6 * float(N), tokens=tokens, loss=loss))
    D, loss = np.array([curve.tokens[-1] for curve in curves]), np.array([curve.loss[-1] for curve in curves])
    runs = RunTable(
        run_id=np.array([curve.run_id for curve in curves]),
        N=SIZES,
        D=D,
        C=6 * SIZES * D,
        loss=loss,
        budget=np.full(len(D), np.nan),
        batch_tokens=batches,
    )
    return runs, curves


BATCHES = np.array([1e4, 3e4, 1e5, 3e5, 2e4, 5e4, 2e5, 1e6])


@pytest.mark.parametrize("critical", [B_CRIT, CriticalBatch(B_star=3e7, alpha_B=0.3)])
def test_the_steps_are_corrected_by_the_critical_batch_that_is_given(critical: CriticalBatch) -> None:
    runs, curves = sweep_of(BATCHES, critical)
    corrected = fit_kaplan(runs, curves, critical_batch=critical, intervals=NO_INTERVALS)["L_NS"]
    for name, truth in vars(LAW).items():
        assert corrected.constants[name].value == pytest.approx(truth, rel=0.02)  # type: ignore[union-attr]
    assert f"B_star = {critical.B_star:.4g} tokens" in corrected.summary()
    assert ("a guess on other text" in corrected.summary()) == (critical == B_CRIT)
    taken = fit_kaplan(runs, curves, intervals=NO_INTERVALS)["L_NS"]
    if taken.fitted:  # other batch sizes at other N: no law of the steps as they were taken
        assert abs(np.log(taken.constants["S_c"].value / LAW.S_c)) > 0.5  # type: ignore[union-attr]


def test_steps_as_taken_say_what_that_assumes() -> None:
    small, curves = sweep_of(np.full(len(SIZES), 1e5), B_CRIT)
    taken = fit_kaplan(small, curves, intervals=NO_INTERVALS)["L_NS"]
    assert "S is the steps as taken, not S_min" in taken.summary()
    assert "far above the critical size" in taken.to_dict()["note"]
    assert taken.constants["S_c"].value > 2 * LAW.S_c  # type: ignore[union-attr]
    large, curves = sweep_of(np.full(len(SIZES), 1e8), B_CRIT)  # where the assumption holds, so does the law
    laws = fit_kaplan(large, curves, intervals=NO_INTERVALS)
    assert laws["L_NS"].constants["S_c"].value == pytest.approx(LAW.S_c, rel=0.05)  # type: ignore[union-attr]
    assert [name for name, law in laws.items() if "note" in law.to_dict()] == ["L_NS"]


def test_the_field_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, curves = sweep_of(BATCHES, B_CRIT)
    columns = {"run_id": runs.run_id, "N": runs.N, "D": runs.D, "loss": runs.loss, "batch_tokens": runs.batch_tokens}
    pd.DataFrame(columns).to_csv(tmp_path / "runs.csv", index=False)
    points = [pd.DataFrame({"run_id": each.run_id, "N": each.N, "tokens": each.tokens, "loss": each.loss}) for each in curves]
    pd.concat(points).to_csv(tmp_path / "curves.csv", index=False)
    tables = [f"table={tmp_path / 'runs.csv'}", f"curves={tmp_path / 'curves.csv'}", f"out={tmp_path}", "fit.resamples=0"]
    given = "fit.critical_batch={B_star: 2e8, alpha_B: 0.21}"
    assert main(["fit", *tables, "fit.smoothing_steps=0", given]) == DONE
    law = json.loads((tmp_path / "fits.json").read_text())["kaplan"]["L_NS"]
    assert law["alpha_S"]["value"] == pytest.approx(LAW.alpha_S, rel=0.02)
    assert "S_min = S / (1 + B_crit(L) / B)" in law["note"]
    for wrong, named in (
        ("fit.critical_batch={B_star: 2e8}", "fit.critical_batch.alpha_B"),
        ("fit.critical_batch={B_star: -1, alpha_B: 0.2}", "fit.critical_batch.B_star=-1"),
    ):
        capsys.readouterr()
        assert main(["fit", *tables, wrong]) == BAD_INPUT
        assert named in capsys.readouterr().err
