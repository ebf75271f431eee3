"""The report in headless Chromium: no errors, nothing fetched, no overflow on a phone, dark where that is preferred."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.sweep.report.browser import opened

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
def test_the_page_is_whole(browser: Browser, report: Path, width: int, dark: bool) -> None:
    with opened(browser, report, width=width, dark=dark) as shown:
        assert shown.errors == []
        assert [address for address in shown.requests if not address.startswith("data:")] == [report.as_uri()]
        assert shown.ask(OVERFLOWING) == []
        assert shown.ask("document.documentElement.scrollWidth") == width
        frontier, profiles, curves = shown.ask(LINES)
        assert frontier >= 8  # runs, minima, and for each of three approaches two lines, less what shares a node
        assert profiles >= 13  # six budgets' points and parabolas, and the minima
        assert curves == 58  # 57 runs and the envelope
        assert shown.ask("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
        assert (brightness(shown.ask(PAPER)) < 60) == dark
        assert (brightness(shown.ask(INK)) > 180) == dark
        assert len(shown.page.screenshot(full_page=True)) > 50_000


def test_plots_follow_a_change_to_dark(browser: Browser, report: Path) -> None:
    line = "document.querySelector('.plot .scatterlayer .trace path.js-line').style.stroke"
    with opened(browser, report) as shown:
        light = shown.ask(line)
        shown.page.emulate_media(color_scheme="dark")
        shown.wait_for("[...document.querySelectorAll('.plot')].every(plot => plot.dataset.drawn === 'dark')")
        assert brightness(shown.ask(line)) > brightness(light)
        assert brightness(shown.ask(INK)) > 180
        assert shown.errors == []


def test_without_scripts_the_static_figures_stand(browser: Browser, report: Path) -> None:
    with opened(browser, report, scripts=False) as shown:
        figures = [figure.locator("img").bounding_box() for figure in shown.page.locator("figure").all()]
        assert len(figures) >= 8
        assert min(box["width"] for box in figures if box) > 300
        assert all(figures)
        assert not any(plot.is_visible() for plot in shown.page.locator(".plot").all())
