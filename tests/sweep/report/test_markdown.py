"""The report as Markdown: the numbers of fits.json, tables that are whole, figures that are there, and text that stays text."""

import json
import re
from pathlib import Path

import pytest

from sweep.cli import main
from sweep.commands import DONE
from sweep.report.text import sentence
from tests.sweep.report.conftest import QUICK
from tests.sweep.report.test_page import hostile_table


@pytest.fixture(scope="module")
def report_md(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("markdown")
    table = [f"table={hostile_table(out / 'runs.csv')}", "report.title='# *mine* | yours'"]
    assert main(["report", "--format=md", *table, *QUICK, f"out={out}"]) == DONE
    return out / "report.md"


def test_it_has_the_answer_and_its_figures(report_md: Path) -> None:
    page, fits = report_md.read_text(encoding="utf-8"), json.loads((report_md.parent / "fits.json").read_text())
    assert f"| {fits['parametric']['a']['value']:.3f} ({fits['parametric']['a']['low']:.3f} to " in page
    assert f"- N\\_opt grows as C^a, a = {fits['verdict']['a']['combined']['value']:.4g}" in page
    drawn = re.findall(r"^!\[.*\]\((.+)\)$", page, re.MULTILINE)
    assert {"isoflop.png", "parametric.png", "frontier.png"} <= set(drawn)
    assert all((report_md.parent / name).stat().st_size > 1000 for name in drawn)
    assert not (report_md.parent / "report.html").exists()
    assert "not fitted: There are no training curves" in page
    assert "\n\n\n" not in page


def test_every_row_of_a_table_has_its_columns(report_md: Path) -> None:
    tables = [block for block in report_md.read_text(encoding="utf-8").split("\n\n") if block.startswith("|")]
    assert len(tables) >= 5
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


def test_text_from_a_table_is_no_markup(report_md: Path) -> None:
    page = report_md.read_text(encoding="utf-8")
    assert page.startswith("# \\# \\*mine\\* \\| yours\n")
    assert "\\<b\\>crashed\\</b\\>" in page
    assert not re.search(r"(?<!\\)<", page)


def test_sentences_keep_symbols_as_they_are() -> None:
    assert sentence("a = 0.42 by another way") == "a = 0.42 by another way."
    assert sentence("a valley needs 3 sizes") == "A valley needs 3 sizes."
