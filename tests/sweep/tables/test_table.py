"""Tables from elsewhere: what is read, and what is refused."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.config import Columns
from sweep.errors import InputError
from sweep.fit import NO_INTERVALS, LawError, fit_isoflop, fit_parametric, read_curves, read_runs
from sweep.tables.readers import READERS, FileReader

COLUMNS = vars(Columns())
FRAME = pd.DataFrame({"run_id": ["a", "b", "c"], "N": [1e6, 2e6, 4e6], "D": [1e8, 5e7, 2.5e7], "loss": [3.0, 2.9, 3.1]})


def written(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_every_format_reads_the_same(tmp_path: Path, ending: str) -> None:
    runs = read_runs(written(FRAME, tmp_path / f"runs{ending}"), COLUMNS)
    assert runs.run_id.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(runs.N, FRAME["N"])
    np.testing.assert_allclose(runs.C, 6 * runs.N * runs.D)
    assert np.isnan(runs.budget).all()


def test_d_follows_from_c(tmp_path: Path) -> None:
    frame = FRAME.drop(columns=["D", "run_id"]).assign(C=6e14).rename(columns={"N": "Model Size"})
    runs = read_runs(written(frame, tmp_path / "runs.csv"), COLUMNS | {"N": "Model Size"})
    np.testing.assert_allclose(runs.D, 1e14 / runs.N)
    assert runs.run_id.tolist() == ["row 1", "row 2", "row 3"]


def test_unfinished_runs_are_listed_not_read(tmp_path: Path) -> None:
    frame = FRAME.assign(state=["done", "diverged", "done"], loss=[3.0, np.nan, 3.1])
    runs = read_runs(written(frame, tmp_path / "runs.csv"), COLUMNS)
    assert runs.run_id.tolist() == ["a", "c"]
    assert [(run.run_id, run.reason) for run in runs.excluded] == [("b", "not done: diverged")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": [3.0, -1.0, 3.1]}, r"column 'loss' is .*-1\.0.* in row 2 of 3"),
        ({"loss": [3.0, np.nan, 3.1]}, "column 'loss' is missing in row 2"),
        ({"N": ["1e6", "big", "4e6"]}, "column 'N' is 'big' in row 2"),
        ({"D": [1e8, 5e7, np.inf]}, "column 'D' is .*inf.* in row 3"),
        ({"budget": [1e14, 0.0, 1e14]}, "column 'budget'"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, change: dict, message: str) -> None:
    path = written(FRAME.assign(**change), tmp_path / "runs.csv")
    with pytest.raises(InputError, match=message):
        read_runs(path, COLUMNS)


@pytest.mark.parametrize(
    ("column", "message"),
    [("N", "no column 'N'.*columns.N="), ("loss", "no column 'loss'"), ("D", "no column 'D'.*columns.C")],
)
def test_missing_columns_are_named_with_those_there_are(tmp_path: Path, column: str, message: str) -> None:
    path = written(FRAME.drop(columns=column), tmp_path / "runs.csv")
    with pytest.raises(InputError, match=message) as caught:
        read_runs(path, COLUMNS)
    assert "'run_id'" in str(caught.value)


def test_a_table_without_a_finished_run_says_what_states_it_has(tmp_path: Path) -> None:
    path = written(FRAME.assign(state="completed"), tmp_path / "runs.csv")
    with pytest.raises(InputError, match="'done' or 'finished' \\(it has completed\\)"):
        read_runs(path, COLUMNS)


def test_a_convention_the_table_lacks_is_not_made_up(tmp_path: Path) -> None:
    path = written(FRAME, tmp_path / "runs.csv")
    with pytest.raises(InputError, match="no column 'C_kaplan' for C"):
        read_runs(path, COLUMNS | {"C": "C_kaplan"}, require_C=True)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_runs(tmp_path / "none.csv", COLUMNS)
    with pytest.raises(InputError, match=r"cannot read \.xlsx"):
        read_runs(tmp_path / "runs.xlsx", COLUMNS)
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"bad\.parquet cannot be read"):
        read_runs(tmp_path / "bad.parquet", COLUMNS)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty\.csv cannot be read"):
        read_runs(tmp_path / "empty.csv", COLUMNS)
    with pytest.raises(InputError, match="has no rows"):
        read_runs(written(FRAME.head(0), tmp_path / "header.csv"), COLUMNS)


def test_curves_belong_to_runs(tmp_path: Path) -> None:
    runs = read_runs(written(FRAME, tmp_path / "runs.csv"), COLUMNS)
    frame = pd.DataFrame({"run_id": ["a", "a", "x"], "tokens": [200_000, 100_000, 5_000], "loss": [3.0, 4.0, 9.0]})
    (curve,) = read_curves(written(frame, tmp_path / "curves.csv"), COLUMNS, runs)
    assert curve.tokens.tolist() == [100_000, 200_000]
    assert curve.loss.tolist() == [4.0, 3.0]
    assert curve.flops_per_token == pytest.approx(6e6)
    with pytest.raises(InputError, match="none of its run_id"):
        read_curves(written(frame.assign(run_id="z"), tmp_path / "other.csv"), COLUMNS, runs)


def test_fitting_imports_no_torch_and_imports_fast() -> None:
    code = "import time; t = time.time(); import sweep.fit, sys; assert 'torch' not in sys.modules; print(time.time() - t)"
    seconds = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert seconds < 5  # about 0.15 s on an idle machine


N, D = np.geomspace(1e7, 1e9, 12), np.tile(np.geomspace(1e9, 1e10, 4), 3)
LOSS = 1.7 + 400 / N**0.34 + 410 / D**0.28


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"N": N / 1e6}, "wrong_unit", "N must be in parameters, not millions"),
        ({"N": N / 1e9}, "wrong_unit", "N must be in parameters"),
        ({"D": D / 1e9}, "wrong_unit", "D must be in tokens"),
        ({"N": N / 1e5}, "wrong_unit", "tokens per parameter"),
        ({"D": D / 1e6}, "wrong_unit", "tokens per parameter"),
        ({"C": 6 * N * D / 8.64e19}, "wrong_unit", "times 6 N D"),
        ({"loss": np.exp(2 * LOSS)}, "wrong_unit", "log of a perplexity"),
        ({"loss": -LOSS}, "bad_value", "must be a positive number"),
        ({"loss": np.where(N == N[3], np.nan, LOSS)}, "bad_value", "is missing in row 4 of 12"),
        ({"N": ["big"] * 12}, "bad_value", "'big' in row 1"),
        (
            {"N": np.repeat(N[:6], 2), "D": np.repeat(D[:6], 2), "loss": np.repeat(LOSS[:6], 2)},
            "duplicates",
            "occurs 2 times",
        ),
        ({"run_id": ["a"] * 12}, "duplicates", "run_id a occurs 12 times"),
    ],
)
def test_what_no_run_can_be_is_refused_by_every_door(tmp_path: Path, change: dict, status: str, message: str) -> None:
    frame = pd.DataFrame({"N": N, "D": D, "loss": LOSS} | change)
    with pytest.raises(LawError, match=message) as caught:
        fit_parametric(frame, intervals=NO_INTERVALS)
    assert caught.value.status == status
    with pytest.raises(LawError, match=message):
        read_runs(written(frame, tmp_path / "runs.csv"), COLUMNS)
    if set(change) <= {"N", "D", "loss"}:
        with pytest.raises(LawError, match="row 4 of 12|" + message):
            fit_parametric(frame["N"].to_numpy(), frame["D"].to_numpy(), frame["loss"].to_numpy(), intervals=NO_INTERVALS)


def test_arrays_must_fit_together() -> None:
    with pytest.raises(LawError, match="have shapes"):
        fit_parametric(N, D[:5], LOSS)
    with pytest.raises(LawError, match="D and loss are needed"):
        fit_parametric(N)
    with pytest.raises(LawError, match="put them in as its columns"):
        fit_parametric(pd.DataFrame({"N": N, "D": D, "loss": LOSS}), D, LOSS)
    with pytest.raises(LawError, match="no column 'loss'"):
        fit_parametric({"N": N, "D": D})
    with pytest.raises(LawError, match="no run names a planned budget"):
        fit_isoflop(N, D, LOSS)
    assert fit_parametric(N.tolist(), D.tolist(), LOSS.tolist(), intervals=NO_INTERVALS).E.value > 0


def test_columns_for_weights_and_clusters_are_used(tmp_path: Path) -> None:
    frame = pd.DataFrame({"N": N, "D": D, "loss": LOSS, "weight": np.linspace(1, 2, 12), "group": list("aabbccddeeff")})
    path = written(frame, tmp_path / "runs.csv")
    runs = read_runs(path, COLUMNS | {"cluster": "group"})
    assert runs.weight is not None
    np.testing.assert_allclose(runs.weight, frame["weight"])
    assert runs.cluster is not None
    assert runs.where(np.array([0, 2])).cluster.tolist() == ["a", "b"]  # type: ignore[union-attr]
    assert read_runs(path, COLUMNS).cluster is None


def test_runs_that_their_table_tells_apart_may_be_equal() -> None:
    """Rounded losses of two seeds."""
    frame = pd.DataFrame({"N": np.tile(N, 2), "D": np.tile(D, 2), "loss": np.tile(LOSS, 2)})
    with pytest.raises(LawError, match="distinguish runs by a column run_id"):
        fit_parametric(frame, intervals=NO_INTERVALS)
    both = fit_parametric(frame.assign(run_id=[f"run-{i}" for i in range(24)]), intervals=NO_INTERVALS)
    assert both.alpha.value == pytest.approx(fit_parametric(frame.head(12), intervals=NO_INTERVALS).alpha.value, rel=1e-6)


def test_a_new_format_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs.psv").write_text(FRAME.to_csv(sep="|", index=False))
    with pytest.raises(LawError, match=r"cannot read \.psv; give \.csv, \.tsv, \.parquet"):
        read_runs(tmp_path / "runs.psv")
    monkeypatch.setitem(READERS, ".psv", FileReader(lambda content: pd.read_csv(io.BytesIO(content), sep="|")))
    assert read_runs(tmp_path / "runs.psv").run_id.tolist() == ["a", "b", "c"]
    with pytest.raises(LawError, match=r"db://runs: cannot read db://; give"):
        read_runs("db://runs")


def test_rows_without_names_keep_their_numbers(tmp_path: Path) -> None:
    runs = read_runs(written(FRAME.drop(columns="run_id").assign(state=["done", "failed", "done"]), tmp_path / "runs.csv"))
    assert runs.run_id.tolist() == ["row 1", "row 3"]
    assert [run.run_id for run in runs.excluded] == ["row 2"]
