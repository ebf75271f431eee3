"""The axis of a sweep: its combinations, the runs that come of them, and what is refused."""

import json
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest

from sweep.cli import main
from sweep.commands import BAD_INPUT, DONE
from sweep.commands.sweeps import open_sweep
from sweep.config import compose
from sweep.errors import InputError
from sweep.plan.axis import label_of, variations
from sweep.plan.grid import PlannedRun, expand

GRID = ["grid=list", "grid.runs=[{N: 8e3, D: 4e5}, {N: 4.9e3, D: 2e5}]"]


def planned(*overrides: str) -> list[PlannedRun]:
    return expand(compose([*GRID, *overrides]), corpus="c", vocab_size=257, training_tokens=1e7)


def test_every_cell_has_every_combination_and_seed() -> None:
    runs = planned(
        "axis.vary={schedule.cycle: [1, 1.5], optimizer.lr_scale: [1, 2]}",
        "axis.variants={adam: {}, still: {optimizer.weight_decay: 0}}",
        "axis.seeds=[3,5]",
    )
    assert len(runs) == len({each.run.run_id for each in runs}) == 2 * 2 * 2 * 2 * 2
    for each in runs:
        assert each.run.schedule.cycle == float(each.labels["schedule.cycle"])
        assert each.run.optimizer.weight_decay == (0 if each.labels["variant"] == "still" else 0.1)
        assert each.run.seed in (3, 5)
        assert each.run.D == pytest.approx({0: 4e5, 1: 2e5}[each.cell], rel=1e-3)
    assert runs[0].label == "adam, schedule.cycle=1, optimizer.lr_scale=1"


def test_the_baseline_of_an_axis_is_the_run_without_one() -> None:
    """So a sweep that was trained before an axis was thought of is its baseline."""
    assert {each.run.run_id for each in planned()} == {
        each.run.run_id for each in planned("axis.vary={schedule.cycle: [1, 2]}") if each.label == "schedule.cycle=1"
    }


def test_values_of_every_kind_are_labels() -> None:
    found = variations(
        compose([*GRID, "axis.vary={optimizer.peak_lr: [null, 1e-3], model.tied_embeddings: [false, true], precision: [fp32]}"])
    )
    assert [label_of(each.labels) for each in found][1:3] == [
        "optimizer.peak_lr=null, model.tied_embeddings=true, precision=fp32",
        "optimizer.peak_lr=0.001, model.tied_embeddings=false, precision=fp32",
    ]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("axis.vary={schedule.cicle: [1, 2]}", "did you mean schedule.cycle"),
        ("axis.vary={cluster.workers: [1, 2]}", "cluster.workers changes no run"),
        ("axis.vary={fit.level: [0.8, 0.9]}", "fit.level changes no run"),
        ("axis.vary={axis.seeds: [[0], [1]]}", "axis.seeds changes no run"),
        ("axis.vary={data.validation_tokens: [4096, 8192]}", "makes another corpus; launch a sweep for each"),
        ("axis.vary={data: [text, jsonl]}", "data makes another corpus"),
        ("axis.vary={schedule.cycle: [1, 1.0]}", "at least one value, and each once"),
        ("axis.vary={schedule.cycle: []}", "at least one value"),
        ("axis.vary={schedule.cycle: [1, 0.5]}", "schedule.cycle=0.5: schedule.cycle=0.5 is out of range"),
        ("axis.vary={seed: [1, 2]}", "seed is varied by axis.seeds"),
        ("axis.variants={a: {}, b: {schedule.cycle: 1}}", "a and b are the same run"),
        ("axis.variants={}", "axis.variants is empty"),
        ("axis.variants={a: {}, b/c: {schedule.cycle: 2}}", "b/c cannot be a label"),
        ("axis.variants={a: {}, ..: {schedule.cycle: 2}}", r"\.\. cannot be a label"),
        ("axis.vary={grid.runs: [[{N: 3e3, D: 1e5}], [{N: 3e3, D: 2e5}]]}", "Give another value a name"),
        ("axis.seeds=[]", "at least one seed"),
        ("axis.seeds=[1,1]", "each once"),
        ("axis.seeds=[-1]", "from 0 on"),
    ],
)
def test_an_axis_that_cannot_be_is_refused_on_one_line(axis: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        planned(axis)
    assert str(refused.value).isprintable()


def test_a_field_in_two_places_is_refused() -> None:
    with pytest.raises(InputError, match=r"schedule.cycle is set twice"):
        planned("axis.vary={schedule.cycle: [1, 2]}", "axis.variants={a: {}, b: {schedule.cycle: 3}}")


def test_a_sweep_with_an_axis_from_launch_to_comparison(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"store={tmp_path / 'store'}"
    sweep = ["data=text", f"data.paths=[{text_file}]", "data.validation_tokens=4096", "data.max_epochs=20", "device=cpu", store]
    sweep += ["grid=list", "grid.runs=[{N: 2252, D: 3e4}, {N: 4872, D: 3e4}]", "name=ours", "axis.seeds=[0,1,2]"]
    # A decay that is hardly another is no difference; a tenth of the rate is one.
    sweep += ["axis.variants={base: {}, same: {optimizer.weight_decay: 0.10001}, slow: {optimizer.lr_scale: 0.1}}"]
    assert main(["launch", *sweep]) == DONE
    assert main(["status", "ours", store]) == DONE
    assert "slow, seed 2" in capsys.readouterr().out
    assert main(["compare", "ours", store, "compare.margin=0.3"]) == DONE  # such short runs differ much between seeds
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "store" / "sweeps" / "ours" / "compare.json").read_text())["labels"]["comparison"]
    verdicts = {(each["label"], each["cell"]): each["verdict"] for each in found["differences"]}
    assert {verdicts["same", cell] for cell in (0, 1, -1)} == {"equal within"}
    assert {verdicts["slow", cell] for cell in (0, 1, -1)} == {"differs"}
    assert "no factors in N and C" in shown
    written = {path.name for path in (tmp_path / "store" / "sweeps" / "ours").glob("*.csv")}
    assert written == {"compare.csv", "held_out_curves.csv"}  # evaluations.csv is what evaluate writes

    # Each label is fitted by itself, and two sizes make no law.
    assert main(["fit", "ours", store]) == BAD_INPUT
    captured = capsys.readouterr()
    assert "base, same, slow: no law could be fitted to 6 runs" in captured.err
    assert "isosweep compare ours" in captured.err
    part = open_sweep(Namespace(sweep="ours", overrides=[store], config_dir=None)).of_label("slow")
    runs = pd.read_csv(Path(part.config.out) / "runs.csv")
    assert set(runs["label"]) == {"slow"}
    assert len(runs) == 6
    assert main(["plot", "ours", store]) == DONE
    assert (tmp_path / "store" / "sweeps" / "ours" / "compare.png").stat().st_size > 10_000
