"""Runs that others made: units, names, conventions, and the files that wandb hands out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.fit import NO_INTERVALS, LawError, Units, fit_parametric, read_curves, read_frame, read_runs
from sweep.tables.units import number

N = np.repeat(np.geomspace(2e7, 1e9, 6), 4)
D = np.tile(np.geomspace(1e9, 5e10, 4), 6)
LOSS = 1.7 + 400 / N**0.34 + 410 / D**0.28
NAMES = [f"run-{i}" for i in range(24)]
PLAIN = pd.DataFrame({"run_id": NAMES, "N": N, "D": D, "loss": LOSS, "batch_tokens": 524_288})
TRUTH = fit_parametric(PLAIN, intervals=NO_INTERVALS)


def fitted(table: str, tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """What `isosweep fit` says of a table."""
    assert main(["fit", f"table={table}", f"out={tmp_path / 'fits'}", "fit.resamples=0", *overrides]) == DONE
    return json.loads((tmp_path / "fits" / "fits.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["fit", *arguments]) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70M", 7e7),
        ("70m", 7e7),
        ("1.4B", 1.4e9),
        (" 1.4 b params", 1.4e9),
        ("300B tokens", 3e11),
        ("2T", 2e12),
        ("512k", 5.12e5),
        ("70,000,000", 7e7),
        ("1e9", 1e9),
        ("1e20 FLOPs", 1e20),
        (5, 5.0),
    ],
)
def test_numbers_as_people_write_them(text: object, value: float) -> None:
    assert number(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["8x7B", "big", "", "1.2.3M", "M", "7,0", "70 million", None])
def test_what_is_no_number(text: object) -> None:
    assert np.isnan(number(text))


def test_counts_in_words_and_in_millions_are_the_same_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = PLAIN.assign(N=[f"{float(value / 1e6)!r}M" for value in N], D=[f"{float(value / 1e9)!r}B tokens" for value in D])
    words.to_csv(tmp_path / "words.csv", index=False)
    PLAIN.assign(N=N / 1e6, D=D / 1e9).to_parquet(tmp_path / "millions.parquet")
    truth = TRUTH.a.value
    assert fitted(str(tmp_path / "words.csv"), tmp_path)["parametric"]["a"]["value"] == pytest.approx(truth, rel=1e-9)
    for unit in ("1e6", "M"):
        found = fitted(str(tmp_path / "millions.parquet"), tmp_path, f"columns.N_unit={unit}", "columns.D_unit=B")
        assert found["parametric"]["a"]["value"] == pytest.approx(truth, rel=1e-9)
    said_twice = refused(capsys, f"table={tmp_path / 'words.csv'}", "columns.N_unit=1e6")
    assert "column 'N' has units in its values" in said_twice
    for unit in ("furlongs", "0", "-1", "nan"):
        assert f"columns.N_unit={unit} is not a unit" in refused(
            capsys, f"table={tmp_path / 'words.csv'}", f"columns.N_unit={unit}"
        )
    assert "N must be in parameters" in refused(capsys, f"table={tmp_path / 'millions.parquet'}")
    with pytest.raises(LawError, match="is '8x7B' in row 1"):
        fit_parametric(words.assign(N="8x7B"))


@pytest.mark.parametrize(
    ("unit", "written"),
    [
        ("bits", LOSS / np.log(2)),
        ("bits_per_byte", LOSS / np.log(2) / 4.2),
        ("perplexity", np.exp(LOSS)),
    ],
)
def test_losses_in_other_units_are_the_same_law(unit: str, written: np.ndarray, tmp_path: Path) -> None:
    PLAIN.assign(loss=written).to_json(tmp_path / "runs.jsonl", orient="records", lines=True, double_precision=15)
    asked = ["columns.loss_unit=" + unit, *(["columns.bytes_per_token=4.2"] if unit == "bits_per_byte" else [])]
    found = fitted(str(tmp_path / "runs.jsonl"), tmp_path, *asked)
    assert found["parametric"]["E"]["value"] == pytest.approx(TRUTH.E.value, rel=1e-5)
    assert found["parametric"]["alpha"]["value"] == pytest.approx(TRUTH.alpha.value, rel=1e-5)


def test_units_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PLAIN.to_csv(tmp_path / "runs.csv", index=False)
    table = f"table={tmp_path / 'runs.csv'}"
    assert "columns.loss_unit=dits is none of nats, bits" in refused(capsys, table, "columns.loss_unit=dits")
    assert "needs columns.bytes_per_token" in refused(capsys, table, "columns.loss_unit=bits_per_byte")
    assert "columns.bytes_per_token=0" in refused(capsys, table, "columns.bytes_per_token=0")
    assert "fit.parameters=active is none of total" in refused(capsys, table, "fit.parameters=active")
    with pytest.raises(LawError, match=r"columns\.loss_unit=dits is none of"):
        Units(loss="dits")


def test_a_declared_convention_is_the_name_of_the_columns_that_were_given(tmp_path: Path) -> None:
    """A table whose N leaves embeddings out and whose C counts everything, under names of its own."""
    small, exact = 0.6 * N**1.02, 7 * N * D
    table = pd.DataFrame({"size": small, "all": N, "data": D, "cost": exact, "nll": LOSS})
    table.to_csv(tmp_path / "runs.csv", index=False)
    names = ["columns.D=data", "columns.loss=nll"]
    declared = ["fit.parameters=non_embedding", "fit.flops=exact"]
    found = fitted(str(tmp_path / "runs.csv"), tmp_path, *names, "columns.N=size", "columns.C=cost", *declared)
    assert found["convention"] == {"loss": "val", "N": "non_embedding", "C": "exact"}
    assert {row["convention"] for row in found["conventions"]} == {"N without embeddings, C exact"}
    both = [*names, "columns.N=all", "columns.N_non_embedding=size", "columns.C_exact=cost"]
    total = fitted(str(tmp_path / "runs.csv"), tmp_path, *both)
    assert total["convention"]["N"] == "total"
    assert {row["convention"] for row in total["conventions"]} == {
        "N without embeddings, C exact",
        "N with embeddings, C exact",
    }
    for other in (total["conventions"][0], found["conventions"][0]):  # the same two columns, however they were named
        assert other["a"]["value"] == pytest.approx(found["parametric"]["a"]["value"], rel=1e-6)
    assert total["parametric"]["a"]["value"] == pytest.approx(TRUTH.a.value, rel=1e-9)


def wandb_page() -> pd.DataFrame:
    """The CSV of wandb's runs page: what it calls a run, then configuration and summary by their keys."""
    return pd.DataFrame(
        {
            "Name": NAMES,
            "State": ["finished"] * 22 + ["crashed", "running"],
            "Notes": "-",
            "User": "me",
            "Tags": "",
            "Created": "2024-05-05T10:07:23.000Z",
            "Runtime": 3600,
            "Sweep": "",
            "model.params": [f"{float(value / 1e6)!r}M" for value in N],
            "batch_tokens": 524_288,
            "tokens": D,
            "eval/loss": [*LOSS[:23], np.nan],
        }
    )


RENAMED = ["columns.N=model.params", "columns.D=tokens", "columns.loss=eval/loss"]


def test_the_csv_of_wandbs_page_is_a_table_of_runs(tmp_path: Path) -> None:
    wandb_page().to_csv(tmp_path / "wandb.csv", index=False)
    found = fitted(str(tmp_path / "wandb.csv"), tmp_path, *RENAMED)
    assert found["runs"]["used"] == 22
    assert [(run["run_id"], run["reason"]) for run in found["runs"]["excluded"]] == [
        ("run-22", "not done: crashed"),
        ("run-23", "not done: running"),
    ]
    assert found["parametric"]["a"]["value"] == pytest.approx(TRUTH.a.value, rel=1e-6)


def test_runs_of_one_name_are_told_apart_by_their_id(tmp_path: Path) -> None:
    page = wandb_page().assign(ID=[f"id{i}" for i in range(24)])
    page.to_csv(tmp_path / "wandb.csv", index=False)
    assert read_frame(tmp_path / "wandb.csv")["run_id"].tolist() == NAMES
    page.assign(Name="sweep").to_csv(tmp_path / "same.csv", index=False)
    assert read_frame(tmp_path / "same.csv")["run_id"].tolist() == [f"id{i}" for i in range(24)]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_dump_of_the_api_is_a_table_of_runs(tmp_path: Path, ending: str) -> None:
    """As wandb's own manual exports a project: config and summary nested in each row."""
    config = [{"model": {"params": size}, "loss": "cross entropy", "lr": float("nan")} for size in N.tolist()]
    summary = [{"tokens": tokens, "loss": loss, "_step": 7} for tokens, loss in zip(D.tolist(), LOSS.tolist(), strict=True)]
    frame = pd.DataFrame({"summary": summary, "config": config, "name": NAMES, "state": "finished"})
    path = tmp_path / f"project{ending}"
    if ending == ".csv":
        frame.to_csv(path)
    else:
        frame.to_json(path, orient="records", lines=True, double_precision=15)
    found = fitted(str(path), tmp_path, "columns.N=model.params", "columns.D=tokens")
    assert found["parametric"]["a"]["value"] == pytest.approx(TRUTH.a.value, rel=1e-6)
    frame.assign(config="{lost").to_csv(tmp_path / "bad.csv")
    with pytest.raises(LawError, match=r"bad\.csv cannot be read as csv: config or summary is neither JSON nor"):
        read_frame(tmp_path / "bad.csv")


def wandb_chart(x: str) -> pd.DataFrame:
    """The CSV of one of wandb's charts over 24 runs, noisy, each with its own rows."""
    rng, parts = np.random.default_rng(0), []
    for name, size, tokens in zip(NAMES, N, D, strict=True):
        at = np.round(np.linspace(tokens / 200, tokens, 200) / 524_288)
        loss = 1.7 + 400 / size**0.34 + 410 / (at * 524_288) ** 0.28 + 0.05 * rng.standard_normal(200)
        where = at if x == "Step" else at * 524_288
        columns = {f"{name} - _step": at, f"{name} - train/loss": loss}
        columns |= {f"{name} - train/loss__MIN": loss - 1, f"{name} - train/loss__MAX": loss + 1}
        parts.append(pd.DataFrame({x: where} | columns))
    return pd.concat(parts).groupby(x, as_index=False).first()


@pytest.mark.parametrize(("x", "named"), [("Step", {}), ("train/tokens", {"tokens": "train/tokens"})])
def test_the_csv_of_a_wandb_chart_is_a_table_of_curves(tmp_path: Path, x: str, named: dict[str, str]) -> None:
    PLAIN.to_csv(tmp_path / "runs.csv", index=False)
    wandb_chart(x).to_csv(tmp_path / "chart.csv", index=False)
    runs = read_runs(tmp_path / "runs.csv")
    curves = read_curves(tmp_path / "chart.csv", named, runs, smoothing=10)
    assert [curve.run_id for curve in curves] == NAMES
    for curve, size, tokens, loss in zip(curves, N, D, LOSS, strict=True):
        assert curve.N == size
        assert curve.tokens[-1] == pytest.approx(tokens, rel=1e-3)
        assert curve.loss[-1] == pytest.approx(loss, abs=0.06)  # of noise 0.05, smoothed over its neighbours
        assert np.abs(np.diff(curve.loss[-50:])).mean() < 0.01
    raw = read_curves(tmp_path / "chart.csv", named, runs)
    assert np.abs(np.diff(raw[0].loss[-50:])).mean() > 0.03


def test_charts_that_do_not_say_enough_are_refused(tmp_path: Path) -> None:
    chart = tmp_path / "chart.csv"
    wandb_chart("Step").to_csv(chart, index=False)
    without = read_runs(PLAIN.drop(columns="batch_tokens").to_csv(tmp_path / "runs.csv") or tmp_path / "runs.csv")
    with pytest.raises(LawError, match=r"counts in steps \('Step'\).*no column batch_tokens"):
        read_curves(chart, {}, without)
    wandb_chart("Relative Time (Process)").to_csv(chart, index=False)
    with pytest.raises(LawError, match=r"no column 'tokens' for tokens.*columns\.tokens="):
        read_curves(chart, {}, without)
    two = wandb_chart("Step").rename(columns={"run-1 - train/loss": "run-1 - eval/loss"})
    two.to_csv(chart, index=False)
    with pytest.raises(LawError, match=r"has the metrics eval/loss, train/loss: name the loss with columns\.curve_loss"):
        read_curves(chart, {}, without)


def test_every_command_on_tables_works_on_an_export_alone(tmp_path: Path) -> None:
    wandb_page().to_csv(tmp_path / "wandb.csv", index=False)
    wandb_chart("Step").to_csv(tmp_path / "chart.csv", index=False)
    out = tmp_path / "out"
    table = [f"table={tmp_path / 'wandb.csv'}", f"curves={tmp_path / 'chart.csv'}", "columns.curve_loss=train/loss", *RENAMED]
    assert main(["plot", *table, f"out={out}", "fit.resamples=10"]) == DONE
    assert {"envelope.png", "parametric.png"} <= {path.name for path in out.iterdir()}
    assert main(["next", *table, f"out={out}", "fit.resamples=10", "next.max_runs=2"]) == DONE
    assert len(json.loads((out / "next.json").read_text())["runs"]) <= 2
