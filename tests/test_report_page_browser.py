"""The page does what it says in a real browser, and nothing that anybody wrote into a report."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, opened
from paging import FAILURE, HOSTILE, NAME, hostile, report_of
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from fluxconv.converters import Variant
from fluxconv.validators.blind_test import CHANCE, read_blind_test, wilson_interval
from fluxconv.validators.comparison import PAGE_NAME, write_comparison
from fluxconv.validators.report import Report

Built = tuple[Path, list[Report]]
TEXT_CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.fixture(scope="module")
def built(
    validated_variants: dict[str, Variant], tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """One page of all variants, with hostile words in it."""
    folder = tmp_path_factory.mktemp("comparison")
    reports, folders = hostile(validated_variants)
    write_comparison(reports, folders, folder)
    return folder / PAGE_NAME, reports


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, built: Built) -> Iterator[Page]:
    """The page on a desk, in the light theme; it must stay silent and alone."""
    with opened(browser, built[0]) as found:
        yield found


def column(page: Page, title: str) -> list[str]:
    """What stands in a column of the comparison table, from the top."""
    headings = page.locator("#comparison thead tr:last-child th").all_inner_texts()
    number = [heading.strip() for heading in headings].index(title) + 1
    cells = page.locator(f"#comparison tbody:first-of-type tr > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


# What is shown -----------------------------------------------------------------------------------


def test_words_of_a_report_are_shown_and_never_run(page: Page) -> None:
    expect(page.locator("#prompt-1")).to_have_text(HOSTILE[0])
    expect(page.locator("#prompt-2")).to_have_text(HOSTILE[1].strip())
    assert "{{ 7 * 7 }}" in page.locator("#prompt-2").inner_text()
    assert page.locator("#comparison").get_by_text(NAME).count() >= 1
    assert page.get_by_text(FAILURE).count() == 1
    assert "taken" not in page.title()
    assert page.locator("[onerror], [onload], [onmouseover]").count() == 0
    assert page.evaluate("document.scripts.length") == page.evaluate(
        "document.querySelectorAll('body > script').length"
    )


def test_policy_forbids_scripts_of_others_and_requests(browser: Browser, built: Built) -> None:
    page = browser.new_page()
    page.goto(built[0].as_uri())
    assert page.evaluate(
        """async () => {
            const broken = [];
            const note = (event) => broken.push(event.effectiveDirective);
            addEventListener("securitypolicyviolation", note);
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            await fetch("http://127.0.0.1:9/").catch(() => {});
            await new Promise((done) => setTimeout(done, 50));
            return [window.ran === undefined, broken.sort()];
        }"""
    ) == [True, ["connect-src", "script-src-elem"]]
    page.close()


def test_every_picture_has_a_text_and_every_control_a_name(page: Page) -> None:
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    nameless: list[str] = page.evaluate(
        """[...document.querySelectorAll("button, select, input")].filter((control) =>
            !control.textContent.trim() && !control.ariaLabel && !control.labels?.length
        ).map((control) => control.outerHTML.slice(0, 90))"""
    )
    assert nameless == []
    assert page.locator("svg[role=img]").count() == page.locator("svg > title").count() > 4


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_text_can_be_read_and_nothing_is_wider_than_the_screen(
    theme: str, width: int, browser: Browser, built: Built
) -> None:
    with opened(browser, built[0], width=width, height=800, theme=theme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(TEXT_CONTRAST) == []
        page.locator("#start .main").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(TEXT_CONTRAST) == []
        picks = [box.bounding_box() for box in page.locator(".pick").all()]
        assert all(box and box["x"] + box["width"] <= width for box in picks)
        assert len({(box["width"], box["height"]) for box in picks if box}) == 1


def test_theme_follows_the_system_until_the_button_is_pressed(page: Page) -> None:
    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    button = page.locator("#theme")
    light = paper()
    expect(button).to_have_attribute("aria-pressed", "false")
    page.emulate_media(color_scheme="dark")
    dark = paper()
    assert dark != light
    expect(button).to_have_attribute("aria-pressed", "true")
    button.press("Enter")
    assert paper() == light
    expect(button).to_have_attribute("aria-pressed", "false")


# Tables ------------------------------------------------------------------------------------------


def test_table_is_sorted_by_click_and_by_key(page: Page, built: Built) -> None:
    errors = {report.variant: report.steps.relative_rms for report in built[1] if report.steps}
    unknown = [report.variant for report in built[1] if report.steps is None]
    heading = page.get_by_role("button", name="Step", exact=True)
    state = page.locator("#comparison th", has=heading)
    heading.click()
    expect(state).to_have_attribute("aria-sort", "ascending")
    assert [errors[name] for name in column(page, "Variant")[: len(errors)]] == sorted(
        errors.values()
    )
    assert column(page, "Variant")[len(errors) :] == unknown
    heading.press("Enter")
    expect(state).to_have_attribute("aria-sort", "descending")
    assert [errors[name] for name in column(page, "Variant")[: len(errors)]] == sorted(
        errors.values(), reverse=True
    )
    assert column(page, "Variant")[len(errors) :] == unknown, "what is not known stays last"
    names = page.locator("#comparison").get_by_role("button", name="Variant", exact=True)
    names.press("Space")
    expect(state).to_have_attribute("aria-sort", "none")
    assert set(column(page, "Variant")) == {report.variant for report in built[1]}
    references = page.locator("#comparison .references th").all_inner_texts()
    assert references[0] == "The source"


def test_first_stop_of_the_keyboard_leads_past_the_navigation(page: Page) -> None:
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    expect(skip).to_have_text("Skip to the results")
    expect(skip).to_be_in_viewport()
    skip.press("Enter")
    expect(page.locator("#results-title")).to_be_in_viewport()


# Pictures ----------------------------------------------------------------------------------------


def test_slider_moves_by_mouse_and_by_key(page: Page) -> None:
    figure = page.locator(".shot").first
    stage, line = figure.locator(".stage"), figure.locator("input[type=range]")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box is not None

    def shown() -> list[float]:
        """Where the line and the edge of the variant's picture are, as shares of the width."""
        return list(
            stage.evaluate(
                """(stage) => [
                    parseFloat(getComputedStyle(stage.querySelector(".line")).left),
                    stage.querySelector(".variant").getBoundingClientRect().width *
                    parseFloat(getComputedStyle(stage.querySelector(".variant"))
                        .clipPath.match(/([0-9.]+)%[)]/)[1]) / 100,
                ].map((at) => at / stage.clientWidth)"""
            )
        )

    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, y, steps=4)
    page.mouse.up()
    assert shown() == pytest.approx([0.2, 0.2], abs=0.02)
    line.focus()
    page.keyboard.press("ArrowRight")
    assert shown() == pytest.approx([0.21, 0.21], abs=0.02)
    page.keyboard.press("End")
    assert shown() == pytest.approx([1, 1])


def test_pictures_lie_exactly_on_each_other(page: Page, built: Built) -> None:
    equal = next(
        report.variant
        for report in built[1]
        if report.pictures and report.pictures.summary["psnr"].mean is None
    )
    figure = page.locator(".shot").first
    figure.locator("select").select_option(label=equal)
    page.add_style_tag(content=".line, .tag { display: none }")
    shown = []
    for key in ("Home", "End"):
        figure.locator("input[type=range]").press(key)
        page.locator("#all-variants").focus()  # else the ring is in the picture
        with Image.open(io.BytesIO(figure.locator(".stage").screenshot())) as image:
            shown.append(np.asarray(image.convert("RGB"))[8:-8, 8:-8])  # the corners are round
    assert shown[0].std() > 10 and np.array_equal(shown[0], shown[1])


def test_choice_of_variant_flip_map_and_zoom(page: Page, built: Built) -> None:
    figure = page.locator(".shot").first
    figure.scroll_into_view_if_needed()
    variant, flip = figure.locator("img.variant"), figure.locator("img.flip")
    expect(variant).to_have_attribute("src", re.compile("^data:image/webp"))
    before, scores = variant.get_attribute("src"), figure.locator(".scores").inner_text()
    options = figure.locator("select option").all_inner_texts()
    assert len(options) == sum(report.pictures is not None for report in built[1])
    figure.locator("select").select_option(label=options[len(options) // 2])
    assert variant.get_attribute("src") != before
    assert figure.locator(".scores").inner_text() != scores
    assert "PSNR" in scores and "FLIP" in scores
    assert not flip.is_visible() and flip.get_attribute("src") is None
    button = figure.locator(".flips")
    button.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(flip).to_be_visible()
    figure.locator(".zooms").press("Enter")
    zoom = page.locator("#zoom")
    expect(zoom).to_be_visible()
    scale = zoom.locator("output").inner_text()
    zoom.get_by_role("button", name="Larger").click()
    assert zoom.locator("output").inner_text() != scale
    assert zoom.locator("img.source").evaluate("(i) => getComputedStyle(i).imageRendering") == (
        "pixelated"
    )
    zoom.get_by_role("button", name="FLIP map").click()
    expect(zoom.locator("img.flip")).to_be_visible()
    page.keyboard.press("Escape")
    expect(zoom).not_to_be_visible()


def test_charts_name_what_is_pointed_at_and_bring_variants_out(page: Page, built: Built) -> None:
    dot = page.locator("#chart-bits-step circle.dot").first
    dot.scroll_into_view_if_needed()
    dot.hover(force=True)
    series = int(dot.get_attribute("data-series") or -1)
    named = page.locator("#tip").inner_text()
    assert "bits per weight" in named and "%" in named
    button = page.locator(f".legend button[data-series='{series}']")
    button.press("Enter")
    assert page.locator("svg .dim").count() > 0
    assert page.locator(f"svg [data-series='{series}'].dim").count() == 0
    button.press("Enter")
    assert page.locator("svg .dim").count() == 0
    rows = page.locator("#chart-bits-step details tbody tr")
    assert rows.count() == sum(report.steps is not None for report in built[1])


# The blind test ----------------------------------------------------------------------------------


def sources(page: Page) -> set[str]:
    """The addresses of all pictures of the source, from the page's own data."""
    found: list[str] = page.evaluate(
        """() => {
            const data = JSON.parse(document.querySelector("#data").textContent);
            const takes = data.shots.flatMap((shot) => shot.takes).filter(Boolean);
            const text = (number) => document.querySelector(`#picture-${number}`).textContent;
            return takes.map((take) => text(take.source));
        }"""
    )
    return set(found)


@pytest.mark.parametrize("mode", ["pairs", "triples"])
def test_blind_test_from_first_click_to_saved_score(
    mode: str, page: Page, built: Built, tmp_path: Path
) -> None:
    known = sources(page)
    reports = {report.variant: report for report in built[1]}
    page.locator(f"[name=mode][value={mode}]").check()
    page.locator("#rounds").fill("12")
    page.locator("#start .main").click()
    count = 2 if mode == "pairs" else 3
    sides, certain, equal = [], 0, 0
    for number in range(1, 13):
        expect(page.locator("#place")).to_have_text(f"Round {number} of 12")
        shown = [image.get_attribute("src") or "" for image in page.locator(".pick img").all()]
        assert len(shown) == count
        html = page.locator("#play").evaluate(
            "(dialog) => dialog.innerHTML.replaceAll(/src=.[^ ]*/g, '')"
        )
        names = [*reports, "variant", "source", "quantized"]
        assert not [name for name in names if name in html], "nothing tells which is which"
        if mode == "pairs":
            right = next(i for i, src in enumerate(shown) if src in known)
        else:
            right = next((i for i, src in enumerate(shown) if shown.count(src) == 1), 0)
        sides.append(right)
        # Right in all rounds but the last three.
        answer = right if number <= 9 else (right + 1) % count
        if len(set(shown)) == 1:
            equal += 1  # nobody can know
        else:
            certain += number <= 9
        page.keyboard.press(str(answer + 1))
        expect(page.locator(".pick").nth(answer)).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Enter")
    assert len(set(sides)) > 1, "sides are shuffled"
    expect(page.locator("#play")).not_to_be_visible()
    expect(page.locator("#score h3")).to_contain_text("rounds")
    with page.expect_download() as download:
        page.locator("#save").click()
    file = tmp_path / "blind-test.json"
    download.value.save_as(file)
    saved = read_blind_test(file)
    assert (saved.mode, saved.rounds, saved.planned) == (mode, 12, 12)
    assert certain <= saved.right <= certain + equal
    assert set(saved.prompts) <= set(built[1][0].settings.prompts)
    for result in saved.results:
        assert result.manifest_sha256 == reports[result.variant].manifest_sha256
    low, high = wilson_interval(saved.right, saved.rounds)
    said = page.locator(".says").inner_text().replace("\u00a0", " ")
    assert f"right in {saved.right} of 12" in said
    assert f"from {round(100 * low)} % to {round(100 * high)} %" in said
    assert f"guessing is right in {round(100 * CHANCE[saved.mode])} %" in said


def test_blind_test_of_one_variant_says_what_the_score_means(
    page: Page, built: Built, tmp_path: Path
) -> None:
    worst = min((r for r in built[1] if r.pictures), key=lambda report: report.bits_per_weight)
    known = sources(page)
    page.get_by_role("button", name="None").click()
    expect(page.locator("#start .main")).to_be_disabled()
    page.get_by_role("checkbox", name=worst.variant, exact=True).check()
    page.locator("#rounds").fill("3")
    assert "say little" in page.locator("#enough").inner_text()
    page.locator("#rounds").fill("16")
    assert "are enough" in page.locator("#enough").inner_text()
    page.locator("#start .main").click()
    for _ in range(16):
        shown = [image.get_attribute("src") for image in page.locator(".pick img").all()]
        right = next(i for i, address in enumerate(shown) if address in known)
        page.locator(".pick").nth(right).click()
        page.locator("#confirm").click()
    assert "more than luck" in page.locator(".says").inner_text()
    assert "You told" in page.locator("#score h3").inner_text()
    assert "in 16 of 16" in page.locator("#score h3").inner_text()
    assert worst.variant in page.locator("#score h3").inner_text()


def test_blind_test_that_was_stopped_says_so(page: Page, tmp_path: Path) -> None:
    page.locator("#start .main").click()
    page.locator(".pick").first.click()
    page.locator("#confirm").click()
    page.keyboard.press("Escape")
    said = page.locator(".says").inner_text()
    assert "Too few rounds" in said and "stopped after 1 of 20" in said
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "stopped.json")
    saved = read_blind_test(tmp_path / "stopped.json")
    assert (saved.rounds, saved.planned) == (1, 20)


def test_large_pictures_of_a_blind_test_are_moved_together(
    browser: Browser, validated_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = validated_variants["bnb-nf4"]
    with opened(browser, larger(variant, tmp_path)) as page:
        page.locator("#rounds").fill("2")
        page.locator("#start .main").click()
        page.locator("#whole").press("Enter")
        assert places(page) == ["50% 50%"] * 2
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        assert places(page) == ["40% 60%"] * 2
        box = page.locator(".pick").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 4)
        across, down = (float(share.rstrip("%")) for share in places(page)[1].split())
        assert across > 95 and down == pytest.approx(25, abs=2)
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        expect(page.locator("#place")).to_have_text("Round 2 of 2")


def places(page: Page) -> list[str]:
    """Which part of the pictures is shown."""
    found: list[str] = page.locator(".pick img").evaluate_all(
        "(images) => images.map((image) => getComputedStyle(image).objectPosition)"
    )
    return found


def larger(variant: Variant, folder: Path) -> Path:
    """The page of a variant whose pictures were enlarged eight times."""
    report = report_of(variant)
    assert report.pictures
    (folder / "images").mkdir()
    for picture in report.pictures.pictures:
        for name in (picture.source, picture.variant, picture.flip_map):
            with Image.open(variant.root / name) as image:
                image.resize((512, 512)).save(folder / name)
    settings = report.settings.model_copy(update={"width": 512, "height": 512})
    write_comparison([report.model_copy(update={"settings": settings})], [folder], folder)
    return folder / PAGE_NAME


def test_page_and_python_agree_on_the_interval(browser: Browser) -> None:
    script = Path(__file__).parent.parent / "validators" / "page" / "scripts" / "statistics.js"
    cases = [(right, n) for n in (1, 2, 3, 7, 20, 100, 999) for right in {0, 1, n // 3, n // 2, n}]
    page = browser.new_page()
    code = f"(cases) => {{ {script.read_text()}; return cases.map(([k, n]) => wilson(k, n)); }}"
    found = page.evaluate(code, cases)
    expected = [wilson_interval(right, rounds) for right, rounds in cases]
    assert list(itertools.chain(*found)) == pytest.approx(list(itertools.chain(*expected)))
    page.close()


def test_saved_shape_is_the_documented_one(page: Page) -> None:
    # The shape must be read by programs that are not ours.
    page.locator("#rounds").fill("1")
    page.locator("#start .main").click()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename.startswith("blind-test-")
    data = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert set(data) == {
        "kind",
        "format_version",
        "page_version",
        "date",
        "reference",
        "mode",
        "planned",
        "rounds",
        "right",
        "prompts",
        "results",
    }
    assert set(data["results"][0]) == {"variant", "manifest_sha256", "rounds", "right"}
