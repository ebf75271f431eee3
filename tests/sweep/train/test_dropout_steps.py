"""Runs with dropout: every engine and every way to cut a step gives the same one, and evaluation drops nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from sweep.train.engine.autograd import AutogradEngine
from sweep.train.engine.graph import GraphEngine
from sweep.train.engine.native import supports
from tests.sweep.train.engine_cases import SHAPES, run_of, sequences_of

RUN = run_of(replace(SHAPES[2], dropout=0.2), batch_size=5)


def made(kind: type[AutogradEngine] = AutogradEngine, **options: Any) -> AutogradEngine:
    return kind(RUN, sequences_of(RUN), device="cpu", **options)


def trained(engine: AutogradEngine, start: int = 0, stop: int = 6) -> torch.Tensor:
    return torch.stack([engine.step(step) for step in range(start, stop)])


@pytest.mark.parametrize("kind", ["micro-batches", "recompute", "graph"])
def test_every_way_to_take_a_step_drops_the_same(kind: str) -> None:
    other = made(GraphEngine) if kind == "graph" else made(micro_batch=2 if kind == "micro-batches" else 5)
    other.model.recompute = kind == "recompute"
    torch.testing.assert_close(trained(other), trained(made()), rtol=1e-5, atol=1e-6)


def test_a_resumed_run_drops_what_it_would_have_dropped() -> None:
    whole, first, second = made(), made(), made()
    trained(first, 0, 3)
    second.load(first.state())
    torch.testing.assert_close(trained(second, 3), trained(whole)[3:], rtol=0, atol=0)


def test_training_drops_and_evaluation_does_not() -> None:
    engine = made()
    without = AutogradEngine(plain := replace(RUN, model=SHAPES[2]), sequences_of(plain), device="cpu")
    held_out = sequences_of(RUN).batch(7)
    torch.testing.assert_close(engine.sequence_losses(held_out), without.sequence_losses(held_out), rtol=0, atol=0)
    assert abs(engine.step(0)[0] - without.step(0)[0]) > 1e-3


def test_native_leaves_dropout_to_autograd_and_takes_unique_tokens() -> None:
    assert supports(RUN) == "the native engine does not know model.dropout"
    assert not supports(replace(RUN, model=SHAPES[2], unique_tokens=1000))
