"""The built documentation: every link leads somewhere, every public name is in it, and it needs no
other host."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium
from documented import DOCS, PAGES, ROOT, name_of
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Page
from test_public_names import public_names

#: Pages of the site that are all there in the repository.
BY_HAND = [
    page
    for page in PAGES
    if page.parent == DOCS and "<!-- commands -->" not in page.read_text("utf-8")
]


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`make docs`, from the sources in `root`."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documentation") / "docs"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    pages = [file.read_text("utf-8") for file in (site / "reference").glob("*.html")]
    anchors = {anchor for page in pages for anchor in re.findall(r'id="(fluxconv\.[\w.]+)"', page)}
    assert [f"{p}.{n}" for p, n in public_names() if f"{p}.{n}" not in anchors] == []


def test_formulas_are_mathml(site: Path) -> None:
    page = (site / "gguf.html").read_text("utf-8")
    assert page.count('display="block"') == 2
    assert "\\begin" not in page and "\\sum" not in page.split("<main")[1]


def test_commands_have_a_page(site: Path) -> None:
    page = (site / "commands.html").read_text("utf-8")
    assert 'id="fluxconv-hub-serve"' in page and "--multipart-above" in page


@pytest.mark.parametrize("page", BY_HAND, ids=name_of)
def test_lists_tables_and_code_are_those_of_the_repository(page: Path, site: Path) -> None:
    text = page.read_text("utf-8")
    # What GitHub's Markdown makes of it; the site's wants four spaces where GitHub's wants three.
    plain = (
        MarkdownIt()
        .enable("table")
        .render(re.sub(r"^ *```math.*?```$", "", text, flags=re.M | re.S))
    )
    built = (site / f"{page.stem}.html").read_text("utf-8")
    built = built.partition("<article")[2].partition("</article>")[0]
    for tag in ("<li", "<ol", "<table", "<tr", "<pre"):
        assert built.count(f"{tag}>") == plain.count(f"{tag}>"), tag


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](gguf.md#no-such-heading)", "no-such-heading"),
        ("[x](../validators/nowhere.yaml)", "validators/nowhere.yaml"),
        ("![x](https://example.org/x.png)", "https://example.org/x.png"),
        ("[x][fluxconv.converters.nowhere]", "fluxconv.converters.nowhere"),
    ],
)
def test_what_leads_nowhere_fails_the_build(tmp_path: Path, wrong: str, said: str) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("mkdocs.yml", ".typing", "validators", "converters", "hub", "cards", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    page = tmp_path / "docs" / "index.md"
    page.write_text(page.read_text("utf-8") + f"\n{wrong}\n", "utf-8")
    done = build(tmp_path, tmp_path / "site" / "docs")
    assert done.returncode != 0
    assert said in done.stderr


# In a browser, from the disk ----------------------------------------------------------------------


def _open(browser: Browser, file: Path, width: int, theme: str) -> tuple[Page, list[str]]:
    """The page, and what went wrong with it: words on the console, requests to other hosts."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
    )
    page, noticed = context.new_page(), []
    page.on("console", lambda message: noticed.append(message.text))
    page.on("pageerror", lambda error: noticed.append(str(error)))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:")) or noticed.append(request.url)
        ),
    )
    page.goto(file.as_uri())
    return page, noticed


@pytest.mark.slow
def test_pages_are_quiet_and_fit_a_phone(site: Path, browser: Browser) -> None:
    for file in sorted(site.rglob("*.html")):
        if file.name == "404.html":
            continue  # for servers, with addresses from their root
        page, noticed = _open(browser, file, 400, "dark")
        assert noticed == [], file.name
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, f"{file.name} is {over} pixels wider than a phone"
        page.context.close()


def test_search_works_from_the_disk(site: Path, browser: Browser) -> None:
    page, noticed = _open(browser, site / "index.html", 1280, "light")
    page.locator("input.md-search__input").click()
    page.keyboard.type("imatrix")
    found = page.locator(".md-search-result__link").first
    found.wait_for(timeout=30_000)
    assert "imatrix" in page.locator(".md-search-result__list").inner_text().casefold()
    assert noticed == []
    page.context.close()


def test_theme_follows_the_system(site: Path, browser: Browser) -> None:
    colours = set()
    for theme in ("light", "dark"):
        page, _ = _open(browser, site / "index.html", 1280, theme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.context.close()
    assert len(colours) == 2


def test_documentation_is_built_with_what_is_pinned() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    for name in ("mkdocs-material", "mkdocstrings", "mkdocstrings-python", "latex2mathml"):
        assert importlib.metadata.version(name) == pins[name]
