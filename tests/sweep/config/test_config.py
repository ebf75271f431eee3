"""Composing a sweep, and what is said of a bad one."""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from sweep.commands.sweeps import open_sweep
from sweep.config import PowerRule, compose, conf_directory, from_omegaconf, override
from sweep.config.overrides import given_texts
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


NAMES = [
    "../../x",
    "..",
    ".",
    "",
    " ",
    "/abs",
    "a/b",
    "a\nb",
    "a\0b",
    "-x",
    "~x",
    "a=b",
    ".x",
    "a\\b",
    "x ",
    "ü" * 101,
    "a\u2028b",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_folder_of_the_store_are_refused_on_one_line(name: str, tmp_path: Path) -> None:
    store = f"store={tmp_path / 'store'}"
    with pytest.raises(InputError, match=r"^name=.* cannot be a sweep's name; it begins with") as refused:
        compose([f"name={name}", store])
    assert str(refused.value).isprintable()
    for options in ({"sweep": name, "overrides": [store]}, {"sweep": None, "overrides": [store, f"name={name}"]}):
        if name or options["sweep"] is None:
            with pytest.raises(InputError, match="cannot be a sweep's name" if name else "which sweep"):
                open_sweep(Namespace(**options))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["a", "lr (2), seed 1", "größe-1.5", "1e3", "007", "true"])
def test_names_are_taken_as_they_are_typed(name: str) -> None:
    assert compose([f"name={name}"]).name == name


PATHS = ["a,b c", "a'b\"c", "[v1] (x) {y}", " #a;b&c!d ", "a\nb", "%j", "größe", "a\\b c\\", "1e3", "=a:b", "$HOME x"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_taken_as_they_are_typed_and_interpolations_are_resolved(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/big disk")
    assert compose([f"store={path}"]).store == path
    assert given_texts([f"store={path}"], store=None) == {"store": path}
    typed = f"store=${{oc.env:SCRATCH}}/{path}"
    assert compose([typed]).store == f"/big disk/{path}"
    assert given_texts([typed], store=None) == {"store": f"/big disk/{path}"}


def test_a_variable_of_the_shell_in_a_setup_line_is_explained_and_can_be_written() -> None:
    with pytest.raises(InputError, match=r"cluster.slurm.setup\[0\]: .*HOME.* write \$HOME or \\\${HOME} for the shell's"):
        compose(["cluster=slurm", 'cluster.slurm.setup=["source ${HOME}/x"]'])
    config = compose(["cluster=slurm", r'cluster.slurm.setup=["source \${HOME}/x"]'])
    assert from_omegaconf(asdict(config)).cluster.slurm == config.cluster.slurm
    assert override(config, ["report.title=x"], {}).cluster.slurm == config.cluster.slurm
    assert config.cluster.slurm is not None
    assert config.cluster.slurm.setup == ["source ${HOME}/x"]


@pytest.mark.parametrize("limit", ["1h", "-1", "1:2:3:4", "1.5", "2-", "2-1:1:1:1", "yes", "1:3o"])
def test_what_is_no_time_of_slurm_is_refused(limit: str) -> None:
    with pytest.raises(InputError, match=r"^cluster.slurm.time_limit=.* is no time as Slurm writes it: minutes, MM:SS"):
        compose(["cluster=slurm", f"cluster.slurm.time_limit={limit}"])


def test_the_older_time_limit_goes_on_and_no_limit_ends_before_its_signal() -> None:
    slurm = compose(["cluster=slurm", "cluster.slurm.time_limit_minutes=90"]).cluster.slurm
    assert slurm is not None
    assert slurm.limit() == "90"
    with pytest.raises(InputError, match="are both given; set one of them to null"):
        compose(["cluster=slurm", "cluster.slurm.time_limit_minutes=90", "cluster.slurm.time_limit=2:00:00"])
    with pytest.raises(InputError, match=r"time_limit=1:30 is over before .* or set cluster.slurm.signal_s=45"):
        compose(["cluster=slurm", "cluster.slurm.time_limit=1:30"])
    compose(["cluster=slurm", "cluster.slurm.time_limit=1:30", "cluster.slurm.signal_s=45"])
