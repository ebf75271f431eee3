"""What several tests share."""

import os
import shutil
from pathlib import Path
from typing import Any

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
    "slurm": (
        "faults/test_one_machine.py",
        "faults/test_slurm.py",
        "faults/test_installed.py",
    ),  # share a cluster, which takes the whole machine's ports
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run the matrices of kills and faults whole, not a sample of each")


def pytest_configure() -> None:
    """Keep temporary files in memory where there is room: tests call fsync thousands of times, and a disk takes 5 ms for it."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))
    for name in ("COLUMNS", "LINES"):  # they would overrule the size of the terminals that tests open
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups first, in their order."""
    order = list(GROUPS)
    groups = [_group(item.nodeid) for item in items]
    place = {group: order.index(group) if group in order else len(order) for group in groups}
    items[:] = [item for _, item in sorted(zip(groups, items, strict=True), key=lambda pair: place[pair[0]])]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each group, or file, to one process of pytest-xdist, so that its module's fixtures are made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByGroup(config, log)


def _group(nodeid: str) -> str:
    file = nodeid.split("::")[0]
    return next((name for name, files in GROUPS.items() if file.endswith(files)), file)


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
