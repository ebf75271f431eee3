"""What several tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import ModelConfig
from sweep.data import Corpus, CorpusRecipe, CorpusSpec
from sweep.plan.run import OptimizerSettings, RunConfig, ScheduleSettings

# Models this small gain nothing from a second thread, which waits far longer than it works where others want the cores.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def chinchilla_csv() -> Path:
    """The 245 points that Besiroglu et al. 2024 (arXiv 2404.10102) read off Chinchilla's Fig. 4."""
    path = ROOT.parent / "shared" / "data" / "chinchilla_extracted.csv"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of a megabyte of text with something to learn: each word tells much about the next."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(2, 7))) for _ in range(40)]
    following = rng.integers(0, 40, size=(40, 3))
    word, text = 0, []
    for i in range(60_000):
        text.append(words[word] + ("\n" if i % 12 == 11 else " "))
        word = following[word, rng.integers(3)]
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("".join(text))
    return path


@pytest.fixture(scope="session")
def corpus(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """`text_file` as bytes."""
    spec = CorpusSpec(source="text", paths=[str(text_file)], validation_tokens=4096)
    return CorpusRecipe.read(spec).build(tmp_path_factory.mktemp("corpora"))


@pytest.fixture
def tiny_run(corpus: Corpus) -> RunConfig:
    """Twelve steps of a model of three thousand parameters."""
    return RunConfig(
        model=ModelConfig(vocab_size=257, d_model=4, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=12, context_length=32),
        corpus=corpus.fingerprint,
        batch_size=4,
        steps=12,
        optimizer=OptimizerSettings(peak_lr=0.02, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, grad_clip=1.0),
        schedule=ScheduleSettings(warmup_steps=2, final_fraction=0.1, cycle=1.0),
        seed=0,
        precision="fp32",
        evaluation_points=3,
    )
