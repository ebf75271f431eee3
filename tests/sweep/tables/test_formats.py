"""The files that people have: formats, encodings, names of columns; which rows are wanted; curves as they were logged."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.config import compose
from sweep.errors import InputError
from sweep.fit import LawError, read_curves, read_frame, read_runs, runs_from_frame
from sweep.tables import read_tables
from sweep.tables.curves import as_curves

N, D = np.repeat(np.geomspace(2e7, 1e9, 6), 4), np.tile(np.geomspace(1e9, 5e10, 4), 6)
FRAME = pd.DataFrame(
    {"run_id": [f"{i:03d}" for i in range(24)], "N": N, "D": D, "loss": 1.7 + 400 / N**0.34 + 410 / D**0.28, "data set": "rpj"}
)
CSV = FRAME.to_csv(index=False)


def german(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, sep=";", decimal=",")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runs.tsv", FRAME.to_csv(index=False, sep="\t").encode()),
        ("runs.CSV", CSV.encode()),
        ("runs.csv.gz", gzip.compress(CSV.encode())),
        ("runs.csv", CSV.encode("utf-8-sig")),
        ("runs.csv", CSV.encode("utf-16")),
        ("tabs.csv", FRAME.to_csv(index=False, sep="\t").encode("utf-16")),
        ("runs.csv", FRAME.to_csv(index=False, sep=";").encode()),
        ("runs.csv", german(FRAME).encode()),
        ("runs.csv", ("sep=;\r\n" + german(FRAME).replace("\n", "\r\n")).encode()),
        ("runs.json", FRAME.to_json(orient="records", double_precision=15).encode()),
        ("runs.json", FRAME.to_json(double_precision=15).encode()),
        ("runs.json", FRAME.to_json(orient="split", double_precision=15).encode()),
        ("runs.json", json.dumps(FRAME.to_dict(orient="list")).encode()),
        ("runs.jsonl", FRAME.to_json(orient="records", lines=True, double_precision=15).encode()),
        ("runs.jsonl.gz", gzip.compress(FRAME.to_json(orient="records", lines=True, double_precision=15).encode())),
    ],
)
def test_every_file_reads_the_same(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    runs = read_runs(tmp_path / name)
    assert runs.run_id.tolist() == FRAME["run_id"].tolist()
    for column in ("N", "D", "loss"):
        np.testing.assert_allclose(getattr(runs, column), FRAME[column], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("runs.json", b"7", "neither a list of rows nor columns by name"),
        ("runs.jsonl", b'{"N": 1}\n{"N": \n', "cannot be read as jsonl: line 2"),
        ("runs.csv.gz", b"N,D,loss", r"runs\.csv\.gz cannot be read as csv"),
        ("runs.csv", "Größe,loss\n".encode("latin-1"), "neither UTF-8 nor UTF-16; save it as UTF-8"),
    ],
)
def test_files_that_are_not_what_they_are_called(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LawError, match=message):
        read_frame(tmp_path / name)


def test_names_are_matched_without_case_and_blanks(tmp_path: Path) -> None:
    FRAME.rename(columns={"N": " n", "D": "d ", "loss": "Loss", "run_id": "Run_ID"}).to_csv(tmp_path / "runs.csv", index=False)
    runs = read_runs(tmp_path / "runs.csv")
    assert runs.run_id.tolist() == FRAME["run_id"].tolist()
    np.testing.assert_array_equal(runs.N, FRAME["N"])
    two = FRAME.rename(columns={"loss": "Loss"}).assign(LOSS=3.0)
    with pytest.raises(LawError, match=r"no column 'loss' for loss; did you mean 'Loss' or 'LOSS'\?.*columns\.loss="):
        runs_from_frame(two)
    with pytest.raises(LawError, match=r"no column 'val_los' for loss; did you mean 'val_loss'\?"):
        runs_from_frame(FRAME.rename(columns={"loss": "val_loss"}), {"loss": "val_los"})
    with pytest.raises(LawError, match="no column 'group' for cluster"):  # a name that was given is not passed over
        runs_from_frame(FRAME, {"cluster": "group"})


def fit(table: Path, *overrides: str) -> int:
    return main(["fit", f"table={table}", f"out={table.parent / 'out'}", "fit.resamples=0", *overrides])


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("loss < 3", (FRAME["loss"] < 3).sum()),
        ("1e9 < D and not (N > 5e8 or run_id in ['004', '005'])", 14),
        ("`data set` == 'rpj' and run_id != '000'", 23),
        ("N*D/2 >= 1e17 & loss<4", ((N * D >= 2e17) & (FRAME["loss"] < 4)).sum()),
    ],
)
def test_where_chooses_rows(tmp_path: Path, where: str, rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "runs.csv"
    FRAME.assign(N=[f"{value / 1e6!r}M" for value in N.tolist()]).to_csv(table, index=False)
    assert fit(table, f"where={where}") == DONE
    assert json.loads((tmp_path / "out" / "fits.json").read_text())["runs"]["used"] == rows


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("loss <", "is not an expression"),
        ("@loss < 3", "is not an expression"),
        ("loss.max() < 3", "not allowed"),
        ("__import__('os').system('true')", "not allowed"),
        ("loss.__class__ == 3", "not allowed"),
        ("[x for x in loss]", "not allowed"),
        ("lss < 3", "names 'lss', which is no column"),
        ("loss < 'a'", "cannot be evaluated"),
        ("loss * 2", "is not true or false for each row|cannot be evaluated"),
        ("loss < 0", "none of 24 rows is left"),
    ],
)
def test_expressions_that_are_none(tmp_path: Path, where: str, message: str) -> None:
    (tmp_path / "runs.csv").write_text(CSV)
    config = compose([f"table={tmp_path / 'runs.csv'}", f"where={where}"])
    assert config.where == where
    with pytest.raises(LawError, match=message):
        read_tables(config.columns, config.fit, tmp_path / "runs.csv", None, where=config.where)


def test_bad_rows_are_refused_by_their_number_or_dropped_with_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "runs.csv"
    frame = FRAME.astype(object).assign(state="done")
    frame.loc[2, "loss"], frame.loc[9, "N"], frame.loc[10, "loss"], frame.loc[0, "state"] = None, "big", -1, "failed"
    frame.to_csv(table, index=False)
    assert fit(table) == BAD_INPUT
    assert "'N' is 'big' in row 10 (" in capsys.readouterr().err  # row 1 is the first below the header, whatever was left out
    assert fit(table, "where=run_id not in ['003', '009']") == BAD_INPUT
    assert "'loss' is missing in row 3 (" in capsys.readouterr().err
    assert fit(table, "missing=drop") == DONE
    read = json.loads((table.parent / "out" / "fits.json").read_text())["runs"]
    assert read["used"] == 20
    assert {run["run_id"]: run["reason"] for run in read["excluded"]} == {
        "000": "not done: failed",
        "002": "'loss' is missing",
        "009": "'N' is 'big', not a positive number",
        "010": "'loss' is -1.0, not a positive number",
    }
    runs = runs_from_frame(frame, missing="drop")
    assert runs.notes == ("3 of 23 rows were dropped, with missing or bad values: 1 by 'N', 2 by 'loss'",)
    with pytest.raises(LawError, match=r"leaves none of 24 rows \(24 by 'loss'\)"):
        runs_from_frame(FRAME.assign(loss=np.nan), missing="drop")
    with pytest.raises(LawError, match="N is 50 in row 2 "):
        runs_from_frame(FRAME.assign(N=[1e7, 50, *N[2:]], state=["failed", *["done"] * 23]).drop(columns="run_id"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("columns.Nn=x", r"'columns\.Nn' is no field; did you mean columns\.N\? columns has run_id, N, D"),
        ("+columns.lost=x", r"'columns\.lost' is no field; did you mean columns\.loss\?"),
        ("fit.hubber_delta=1", r"did you mean fit\.huber_delta\?"),
        ("tabel=x.csv", r"'tabel' is no field; did you mean table\?"),
        ("ask.at.M=3", r"'ask\.at\.M' is no field"),
        ("table.name=x", r"'table\.name' is no field; table has no fields"),
        ("missing=ignore", "missing=ignore is none of refuse, drop"),
        ("columns.replicates=mean", "none of best, seeds, refuse"),
    ],
)
def test_unknown_fields_are_named_with_those_there_are(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compose([override])


@pytest.mark.parametrize("name", ["runs (1).csv", "a=b.csv", "größe.csv", "a,b.csv", "it's.csv", "[x] {y}.csv", "~runs.csv"])
def test_paths_are_taken_as_they_are_typed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose([f"table={tmp_path / name}"]).table == str(tmp_path / name)
    assert compose([f"table=~/{name}"]).table == str(tmp_path / name)


def points(run_id: str, tokens: list[int], loss: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame({"run_id": run_id, "Tokens": [each * 10**6 for each in tokens], "loss": loss})


ONE = runs_from_frame(pd.DataFrame({"run_id": ["007"], "N": [1e6], "D": [1e8], "loss": [3.0], "batch_tokens": [10**6]}))


def test_curves_as_they_were_logged(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    first = points("007", [0, 10, 20, 30, 40, 50], [11.0, 5.0, 4.5, None, 4.0, 3.9])
    resumed = points("007", [25, 35, 45, 55], [4.4, 4.1, 3.95, 3.8])
    pd.concat([first, resumed]).to_csv(path, index=False)
    (curve,) = read_curves(path, {}, ONE)
    assert curve.run_id == "007"
    assert (curve.tokens / 1e6).tolist() == [10, 20, 25, 35, 45, 55]
    assert curve.loss.tolist() == [5.0, 4.5, 4.4, 4.1, 3.95, 3.8]
    again = points("007", [30, 40, 50, 60], [4.2, 4.05, 3.8, 3.7])
    pd.concat([first, again]).rename(columns={"Tokens": "Step"}).assign(Step=lambda frame: frame["Step"] / 1e6).to_csv(path)
    (curve,) = read_curves(path, {}, ONE)
    assert curve.loss.tolist() == [5.0, 4.5, 4.2, 4.05, 3.8, 3.7]
    frame = pd.concat([first, again]).assign(N=1e6)
    assert as_curves(frame)[0].loss.tolist() == curve.loss.tolist()
    points("007", [50, 10, 40, 20], [3.8, 5.0, 4.0, 4.5]).to_csv(path)  # not sorted, and not resumed
    assert read_curves(path, {}, ONE)[0].loss.tolist() == [5.0, 4.5, 4.0, 3.8]
    pd.concat([points("x", [1, 2], [4.0, 3.0]), points("007", [10, 20], [5.0, -1.0])]).to_csv(path)
    with pytest.raises(LawError, match=r"'loss' is -1\.0 in row 4 of 4"):
        read_curves(path, {}, ONE)


def test_a_run_that_was_started_again_goes_by_its_name(tmp_path: Path) -> None:
    """wandb's exports have its name twice; the first attempt crashed."""
    page = pd.DataFrame({"Name": ["007", "007"], "State": ["crashed", "finished"], "ID": ["ab", "cd"]})
    page.assign(N=1e6, D=1e8, loss=[np.nan, 3.0]).to_csv(tmp_path / "page.csv", index=False)
    runs = read_runs(tmp_path / "page.csv")
    assert runs.run_id.tolist() == ["007"]
    assert [run.run_id for run in runs.excluded] == ["007 (ab)"]
    chart = "tokens,007 - loss,007 - loss__MIN,007 - loss,007 - loss__MIN\n0,9,9,9,9\n1e6,5,5,6,6\n2e6,,,4,4\n3e6,,,3,3\n"
    (tmp_path / "chart.csv").write_text(chart)
    assert read_curves(tmp_path / "chart.csv", {}, runs)[0].loss.tolist() == [6, 4, 3]
