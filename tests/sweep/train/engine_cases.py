"""Shapes, runs and data that the tests of engines share."""

from dataclasses import replace
from typing import Any

import numpy as np

from models import ModelConfig
from sweep.data import TrainingSequences
from sweep.plan.run import OptimizerSettings, RunConfig, ScheduleSettings

SHAPES = [
    ModelConfig(vocab_size=257, d_model=4, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=10, context_length=32),
    ModelConfig(vocab_size=257, d_model=24, n_layers=2, n_heads=3, n_kv_heads=3, d_ff=64, context_length=64, rope_theta=100.0),
    ModelConfig(vocab_size=61, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=40, context_length=17),  # GQA, odd T
    ModelConfig(
        vocab_size=257, d_model=24, n_layers=1, n_heads=4, n_kv_heads=1, d_ff=64, context_length=33, tied_embeddings=True
    ),
    ModelConfig(vocab_size=100, d_model=128, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=64, context_length=48),  # heads of 64
    ModelConfig(vocab_size=100, d_model=80, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=24, context_length=130),  # heads of 40
    ModelConfig(vocab_size=61, d_model=512, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=24, context_length=20),  # a head of 512
]


def run_of(model: ModelConfig, precision: str = "fp32", batch_size: int = 3, **changes: Any) -> RunConfig:
    optimizer = OptimizerSettings(peak_lr=0.01, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, grad_clip=1.0)
    return RunConfig(
        model=model,
        corpus="none",
        batch_size=batch_size,
        steps=40,
        optimizer=replace(optimizer, **changes),
        schedule=ScheduleSettings(warmup_steps=2, final_fraction=0.1, cycle=1.0),
        seed=0,
        precision=precision,
        evaluation_points=1,
    )


def sequences_of(run: RunConfig) -> TrainingSequences:
    """Tokens of which each tells something about the next."""
    tokens = np.random.default_rng(0).integers(0, 3, 6000).cumsum() % run.model.vocab_size
    T = run.model.context_length
    return TrainingSequences(tokens.astype(np.uint16), context_length=T, batch_size=run.batch_size, seed=0)
