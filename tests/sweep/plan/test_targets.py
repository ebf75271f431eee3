"""What a grid asks for: sizes off the optimum, whole shapes, larger copies."""

import math

import pytest
import yaml

from models import ModelConfig, SizeLadder, count_parameters
from sweep.config import compose, conf_directory
from sweep.errors import InputError
from sweep.plan.grid import PlannedRun, expand, ladder_of
from sweep.plan.targets import remarks_on_sizes, targets_of

SHAPE = "{d_model: 32, n_layers: 3, n_heads: 4, d_ff: 80}"
AROUND = ("grid=around", "grid.around.budgets=[2e11]")


def expanded(*overrides: str, training_tokens: int = 31_000_000) -> list[PlannedRun]:
    config = compose(["device=cpu", *overrides])
    return expand(config, corpus="0" * 16, vocab_size=257, training_tokens=training_tokens)


def test_around_asks_for_sizes_off_the_optimum_at_one_budget() -> None:
    planned = expanded(*AROUND, "grid.around.factors=[0.25,1,4]", "grid.around.tokens_per_parameter=20")
    optimum = math.sqrt(2e11 / 6 / 20)  # N with 20 N tokens at 6 N D = 2e11
    assert {each.budget for each in planned} == {2e11}
    runs = sorted((each.run for each in planned), key=lambda run: run.N)
    for run, factor in zip(runs, (0.25, 1, 4), strict=True):
        assert run.N == pytest.approx(factor * optimum, rel=0.3)  # the ladder has no shape nearer
        assert 6 * run.N * run.D == pytest.approx(2e11, rel=0.51 / run.steps)


def test_factors_of_one_shape_are_refused_with_the_neighbours_of_the_ladder() -> None:
    message = r"factors=1 and 1.1 at budget 2e\+11 both give N = 42,140, .* 26,280 \(0.644\) and 52,000 \(1.27\)"
    with pytest.raises(InputError, match=message) as error:
        expanded(*AROUND, "grid.around.factors=[1,1.1]")
    assert "\n" not in str(error.value)


def test_a_whole_shape_is_trained_as_it_is_given() -> None:
    (planned,) = expanded(
        "grid=list", f"grid.runs=[{{shape: {SHAPE}, D: 1e6}}]", "model.tied_embeddings=true", "model.kv_groups=2"
    )
    assert planned.budget is None
    assert planned.run.model == ModelConfig(
        vocab_size=257,
        d_model=32,
        n_layers=3,
        n_heads=4,
        n_kv_heads=4,
        d_ff=80,
        context_length=128,
        tied_embeddings=True,
        rope_theta=100,
    )
    assert planned.run.D == pytest.approx(1e6, rel=1e-3)


def test_remarks_speak_of_sizes_and_not_of_shapes() -> None:
    config = compose(["grid=list", f"grid.runs=[{{shape: {SHAPE}, D: 1e6}}, {{N: 3e3, D: 1e6}}]"])
    (remark,) = remarks_on_sizes(config.grid, ladder_of(config, 257))
    assert "N = 3,000 becomes" in remark


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("{shape: {d_model: 32, n_layers: 3, n_heads: 5, d_ff: 80}, D: 1e6}", "n_heads is 5; it must divide d_model = 32"),
        ("{shape: {d_model: 12, n_layers: 3, n_heads: 4, d_ff: 80}, D: 1e6}", "n_heads is 4; .* into an even head_dim"),
        ("{shape: {d_model: 33, n_layers: 3, n_heads: 3, d_ff: 80}, D: 1e6}", "d_model is 33; it must be even"),
        ("{D: 1e6}", "either N or shape"),
        (f"{{N: 1e4, shape: {SHAPE}, D: 1e6}}", "either N or shape"),
        ("{shape: {d_model: 32, n_layers: 0, n_heads: 4, d_ff: 80}, D: 1e6}", r"runs\[0\].shape.n_layers=0 is out of range"),
        ("{shape: {d_model: 32, n_layers: 1, n_heads: 4}, D: 1e6}", "d_ff"),
    ],
)
def test_impossible_shapes_are_refused_on_one_line(run: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        expanded("grid=list", f"grid.runs=[{run}]")
    assert "\n" not in str(error.value)


def test_a_scale_multiplies_widths_sizes_tokens_and_budgets() -> None:
    ladder = SizeLadder(vocab_size=257, context_length=128, aspect_ratio=10, head_dim=8)
    grids = ["grid=[isoflop,around,horizons,list]", f"grid.runs=[{{shape: {SHAPE}, D: 1e6}}, {{N: 2e4, D: 1e6}}]"]
    grids += ["grid.around.factors=[0.5,1,2]", "grid.isoflop.sizes=3"]
    small, large = (targets_of(compose([*grids, f"grid.scale={k}"]).grid, ladder) for k in (1, 2))
    for one, two in zip(small, large, strict=True):
        assert two.budget == (None if one.budget is None else 16 * one.budget)
    shape, named = large[-2:]
    assert (shape.model.d_model, shape.model.d_ff, shape.model.n_layers, shape.model.n_heads) == (64, 160, 3, 4)
    assert shape.tokens == named.tokens == 4e6
    assert named.model == ladder.nearest(8e4)
    horizons = [target for target in large[:-2] if target.budget is None]
    ratios = {round(target.tokens / count_parameters(target.model).total) for target in horizons}
    assert ratios == {5, 10, 20, 40, 80}
    assert horizons[0].model == ladder.nearest(4 * 8e3)


def described() -> list[str]:
    """The experiments that have an `about`."""
    files = sorted((conf_directory() / "experiment").glob("*.yaml"))
    return [path.stem for path in files if "about" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("experiment", ["smoke", *described()])
def test_every_experiment_has_a_larger_copy(experiment: str) -> None:
    small = expanded(f"experiment={experiment}")
    large = expanded(f"experiment={experiment}", "scale=gpu", "device=cpu", training_tokens=64 * 31_000_000)  # as the docs say
    assert len(small) == len(large)
    assert not {each.run.run_id for each in small} & {each.run.run_id for each in large}
    spent = [sum(6 * each.run.N * each.run.D for each in planned) for planned in (small, large)]
    assert spent[1] == pytest.approx(8**4 * spent[0], rel=0.5)


def test_a_larger_copy_has_a_name_of_its_own_unless_one_is_given() -> None:
    assert compose(["experiment=smoke", "scale=gpu"]).name == "smoke-gpu"
    assert compose(["experiment=smoke", "scale=gpu"]).out == "store/sweeps/smoke-gpu"
    assert compose(["experiment=smoke", "scale=gpu", "name=mine"]).name == "mine"
    assert compose(["experiment=smoke", "scale=gpu", "grid.scale=4", "device=cpu"]).grid.scale == 4
