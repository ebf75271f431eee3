"""The bench command, and estimates from what it wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from models import SizeLadder, flops_per_token
from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.plan.estimate import Speed
from sweep.plan.run import RunConfig
from sweep.store.runs import read_benchmarks
from sweep.train.bench import measure, save

OVERRIDES = ["device=cpu", "data.context_length=32", "bench.batch_tokens=128", "bench.seconds=0.05"]


def test_bench_measures_and_feeds_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_run: RunConfig) -> None:
    overrides = [*OVERRIDES, f"store={tmp_path}", "bench.sizes=[3e3]", "bench.engines=[auto,plain]", "bench.processes=[1,2]"]
    assert main(["bench", *overrides]) == DONE
    output = capsys.readouterr().out
    assert "tokens/s" in output
    rows = read_benchmarks(tmp_path / "bench.json")
    assert [(row["engine"], row["processes"]) for row in rows] == [("native", 1), ("native", 2), ("plain", 1), ("plain", 2)]
    shape = SizeLadder(vocab_size=257, context_length=32).nearest(3e3)
    assert "attention_backward" in rows[0]["breakdown"]
    for row in rows:
        assert row["flops_per_s"] == pytest.approx(row["tokens_per_s"] * flops_per_token(shape, "exact"))
        assert 0 < row["flops_per_s"] < row["peak_flops_per_s"]
        assert 1e7 < row["memory_bytes"] < 1e10
        assert sum(row["breakdown"].values()) <= 1.01
    here = measure(shape, "native", device="cpu", precision="fp32", processes=0, threads=1, batch_tokens=128, seconds=0.05)
    assert (here.engine, here.processes) == ("native", 1)
    speed = Speed.measured([], "cpu", 0, rows)
    seconds = speed.seconds(tiny_run)
    assert seconds is not None
    assert speed.rates == {rows[1]["N"]: rows[1]["tokens_per_s"] / 2}  # beside another, as in a pool
    assert Speed.measured([], "cuda", 0, rows).seconds(tiny_run) is None  # another device's benchmark says nothing

    rows[1]["tokens_per_s"] /= 10
    slower = Speed.measured([], "cpu", 0, rows).seconds(tiny_run)
    assert slower == pytest.approx(10 * seconds)


def test_a_second_measurement_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    row: dict[str, Any] = dict.fromkeys(("N", "processes", "threads", "batch_tokens", "tokens_per_s"), 1)
    row |= dict.fromkeys(("engine", "precision", "device"), "x")
    path.write_text(json.dumps([row]))
    save(path, [])
    assert read_benchmarks(path) == [row]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bench.engines=[turbo]", "bench.engines: turbo is none of auto, plain, native"),
        ("bench.sizes=[1]", "bench.sizes: no model of 1 parameters"),
        ("bench.seconds=0", "bench.seconds=0"),
        ('bench.engines=["eager, graph"]', "eager, graph needs device=cuda"),
    ],
)
def test_bad_input(override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *OVERRIDES, f"store={tmp_path}", override]) == BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{")
    with pytest.raises(Exception, match=r"bench\.json is damaged .* delete it"):
        read_benchmarks(tmp_path / "bench.json")
