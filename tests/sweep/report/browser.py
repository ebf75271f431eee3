"""A page of a headless Chromium, driven by Playwright."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WAIT_S = 60
DRAWN = "[...document.querySelectorAll('[data-plot]')].every(plot => plot.dataset.drawn)"


class OpenReport:
    """A report in a page of its own.

    Attributes:
        page: Playwright's page.
        errors: what the console printed as an error or a warning, and uncaught exceptions.
        requests: every address that was asked for.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda line: self.errors.append(line.text) if line.type in ("error", "warning", "assert") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.page.evaluate(expression)

    def wait_for(self, condition: str) -> None:
        """Until the JavaScript `condition` holds. Playwright's own wait uses eval, which the report forbids."""
        until = time.monotonic() + WAIT_S
        while not self.ask(condition):
            assert time.monotonic() < until, f"{condition} never came true; errors: {self.errors}"
            time.sleep(0.1)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium that lives as long as the context."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False, scripts: bool = True
) -> Iterator[OpenReport]:
    """The report at `path` in a window of that size, in pixels, once its plots are drawn."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=scripts,
        is_mobile=width < 600,
    )
    context.set_default_timeout(WAIT_S * 1000)
    try:
        report = OpenReport(context.new_page())
        report.page.goto(path.as_uri())
        if scripts:
            report.wait_for(DRAWN)
        yield report
    finally:
        context.close()
