"""A chain of known entropy rate: what is known of it, and that a model reaches it."""

from pathlib import Path

import numpy as np
import pytest

from models import ModelConfig
from sweep.config import CorpusSpec, SyntheticConfig
from sweep.data import Corpus, CorpusRecipe
from sweep.data.synthetic import MarkovChain
from sweep.errors import InputError
from sweep.fit import Intervals, fit_parametric
from sweep.plan.run import OptimizerSettings, RunConfig, ScheduleSettings
from sweep.store import RunDirectory, states
from sweep.train.loop import Runtime, train

V = 48
CONFIG = SyntheticConfig(tokens=400_000, zipf=1.0, decay=1.25)


@pytest.fixture(scope="module")
def chain() -> MarkovChain:
    return MarkovChain.make(CONFIG, V)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    spec = CorpusSpec(source="synthetic", tokenizer="none", vocab_size=V, validation_tokens=65_536, synthetic=CONFIG)
    return CorpusRecipe.read(spec).build(tmp_path_factory.mktemp("corpora"))


def test_the_stationary_distribution_is_one(chain: MarkovChain) -> None:
    np.testing.assert_allclose(chain.transitions.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(chain.stationary @ chain.transitions, chain.stationary, rtol=1e-12)
    # The same from linear algebra: the left eigenvector of eigenvalue 1.
    values, vectors = np.linalg.eig(chain.transitions.T)
    vector = vectors[:, np.argmin(abs(values - 1))].real
    np.testing.assert_allclose(vector / vector.sum(), chain.stationary, rtol=1e-9)


def test_the_entropy_rate_is_that_of_long_words(chain: MarkovChain) -> None:
    """H(X1 X2 X3) - H(X1 X2), summed over all words of three and of two tokens."""
    pairs = chain.stationary[:, None] * chain.transitions
    triples = pairs[:, :, None] * chain.transitions[None]

    def entropy(p: np.ndarray) -> float:
        return float(-(p * np.log(p)).sum())

    assert chain.entropy_rate == pytest.approx(entropy(triples) - entropy(pairs), abs=1e-9)
    assert chain.unigram_entropy == pytest.approx(entropy(pairs.sum(axis=0)), abs=1e-9)
    assert chain.entropy_rate < chain.unigram_entropy - 0.3


def test_the_walk_is_the_chains(walk: Corpus, chain: MarkovChain) -> None:
    ids = walk.tokens("train")
    counts = np.zeros((V, V))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    n = counts.sum(axis=1, keepdims=True)
    expected = n * chain.transitions
    z = (counts - expected) / np.sqrt(expected * (1 - chain.transitions))
    assert np.mean(z[expected > 10] ** 2) == pytest.approx(1, abs=0.12)  # chi-squared per degree of freedom
    held_out = walk.tokens("validation")
    assert not np.array_equal(ids[: len(held_out)], held_out)


def test_the_best_predictor_loses_the_entropy_rate(walk: Corpus, chain: MarkovChain) -> None:
    """By Monte Carlo, with an estimate of the chain that does not know how it was made."""
    ids, held_out = walk.tokens("train"), walk.tokens("validation")
    counts = np.ones((V, V))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    learnt = -np.log(counts / counts.sum(axis=1, keepdims=True))[held_out[:-1], held_out[1:]]
    exact = -np.log(chain.transitions)[held_out[:-1], held_out[1:]]
    assert walk.manifest["entropy_rate"] == chain.entropy_rate
    assert walk.manifest["parts"]["validation"]["best_loss"] == pytest.approx(exact.mean(), rel=1e-12)
    error = 2 * exact.std() / np.sqrt(len(exact))  # twice what independent tokens would have: neighbours are not
    assert abs(exact.mean() - chain.entropy_rate) < 2 * error
    # V (V - 1) numbers learnt from n tokens cost half of that over n.
    assert learnt.mean() - exact.mean() == pytest.approx(V * (V - 1) / 2 / len(ids), rel=0.5)


def test_a_model_approaches_the_entropy_rate_and_goes_no_lower(walk: Corpus, tmp_path: Path) -> None:
    losses = []
    for width, steps in ((4, 60), (16, 600)):
        run = RunConfig(
            model=ModelConfig(
                vocab_size=V,
                d_model=width,
                n_layers=1,
                n_heads=width // 4,
                n_kv_heads=width // 4,
                d_ff=3 * width,
                context_length=32,
            ),
            corpus=walk.fingerprint,
            batch_size=16,
            steps=steps,
            optimizer=OptimizerSettings(peak_lr=0.02, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0, grad_clip=1.0),
            schedule=ScheduleSettings(warmup_steps=20, final_fraction=0.0, cycle=1.0),
            seed=0,
            precision="fp32",
            evaluation_points=1,
        )
        directory = RunDirectory(tmp_path / run.run_id)
        assert train(run, walk, directory, Runtime()) == states.DONE
        losses.append(directory.status()["val_loss"])
    best, unigram = walk.manifest["parts"]["validation"]["best_loss"], walk.manifest["unigram_entropy"]
    assert best < losses[1] < best + 0.05
    assert losses[1] + 0.1 < losses[0] < unigram + 0.2


def test_the_recipe_knows_what_it_will_be(tmp_path: Path, walk: Corpus) -> None:
    recipe = CorpusRecipe.read(CorpusSpec(**walk.manifest["spec"] | {"memmap": None, "synthetic": CONFIG}))
    assert recipe.fingerprint == walk.fingerprint
    assert recipe.vocab_size == V
    assert recipe.training_tokens(tmp_path) == walk.manifest["parts"]["train"]["tokens"] == 400_000
    with pytest.raises(InputError, match="is too large"):
        CorpusRecipe.read(CorpusSpec(source="synthetic", vocab_size=50_257))


def test_a_law_fitted_to_losses_finds_the_entropy_rate() -> None:
    """From the walk to E in half a second: a learner that counts what follows the K most frequent tokens, with K V numbers."""
    vocab_size = 512
    chain = MarkovChain.make(SyntheticConfig(zipf=2.0, offset=10.0, decay=1.0), vocab_size)
    pairs = chain.stationary[:, None] * chain.transitions
    walk = chain.sample(2_000_000, (0, 7)).astype(np.int64)
    rows = []
    for D in np.geomspace(3e4, 2e6, 7).astype(int):
        counts = np.bincount(walk[: D - 1] * vocab_size + walk[1:D], minlength=vocab_size**2).reshape(vocab_size, vocab_size)
        seen = counts.sum(axis=1)
        alone = (seen + 0.5) / (seen + 0.5).sum()
        learnt = (counts + 30 * alone) / (seen[:, None] + 30)
        known, unknown = -(pairs * np.log(learnt)).sum(axis=1), -(pairs * np.log(alone)).sum(axis=1)
        rank = np.argsort(np.argsort(-seen))
        rows += [(K * vocab_size, D, np.where(rank < K, known, unknown).sum()) for K in np.geomspace(8, 128, 7).astype(int)]
    N, D, loss = np.array(rows, dtype=float).T
    fit = fit_parametric(N, D, loss, intervals=Intervals(200, 0.8))
    assert fit.E.low is not None
    assert fit.E.high is not None
    assert fit.E.low < chain.entropy_rate < fit.E.high
    assert fit.E.value == pytest.approx(chain.entropy_rate, abs=0.05)
    assert chain.unigram_entropy > chain.entropy_rate + 0.5
