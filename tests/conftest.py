"""What several tests share."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

try:
    import torch
except ModuleNotFoundError:  # fits, tables, figures and reports are tested without it too
    pass
else:
    # Models this small gain nothing from a second thread, which spends most of its time waiting, on cores that others want.
    torch.set_num_threads(1)

from models import ModelConfig
from sweep.data import Corpus, CorpusRecipe, CorpusSpec
from sweep.plan.run import OptimizerSettings, RunConfig, ScheduleSettings

ROOT = Path(__file__).resolve().parent.parent
# pytest-xdist gives each of these to one process, in this order; every other file is one more. The longest come first.
GROUPS = {
    "slurm": ("faults/test_one_machine.py", "faults/test_slurm.py"),  # share a cluster, which takes the whole machine's ports
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run the matrices of kills and faults whole, not a sample of each")


def pytest_configure() -> None:
    """Keep temporary files in memory where there is room: tests call fsync thousands of times, and a disk takes 5 ms for it."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test into the xdist group of its file, so that its module's fixtures are made once."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    order = list(GROUPS)
    items.sort(key=lambda item: order.index(_group(item)) if _group(item) in order else len(order))


def _group(item: pytest.Item) -> str:
    file = item.path.relative_to(ROOT / "tests").as_posix()
    return next((name for name, files in GROUPS.items() if file in files), file)


@pytest.fixture(scope="session")
def runslow(request: pytest.FixtureRequest) -> bool:
    """Whether long matrices are run whole."""
    return request.config.getoption("--runslow")


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
