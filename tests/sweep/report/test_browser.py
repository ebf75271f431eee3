"""The report in headless Chromium: no errors, nothing fetched, no overflow on a phone, dark where that is preferred."""

from pathlib import Path

import pytest
from browser import Page

OVERFLOWING = """[...document.querySelectorAll('body *')].filter(element => {
    const box = element.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !element.closest('.pan, .plot, details:not([open])');
}).map(element => element.outerHTML.slice(0, 100))"""
LINES = "[...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.scatterlayer .trace').length)"
INK = "getComputedStyle(document.querySelector('.plot .xtitle')).fill"
PAPER = "getComputedStyle(document.body).backgroundColor"


def brightness(colour: str) -> float:
    """0 to 255, of rgb(...)."""
    return sum(map(float, colour[colour.index("(") + 1 : -1].split(",")[:3])) / 3


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_the_page_is_whole(page: Page, report: Path, tmp_path: Path, width: int, dark: bool) -> None:
    page.open(report, width=width, dark=dark)
    assert page.errors == []
    assert [address for address in page.requests if not address.startswith("data:")] == [report.as_uri()]
    assert page.ask(OVERFLOWING) == []
    assert page.ask("document.documentElement.scrollWidth") == width
    frontier, profiles, curves = page.ask(LINES)
    assert frontier >= 8  # runs, minima, and for each of three approaches two lines, less what shares a node
    assert profiles >= 13  # six budgets' points and parabolas, and the minima
    assert curves == 58  # 57 runs and the envelope
    assert page.ask("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert (brightness(page.ask(PAPER)) < 60) == dark
    assert (brightness(page.ask(INK)) > 180) == dark
    assert page.screenshot(tmp_path / "page.png").stat().st_size > 50_000


def test_plots_follow_a_change_to_dark(page: Page, report: Path) -> None:
    page.open(report)
    line = "document.querySelector('.plot .scatterlayer .trace path.js-line').style.stroke"
    light = page.ask(line)
    page.colours(dark=True)
    page.wait_for("[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn === 'dark')")
    assert brightness(page.ask(line)) > brightness(light)
    assert brightness(page.ask(INK)) > 180
    assert page.errors == []


def test_without_scripts_the_static_figures_stand(page: Page, report: Path) -> None:
    page.open(report, scripts=False)
    shown = "[...document.querySelectorAll('figure')].map(figure => figure.querySelector('img').getBoundingClientRect().width)"
    assert min(page.ask(shown)) > 300
    assert page.ask("[...document.querySelectorAll('.plot')].every(plot => plot.hidden)")
