"""A headless Chromium for tests of pages, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str:
    """Where it is; `$CHROMIUM` wins. Skips the test where there is none."""
    found = os.environ.get("CHROMIUM") or next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("No Chromium: install Debian's package `chromium`, or name one with $CHROMIUM.")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser; starting it takes a second or two."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page that was opened, with everything it complained about and everything it asked the network for.

    Attributes:
        complaints: console errors and warnings, and exceptions of scripts.
        asked: addresses of all requests but the page itself and inline data.
    """

    def __init__(self, page: Page, context: BrowserContext) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))
        context.on("request", lambda request: self._see(request.url))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _see(self, url: str) -> None:
        if not url.startswith("data:"):
            self.asked.append(url)


@contextmanager
def opened(
    browser: Browser,
    file: Path,
    *,
    scheme: str = "light",
    width: int = 1280,
    height: int = 900,
    scripts: bool = True,
) -> Iterator[Watched]:
    """A file in a fresh profile."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, java_script_enabled=scripts
    )
    context.set_default_timeout(20_000)
    try:
        watched = Watched(context.new_page(), context)
        watched.page.goto(file.as_uri())
        watched.asked.remove(file.as_uri())
        yield watched
    finally:
        context.close()


def column(page: Page, table: str, index: int) -> Sequence[str]:
    """The texts of a column of a table, from the top; ``table`` is a CSS selector."""
    return [row.strip() for row in page.locator(f"{table} tbody tr > :nth-child({index + 1})").all_text_contents()]
