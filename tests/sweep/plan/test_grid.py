"""From a sweep to its runs."""

import numpy as np
import pytest

from models import flops_per_token
from sweep.config import compose
from sweep.errors import InputError
from sweep.plan.grid import PlannedRun, expand
from sweep.plan.run import RunConfig


def expanded(*overrides: str, training_tokens: int = 31_000_000) -> list[PlannedRun]:
    config = compose(["device=cpu", *overrides])
    return expand(config, corpus="0" * 16, vocab_size=257, training_tokens=training_tokens)


def test_smoke_brackets_the_valley_at_three_budgets() -> None:
    planned = expanded("experiment=smoke")
    budgets = {p.budget for p in planned}
    assert len(planned) == 18
    assert len(budgets) == 3
    for budget in budgets:
        assert budget is not None
        profile = [p.run for p in planned if p.budget == budget]
        ratios = [run.D / run.N for run in profile]
        assert len({run.N for run in profile}) == 6
        assert min(ratios) < 20 < max(ratios)
        for run in profile:
            # The planned budget, to half a step of rounding.
            assert 6 * run.N * run.D == pytest.approx(budget, rel=0.51 / run.steps)


def test_cpu_spans_two_decades_and_sixteenfold_horizons() -> None:
    planned = expanded("experiment=cpu")
    budgets = sorted({p.budget for p in planned if p.budget})
    assert len(budgets) >= 5
    assert budgets[-1] / budgets[0] >= 100
    assert all(sum(p.budget == budget for p in planned) == 7 for budget in budgets)
    horizons = [p.run for p in planned if p.budget is None]
    for N in {run.N for run in horizons}:
        D = [run.D for run in horizons if run.N == N]
        assert len(D) >= 4
        assert max(D) / min(D) >= 15.5


def test_rules_become_numbers() -> None:
    (plan,) = expanded("grid=list", "grid.runs=[{N: 2.6e4, D: 1e6}]", "optimizer.lr_scale=0.5")
    run = plan.run
    assert run.optimizer.peak_lr == pytest.approx(0.5 * 13_944**-0.416, rel=1e-3)
    assert run.batch_tokens == 512
    assert run.steps == round(1e6 / 512)
    assert run.schedule.warmup_steps == round(26_280 / 512)
    short = expanded("grid=list", "grid.runs=[{N: 2.6e4, D: 1e5}]")[0].run
    assert short.schedule.warmup_steps == round(0.1 * short.steps)
    longer = expanded("grid=list", "grid.runs=[{N: 2.6e4, D: 2e7}]")[0].run
    assert longer.batch_tokens > run.batch_tokens


def test_a_budget_is_spent_under_its_convention() -> None:
    for convention in ("6N", "kaplan", "exact"):
        for plan in expanded("experiment=smoke", f"grid.isoflop.flops={convention}", "grid.isoflop.budgets=[1e11]"):
            spent = flops_per_token(plan.run.model, convention) * plan.run.D
            assert spent == pytest.approx(1e11, rel=0.51 / plan.run.steps)


def test_identity_is_content() -> None:
    base = {p.run.run_id for p in expanded("experiment=smoke")}
    same = (
        "store=elsewhere",
        "device=cpu",
        "cluster.workers=7",
        "name=other",
        "cluster.micro_batch=1",
        "fit.flops=kaplan",
        "data.max_epochs=2",
    )
    for override in same:
        assert {p.run.run_id for p in expanded("experiment=smoke", override)} == base, override
    other = ("seed=1", "optimizer.lr_scale=2", "optimizer.weight_decay=0", "schedule.cycle=1.5", "precision=bf16")
    for override in other:
        assert not {p.run.run_id for p in expanded("experiment=smoke", override)} & base, override


def test_a_run_asked_for_twice_is_one_run_with_a_budget() -> None:
    alone = expanded("grid.isoflop.budgets=[6e10]", "grid.isoflop.sizes=1")[0].run
    named = f"grid.runs=[{{N: {alone.N}, D: {6e10 / 6 / alone.N}}}]"
    both = expanded("grid=[list,isoflop]", "grid.isoflop.budgets=[6e10]", "grid.isoflop.sizes=1", named)
    assert [p.budget for p in both] == [6e10]


def test_largest_first() -> None:
    flops = [flops_per_token(p.run.model, "exact") * p.run.D for p in expanded("experiment=cpu")]
    assert (np.diff(flops) <= 0).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grid=none"], "there is no run"),
        (["optimizer.lr_rule.parameters=1000", "optimizer.lr_rule.max=inf"], "optimizer.lr_rule gives inf"),
        (["optimizer.lr_rule.parameters=-1000"], "optimizer.lr_rule gives 0"),
        (["model.head_dim=7"], "model.head_dim=7 is not a multiple of 4"),
        (["grid=list", "grid.runs=[{N: 100, D: 1e6}]"], "grid.runs: N: no model of 100 parameters"),
        (["grid=list", "grid.runs=[{N: 2e4, D: -1}]"], "grid.runs: D=-1.0 is out of range"),
        (["grid=list", "grid.runs=[{N: 2e4, D: 1e9}]"], r"horizon of 999,997,440 .* is longer than the data, 30,999,"),
        (["grid=list", "grid.runs=[{N: 2e4, D: 100}]"], "shorter than one step of 512"),
        (["grid.isoflop.budgets=[0]"], "grid.isoflop.budgets=0.0 is out of range"),
        (["grid.isoflop.budgets=[1e3]"], "grid.isoflop at budget 1000"),
        (["data.context_length=65536", "grid.isoflop.budgets=[1e13]"], "do not fill one sequence"),
        (["data.validation_tokens=200"], "data.validation_tokens=200 are not two sequences"),
    ],
)
def test_impossible_grids_are_refused(overrides: list[str], message: str) -> None:
    tokens = 50_000 if "context" in overrides[0] else 31_000_000
    with pytest.raises(InputError, match=message):
        expanded(*overrides, training_tokens=tokens)


def test_repetition_must_be_asked_for_by_name() -> None:
    grid = ["grid=list", "grid.runs=[{N: 2e4, D: 6e7}]"]
    with pytest.raises(InputError, match="max_epochs"):
        expanded(*grid)
    assert expanded(*grid, "data.max_epochs=2")


def runs_of(*overrides: str) -> list[RunConfig]:
    return [each.run for each in expanded(*overrides)]


def test_an_objective_of_blanks_makes_its_model() -> None:
    (causal,) = runs_of("grid=list", "grid.runs=[{N: 2e4, D: 4e5}]")
    (blanks,) = runs_of("grid=list", "grid.runs=[{N: 2e4, D: 4e5}]", "objective=blank_infilling")
    assert blanks.model.vocab_size == causal.model.vocab_size + 3
    assert (blanks.model.position_ids, causal.model.position_ids) == (2, 1)
    assert blanks.objective.document == 0.5
    assert "objective" not in causal.identity()
    (same,) = runs_of("grid=list", "grid.runs=[{N: 2e4, D: 4e5}]", "objective.document=0.1")  # of no blanks
    assert same.run_id == causal.run_id
    assert RunConfig.from_dict(blanks.to_dict()) == blanks


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.document=0.6", "objective.sentence=0.5"], "are more than all sequences"),
        (["objective.masked=1"], "objective.masked=1"),
        (["data.context_length=4"], "data.context_length=4 is too short for blanks; raise it to at least 8"),
        (["evaluation.noise_scale=true"], "is measured for objective.kind=causal only"),
        (["model.body=lstm"], "objective.kind=blank_infilling needs attention, and model.body=lstm has none"),
    ],
)
def test_what_no_objective_of_blanks_can_be(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expanded("grid=list", "grid.runs=[{N: 2e4, D: 4e5}]", "objective=blank_infilling", *overrides)
