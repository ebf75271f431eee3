"""Reports that several tests read: of this project's own result, and what is on the page by tag."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from sweep.cli import main
from sweep.commands import DONE
from tests.sweep.report.browser import CHROMIUM, chromium

RESULT = Path(__file__).resolve().parents[3] / "results" / "cpu-python"
QUICK = ["fit.resamples=20"]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html of results/cpu-python, with fits.json beside it."""
    out = tmp_path_factory.mktemp("report")
    tables = [f"table={RESULT / 'runs.csv'}", f"curves={RESULT / 'curves.parquet'}"]
    asked = ["ask.losses=[1.3,0.5]", "ask.inference_tokens=1e9", "ask.flops_per_second=1e11"]
    asked += ["ask.improve=[0.1,0.5]", "ask.sizes=[1e6]", "ask.models={own: {N: 1e5, D: 2e7}}", "ask.pue=1.25"]
    assert main(["report", *tables, *asked, *QUICK, f"out={out}"]) == DONE
    return out / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with chromium() as started:
        yield started
