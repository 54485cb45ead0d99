"""The rehearsal Hub's pages in a real browser: what was pushed is seen, and nothing gets out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from hostile_card import COMMIT, NAMES, hostile_files
from hub_client import USER, api_of, commit
from huggingface_hub import constants
from playwright.sync_api import Browser, Page, expect
from reported import copied, reported

from fluxconv.converters import Variant
from fluxconv.hub import push
from fluxconv.hub.rehearsal import RehearsalHub, running
from fluxconv.hub.rehearsal.pages import owner_address

BACKENDS = ("bnb-nf4", "torchao-int8", "gguf-q8_0")
TITLE = "Tiny Flux, quantized"
TEXT_CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@dataclass
class Published:
    """What is on the Hub, and the addresses that the push told."""

    hub: RehearsalHub
    collection: str
    repositories: dict[str, str]


@pytest.fixture(scope="module")
def published(
    tiny_variants: dict[str, Variant], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    """Three variants of the tiny Flux, pushed for the public, a hostile and a private one."""
    folder = tmp_path_factory.mktemp("made")
    variants = [reported(copied(tiny_variants[name], folder)) for name in BACKENDS]
    with pytest.MonkeyPatch.context() as patch, running(folder / "hub") as hub:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        result = push(variants, USER, collection=TITLE, token=hub.token, endpoint=hub.url)
        api = api_of(hub)
        for name in ("hostile", "hidden"):
            api.create_repo(f"{USER}/{name}")
            commit(api, f"{USER}/{name}", hostile_files(), commit_message=COMMIT)
        said = hostile_files()["README.md"].decode()
        api.create_discussion(f"{USER}/hostile", title=COMMIT, description=said)
        api.update_repo_settings(f"{USER}/hidden", private=True, gated="manual")
        assert result.collection is not None
        slug = result.collection.slug
        addresses = {each.name.partition("/")[2]: each.url for each in result.repositories}
        yield Published(hub, f"{hub.url}/collections/{slug}", addresses)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@contextmanager
def looking(
    browser: Browser, published: Published, *, owner: bool = True, **options: Any
) -> Iterator[Page]:
    """A browser that must stay silent, run nothing, and ask for nothing but this Hub."""
    context = browser.new_context(**{"color_scheme": "light", **options})
    page = context.new_page()
    noticed: list[str] = []
    page.on("console", lambda message: noticed.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noticed.append(f"error: {error}"))
    page.on(
        "dialog", lambda dialog: (noticed.append(f"dialog: {dialog.message}"), dialog.dismiss())
    )
    page.on("response", lambda r: noticed.append(f"{r.status} {r.url}") if r.status > 399 else None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    if owner:
        page.goto(owner_address(published.hub.directory, published.hub.url))
    yield page
    assert noticed == []
    assert [url for url in asked if not url.startswith(f"{published.hub.url}/")] == []
    context.close()


@pytest.fixture
def page(browser: Browser, published: Published) -> Iterator[Page]:
    """The owner's browser, on a desk."""
    with looking(browser, published) as found:
        yield found


def test_from_the_collection_to_a_card_and_its_files(page: Page, published: Published) -> None:
    page.get_by_role("link", name=TITLE).first.click()
    assert page.url == published.collection
    expect(page.get_by_role("heading", level=1)).to_have_text(TITLE)
    items = page.locator("main .rows > li")
    assert items.count() == len(BACKENDS)
    assert all("Passed validation." in text for text in items.all_inner_texts())
    items.get_by_role("link", name="tiny-flux-torchao-int8").click()
    assert page.url == published.repositories["tiny-flux-torchao-int8"]

    card = page.get_by_role("article")
    expect(card.get_by_role("heading", name="Measured")).to_be_visible()
    assert card.locator("table").count() > 0 and card.locator("pre span.kn").count() > 0
    pictures = card.locator("img")
    assert pictures.count() > 0
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("(each) => each.decode().then(() => each.naturalWidth)") > 0
        assert picture.get_attribute("alt")
    expect(page.locator("aside")).to_contain_text(TITLE)
    assert "---\n" not in card.inner_text()

    page.get_by_role("link", name=re.compile("^Files")).click()
    page.get_by_role("link", name="transformer/").click()
    row = page.get_by_role("row", name=re.compile("safetensors")).first
    expect(row).to_contain_text("LFS / Xet")
    with page.expect_download() as download:
        row.get_by_role("link", name=re.compile("^Download")).click()
    assert download.value.path().stat().st_size > 100_000
    page.get_by_role("link", name=re.compile("^History")).click()
    expect(page.locator(".history h2").first).to_contain_text("tiny-flux-torchao-int8")
    page.locator(".history h2 a").first.click()
    expect(page.get_by_role("row", name="README.md")).to_contain_text("added")


def test_links_of_a_card_lead_to_what_they_name(page: Page, published: Published) -> None:
    page.goto(published.repositories["tiny-flux-torchao-int8"])
    addresses = page.locator("article a").evaluate_all("(all) => all.map((each) => each.href)")
    own = [each for each in addresses if each.startswith(published.hub.url)]
    assert own, "the card names its licence"
    for address in own:
        answer = page.goto(address)
        assert answer is not None and answer.ok
    assert page.locator(".missing").count() == 0


@pytest.mark.parametrize("kind", ["", "/tree/main?all", "/commits/main", "/discussions/1"])
def test_nothing_in_a_hostile_repository_is_alive(
    kind: str, page: Page, published: Published
) -> None:
    page.goto(f"{published.hub.url}/{USER}/hostile{kind}")
    assert page.title().endswith("Rehearsal Hub") and "taken" not in page.title()
    assert page.evaluate("document.scripts.length") == 0
    assert page.locator("iframe, object, embed, form:not(header form), style, base").count() == 0
    assert page.locator("[style], [onerror], [onload], [onclick]").count() == 0
    assert page.locator("a[href^='javascript' i], a[href^='data' i]").count() == 0


def test_hostile_card_keeps_its_place(page: Page, published: Published) -> None:
    page.goto(f"{published.hub.url}/{USER}/hostile")
    article = page.get_by_role("article")
    expect(article).to_contain_text("The last words.")
    expect(article).to_contain_text("Picture on other.invalid: outside")
    assert article.locator("#main, .bar").count() == 0
    expect(page.locator("footer")).to_be_visible()
    assert page.locator("#main").evaluate("(each) => each.tagName") == "MAIN"
    shown = article.locator("img")
    assert shown.count() == 4
    for picture in shown.all():
        assert picture.evaluate("(each) => each.decode().then(() => each.naturalWidth)") > 0
    expect(page.locator(".remarks")).to_contain_text("javascript:alert(1)")


@pytest.mark.parametrize("name", ["page.html", "images/x.svg", NAMES[0]])
def test_hostile_file_is_text_or_a_picture(name: str, page: Page, published: Published) -> None:
    page.goto(f"{published.hub.url}/{USER}/hostile/tree/main?all")
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.locator("main pre, main img.whole")).to_be_visible()


def test_picture_opened_by_itself_runs_nothing(browser: Browser, published: Published) -> None:
    context = browser.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(f"{published.hub.url}/-/file/{USER}/hostile/main/images/x.svg")
    assert page.evaluate("document.documentElement.tagName") == "svg"
    assert said and all(text.startswith("Blocked script execution") for text in said)
    context.close()


def test_policy_forbids_what_cleaning_might_have_missed(
    browser: Browser, published: Published
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{published.hub.url}/{USER}/hostile")
    assert page.evaluate(
        """async () => {
            const broken = [];
            addEventListener("securitypolicyviolation", (e) => broken.push(e.effectiveDirective));
            const add = (name, words) => document.body.append(
                Object.assign(document.createElement(name), words));
            add("script", { textContent: "window.ran = true" });
            add("img", { src: "http://127.0.0.1:9/x.png" });
            add("style", { textContent: "body { display: none }" });
            add("iframe", { src: "/" });
            document.body.insertAdjacentHTML("beforeend", "<b onclick='window.ran = true'>x</b>");
            document.body.lastChild.click();
            await fetch("/").catch(() => {});
            await new Promise((done) => setTimeout(done, 100));
            return [window.ran === undefined, [...new Set(broken)].sort()];
        }"""
    ) == [
        True,
        [
            "connect-src",
            "frame-src",
            "img-src",
            "script-src-attr",
            "script-src-elem",
            "style-src-elem",
        ],
    ]
    context.close()


def test_public_look_hides_what_is_private(page: Page, published: Published) -> None:
    assert page.get_by_role("link", name="hidden").count() == 1
    page.get_by_role("button", name="Look as the public").click()
    expect(page.get_by_role("status")).to_have_text("This is what everybody would see.")
    assert page.get_by_role("link", name="hidden").count() == 0
    assert page.get_by_role("link", name="tiny-flux-GGUF").count() == 1
    page.goto(published.repositories["tiny-flux-GGUF"])
    expect(page.locator("article")).to_be_visible()
    page.get_by_role("button", name=f"Look as {USER}").click()
    assert page.url == published.repositories["tiny-flux-GGUF"]
    page.goto(f"{published.hub.url}/{USER}/hidden")
    expect(page.get_by_role("region", name="The gate")).to_contain_text("You own it")


def test_token_is_typed_in_and_leaves_no_trace(browser: Browser, published: Published) -> None:
    with looking(browser, published, owner=False) as page:
        page.goto(published.hub.url)
        assert page.get_by_role("link", name="hidden").count() == 0
        page.get_by_text("Sign in", exact=True).first.click()
        page.get_by_label("Token").fill(published.hub.token)
        page.get_by_label("Token").press("Enter")
        expect(page.get_by_text("You look as")).to_contain_text(USER)
        assert page.url == f"{published.hub.url}/"
        assert page.get_by_role("link", name="hidden").count() == 1
        cookies = page.context.cookies()
        assert [cookie["httpOnly"] for cookie in cookies] == [True]
        assert published.hub.token not in cookies[0]["value"] + page.content()


# `{c}` is the collection, `{r}` a repository, `{u}` the account.
PAGES = (
    "/", "{c}", "/{u}", "/{r}", "/{r}/tree/main", "/{r}/tree/main?all", "/{r}/commits/main",
    "/{r}/commit/main", "/{r}/blob/main/LICENSE.md", "/{r}/blob/main/model_index.json",
    "/{r}/discussions", "/{u}/hostile", "/{u}/hostile/tree/main", "/{u}/hostile/discussions/1",
    "/{u}/hidden",
)  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_text_can_be_read_and_nothing_is_wider_than_the_screen(
    width: int, theme: str, browser: Browser, published: Published
) -> None:
    size = {"width": width, "height": 800}
    with looking(browser, published, viewport=size, color_scheme=theme) as page:
        for form in PAGES:
            address = form.format(
                c=published.collection.removeprefix(published.hub.url),
                r=f"{USER}/tiny-flux-torchao-int8",
                u=USER,
            )
            page.goto(published.hub.url + address)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address
            assert page.evaluate(TEXT_CONTRAST) == [], address
            assert page.locator("img:not([alt]), img[alt='']").count() == 0, address
            assert page.locator("h1").count() >= 1, address


def test_every_stop_of_the_keyboard_is_seen(page: Page, published: Published) -> None:
    page.goto(published.repositories["tiny-flux-torchao-int8"])
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    expect(skip).to_have_text("Skip to the contents")
    expect(skip).to_be_in_viewport()
    skip.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("main :focus")).to_have_count(1)
    stops = set()
    for _ in range(40):
        focus = page.locator(":focus")
        if focus.count() == 0:
            break
        style = focus.evaluate("(each) => [getComputedStyle(each).outlineStyle, each.outerHTML]")
        assert style[0] == "solid", style[1]
        stops.add(style[1][:200])
        page.keyboard.press("Tab")
    assert any('role="group"' in stop for stop in stops), "wide tables can be scrolled by key"
    assert len(stops) > 12
