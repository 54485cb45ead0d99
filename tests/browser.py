"""A real Chromium that opens a page from the disk, and notices whatever a report must not do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine; where there is none, the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; install Debian's chromium to run this test")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, file: Path, *, width: int = 1280, height: int = 900, theme: str = "light"
) -> Iterator[Page]:
    """The page in `file`. Its console must stay empty, and it must ask for nothing but itself."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
    )
    page = context.new_page()
    page.set_default_timeout(120_000)  # ms; the machine may be busy with other work
    noticed: list[str] = []

    def refuse(route: Route) -> None:
        noticed.append(f"asked for {route.request.url[:80]}")
        route.abort()

    page.on("console", lambda message: noticed.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noticed.append(f"error: {error}"))
    page.on(
        "dialog", lambda dialog: (noticed.append(f"dialog: {dialog.message}"), dialog.dismiss())
    )
    page.route(lambda url: not url.startswith(("file:", "data:", "blob:")), refuse)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert noticed == []
    own = (file.as_uri(), "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    context.close()
