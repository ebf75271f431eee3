"""Reports that several tests read: of this project's own result, and what is on the page by tag."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, browser

from sweep.cli import main
from sweep.commands import DONE

RESULT = Path(__file__).resolve().parents[3] / "results" / "cpu-python"
QUICK = ["fit.resamples=20"]


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html of results/cpu-python, with fits.json beside it."""
    out = tmp_path_factory.mktemp("report")
    tables = [f"table={RESULT / 'runs.csv'}", f"curves={RESULT / 'curves.parquet'}"]
    asked = ["ask.losses=[1.3,0.5]", "ask.inference_tokens=1e9", "ask.flops_per_second=1e11"]
    assert main(["report", *tables, *asked, *QUICK, f"out={out}"]) == DONE
    return out / "report.html"


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
