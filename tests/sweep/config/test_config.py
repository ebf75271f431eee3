"""Composing a sweep, and what is said of a bad one."""

from pathlib import Path

import pytest
import yaml

from sweep.config import PowerRule, compose, conf_directory
from sweep.errors import InputError


@pytest.mark.parametrize("experiment", [path.stem for path in (conf_directory() / "experiment").glob("*.yaml")])
def test_every_experiment_composes(experiment: str) -> None:
    config = compose([f"experiment={experiment}"])
    assert config.name == experiment
    assert config.out == f"store/sweeps/{experiment}"


@pytest.mark.parametrize("group", ["model", "data", "optimizer", "schedule", "grid", "cluster", "tracker"])
def test_every_option_of_every_group_composes(group: str) -> None:
    for path in (conf_directory() / group).glob("*.yaml"):
        needs = {"text": ["data.paths=[a.txt]"], "list": ["grid.runs=[{N: 2e4, D: 1e6}]"]}.get(path.stem, [])
        compose([f"{group}={path.stem}", *needs])


def test_grids_combine() -> None:
    grid = compose(["grid=[isoflop,horizons]"]).grid
    assert grid.isoflop is not None
    assert grid.horizons is not None
    assert len(grid.horizons.tokens_per_parameter) >= 4
    assert max(grid.horizons.tokens_per_parameter) / min(grid.horizons.tokens_per_parameter) >= 16


def test_nothing_in_conf_names_code() -> None:
    for path in conf_directory().rglob("*.yaml"):
        assert "_target_" not in path.read_text(), path
        yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "did you mean seed"),
        ("experiment=smokey", "experiment/smokey.*smoke"),
        ("modle=tiny", "modle"),
        ("model=huge", "model/huge.*tiny"),
        ("optimizer.beta1=high", "beta1"),
        ("optimizer.beta1=1.5", r"optimizer.beta1=1.5 is out of range"),
        ("optimizer.peak_lr=-1", r"optimizer.peak_lr=-1.0 is out of range; it must be above 0"),
        ("data.context_length=0", "data.context_length=0 is out of range; it must be at least 1"),
        ("device=tpu", "device=tpu is none of auto, cpu, cuda"),
        ("fit.flops=7N", "fit.flops=7N is none of 6N"),
        ("cluster.workers=many", "cluster.workers=many"),
        ("tracker=tensorboard", "tracker/tensorboard.*wandb"),
        ("tracker.kind=mlflow", "tracker.kind=mlflow is none of none, wandb"),
        ("tracker.mode=sometimes", "tracker.mode=sometimes is none of auto, online, offline"),
        ("tracker.timeout_s=0", "tracker.timeout_s=0.0 is out of range; it must be above 0"),
        ("grid=list", r"grid.runs=\[\] is empty"),
        ("grid.isoflop.budgets=[]", r"grid.isoflop.budgets=\[\] is empty"),
        ("+model._target_=os.system", "_target_"),
        ("seed=-1", "seed=-1 is out of range"),
        ("seed=99999999999999999999", "below 9223372036854775808"),
        ("optimizer.lr_scale=inf", "optimizer.lr_scale=inf is out of range"),
        ("schedule.final_fraction=2", "schedule.final_fraction=2.0 is out of range; it must be at most 1"),
        ("model=null", "model=null"),
        ("optimizer.lr_rule.coefficient=-1", "optimizer.lr_rule.coefficient=-1.0 is out of range"),
    ],
)
def test_bad_overrides_are_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        compose([override])
    assert "\n" not in str(caught.value)


def test_power_rules() -> None:
    rule = PowerRule(coefficient=2, parameters=-0.5, tokens=0.25, min=0.1, max=0.5)
    assert rule(100, 16) == pytest.approx(0.4)
    assert rule(1, 16) == 0.5
    assert rule(1e6, 16) == 0.1


def test_conf_is_the_checkouts() -> None:
    assert conf_directory() == Path(__file__).resolve().parents[3] / "conf"
