"""Tables from elsewhere: what is read, and what is refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.config import Columns
from sweep.errors import InputError
from sweep.fit import read_curves, read_runs

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
    path = written(FRAME.assign(state="finished"), tmp_path / "runs.csv")
    with pytest.raises(InputError, match="'done' \\(it has finished\\)"):
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
    frame = pd.DataFrame({"run_id": ["a", "a", "x"], "tokens": [200, 100, 5], "loss": [3.0, 4.0, 9.0]})
    (curve,) = read_curves(written(frame, tmp_path / "curves.csv"), COLUMNS, runs)
    assert curve.tokens.tolist() == [100, 200]
    assert curve.loss.tolist() == [4.0, 3.0]
    assert curve.flops_per_token == pytest.approx(6e6)
    with pytest.raises(InputError, match="none of its run_id"):
        read_curves(written(frame.assign(run_id="z"), tmp_path / "other.csv"), COLUMNS, runs)


def test_fitting_imports_no_torch_and_imports_fast() -> None:
    code = "import time; t = time.time(); import sweep.fit, sys; assert 'torch' not in sys.modules; print(time.time() - t)"
    seconds = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert seconds < 5  # about 0.15 s on an idle machine
