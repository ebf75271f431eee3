"""The gradient noise scale: unbiased where it is known, and equal to a computation in other words on a real run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.language_model import LanguageModel
from sweep.data import Corpus, TrainingSequences
from sweep.plan.run import NOISE_SEQUENCES, RunConfig
from sweep.store import Store, states
from sweep.train.checkpoint import load_checkpoint
from sweep.train.loop import Runtime, train
from sweep.train.noise_scale import noise_scale


def test_the_pair_is_unbiased_where_both_are_known() -> None:
    """Gradients G + noise of covariance Sigma / tokens: the means over many points are |G|^2 and the trace of Sigma."""
    rng, tokens, count, points = np.random.default_rng(0), 16, 8, 4000
    G, sd = rng.normal(size=20), rng.uniform(0.5, 4, size=20)
    g = G + rng.normal(size=(points, count, 20)) * sd / np.sqrt(tokens)
    found = [noise_scale(float((of**2).sum(axis=1).mean()), float((of.mean(axis=0) ** 2).sum()), tokens, count) for of in g]
    for name, truth in (("grad_sq", (G**2).sum()), ("grad_var", (sd**2).sum())):
        values = np.array([of[name] for of in found])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(points)  # within chance
        assert values.std() / np.sqrt(points) < 0.01 * truth  # which is small enough to see a bias
    assert found[0]["noise_scale"] == found[0]["grad_var"] / found[0]["grad_sq"]


def test_no_ratio_where_noise_hides_the_gradient() -> None:
    assert noise_scale(8.0, 1.0, 4, 8) == {"grad_sq": 0.0, "grad_var": 32.0}


def test_a_run_measures_it_at_every_evaluation_and_stays_the_same_run(
    tiny_run: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    with_noise, curves, weights = replace(tiny_run, noise_scale=True), [], []
    for run, runtime in ((tiny_run, Runtime()), (with_noise, Runtime()), (with_noise, Runtime(compile="off"))):
        directory = Store(tmp_path / f"{run.noise_scale} {runtime.compile}").run(run.run_id)
        assert train(run, corpus, directory, runtime) == states.DONE
        curves.append([json.loads(line) for line in directory.curve.read_text().splitlines()])
        weights.append((load_checkpoint(directory.checkpoints) or {})["model"])
    measured = [row for row in curves[1] if "grad_sq" in row]
    assert [row["step"] for row in measured] == [4, 8, 12]
    names = ("grad_sq", "grad_var", "noise_scale")
    assert [{name: row[name] for name in row if name not in names} for row in curves[1]] == curves[0]
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[0].items())

    for row, eager in zip(measured, [row for row in curves[2] if "grad_sq" in row], strict=True):  # engines agree
        assert row["grad_var"] == pytest.approx(eager["grad_var"], rel=0.01)

    # Again from the weights at the end, with the batches that would come next, in double precision and all at once.
    model = LanguageModel(tiny_run.model)
    model.load_state_dict(weights[1])
    T, B = tiny_run.model.context_length, tiny_run.batch_size
    following = TrainingSequences(corpus.tokens("train"), context_length=T, batch_size=B, seed=tiny_run.seed)
    ids = torch.from_numpy(np.concatenate([following.batch(12 + k) for k in range(NOISE_SEQUENCES // B)]))
    rows = []
    for i in range(NOISE_SEQUENCES):
        model.zero_grad()
        model.loss(ids[i : i + 1, :-1], ids[i : i + 1, 1:]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double().numpy())
    g = np.array(rows)
    covariance_trace = g.var(axis=0, ddof=1).sum()  # of a sequence's gradient
    assert measured[-1]["grad_var"] == pytest.approx(T * covariance_trace, rel=1e-4)
    expected = (g.mean(axis=0) ** 2).sum() - covariance_trace / NOISE_SEQUENCES
    assert measured[-1]["grad_sq"] == pytest.approx(expected, rel=1e-3)


def test_a_run_without_it_keeps_its_run_id(tiny_run: RunConfig) -> None:
    assert replace(tiny_run, noise_scale=False).run_id == tiny_run.run_id != replace(tiny_run, noise_scale=True).run_id
    assert "noise_scale" not in tiny_run.identity()
