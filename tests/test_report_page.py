"""The page is one file with everything in it, and a comparison is written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paging import as_they_are, hostile, report_of
from PIL import Image

from fluxconv.converters import Variant
from fluxconv.converters.errors import BadInput
from fluxconv.converters.progress import Silent
from fluxconv.validators import Report
from fluxconv.validators.blind_test import BlindTest, read_blind_test, wilson_interval
from fluxconv.validators.comparison import (
    COMPARISON_NAME,
    PAGE_NAME,
    SHEET_NAME,
    compare,
    read_comparison,
    write_comparison,
)
from fluxconv.validators.page import PAGE_VERSION, figures
from fluxconv.validators.page.axes import Quantity, axis_over
from fluxconv.validators.page.details import commands, margins
from fluxconv.validators.page.labels import placed, short_names
from fluxconv.validators.page.pictures import Pool
from fluxconv.validators.page.shots import shots_of
from fluxconv.validators.page.writing import write_page
from fluxconv.validators.results import Check, Verdict

Pair = tuple[list[Report], list[Path]]
SHA = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def several(validated_variants: dict[str, Variant]) -> Pair:
    """Four variants of different bits."""
    names = ("bnb-nf4", "gguf-q8_0", "gguf-q2_k", "gguf-bf16")
    return as_they_are({name: validated_variants[name] for name in names})


@pytest.fixture(scope="module")
def page(several: Pair, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Their page."""
    file = tmp_path_factory.mktemp("page") / PAGE_NAME
    write_page(compare(several[0]), several[1], file, Silent())
    return file.read_text("utf-8")


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


# One file ----------------------------------------------------------------------------------------


def test_page_refers_to_nothing_outside_itself(page: str) -> None:
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.S)
    addresses = re.findall(r"\b(?:src|href|action|srcset|poster|data)=\"?([^\"\s>]*)", markup)
    assert "#results" in addresses
    assert {address.split(":")[0] for address in addresses if not address.startswith("#")} <= {
        "data"
    }
    assert not re.search(r"@import|url\(", page)


def test_policy_allows_the_one_script_by_its_hash(page: str) -> None:
    script = re.search(r'<script type="module">(.*?)</script>', page, re.S)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy and f"script-src 'sha256-{digest}'" in policy[1]
    assert policy[1].startswith("default-src 'none'")
    assert page.index(policy[0]) < page.index("<style>")


def test_words_of_a_report_are_escaped(
    validated_variants: dict[str, Variant], tmp_path: Path
) -> None:
    names = ("bnb-nf4", "gguf-q8_0", "gguf-q2_k")
    reports, folders = hostile({name: validated_variants[name] for name in names})
    write_page(compare(reports), folders, tmp_path / PAGE_NAME, Silent())
    text = (tmp_path / PAGE_NAME).read_text("utf-8")
    # Only what the templates say opens a script, and nothing else ends one.
    scripts = re.findall(r"<script[^>]*>", text)
    assert len(scripts) == text.count("</script") == 2 + text.count('<script type="text/plain"')
    assert "<img src=x" not in text and "<svg onload" not in text and "<b onmouseover" not in text
    prompts = [shot["prompt"] for shot in data_of(text)["shots"]]
    assert prompts == list(reports[0].settings.prompts)


def test_small_pictures_are_embedded_without_loss_and_once(several: Pair, page: str) -> None:
    reports, folders = several
    data = data_of(page)
    places = {report.variant: folder for report, folder in zip(reports, folders, strict=True)}
    drawn = {report.variant: report.pictures for report in reports}
    used = set()
    for number, shot in enumerate(data["shots"]):
        for variant, take in zip(data["variants"], shot["takes"], strict=True):
            pictures = drawn[variant["variant"]]
            assert pictures
            picture = pictures.pictures[number]
            assert (picture.prompt, picture.seed) == (shot["prompt"], shot["seed"])
            for role, name in (
                ("source", picture.source),
                ("variant", picture.variant),
                ("flip", picture.flip_map),
            ):
                uri = re.search(rf'id="picture-{take[role]}">data:image/webp;base64,(.*?)<', page)
                assert uri
                with Image.open(io.BytesIO(base64.b64decode(uri[1]))) as embedded:
                    found = np.asarray(embedded.convert("RGB"))
                with Image.open(places[variant["variant"]] / name) as original:
                    assert np.array_equal(found, np.asarray(original.convert("RGB")))
                used.add(take[role])
    assert len(used) == page.count('<script type="text/plain"')
    assert len({shot["takes"][0]["source"] for shot in data["shots"]}) == len(data["shots"])
    assert all(len({take["source"] for take in shot["takes"]}) == 1 for shot in data["shots"])


def test_large_pictures_are_nearly_as_they_were_and_said_to_be(
    several: Pair, tmp_path: Path
) -> None:
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(90)), -1)
    Image.fromarray(picture).save(tmp_path / "large.png")
    pool = Pool()
    whole, small = pool.number(tmp_path / "large.png"), pool.number(tmp_path / "large.png", 512)
    assert whole == small, "one file is one picture"
    ((_, uri),) = pool.encoded(Silent())
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as embedded:
        error = np.asarray(embedded.convert("RGB")).astype(float) - picture
    assert 0 < np.abs(error).mean() < 2
    reports, folders = several
    settings = reports[0].settings.model_copy(update={"width": 512, "height": 512})
    larger = [report.model_copy(update={"settings": settings}) for report in reports]
    write_page(compare(larger), folders, tmp_path / PAGE_NAME, Silent())
    assert "WebP of quality 90" in (tmp_path / PAGE_NAME).read_text("utf-8")


def test_page_with_more_pixels_than_a_browser_likes_shows_the_least_alike(several: Pair) -> None:
    reports, folders = several
    settings = reports[0].settings.model_copy(update={"width": 8192, "height": 8192})
    huge = [report.model_copy(update={"settings": settings}) for report in reports]
    shots = shots_of(compare(huge), folders, Pool())
    worst = max(
        range(len(settings.prompts)),
        key=lambda i: sum(r.pictures.pictures[i].scores["flip"] or 0 for r in huge if r.pictures),
    )
    assert [shot.prompt for shot in shots.shown] == [settings.prompts[worst]]
    assert shots.left_out == len(settings.prompts) - 1


def test_numbers_of_the_table_are_those_of_the_reports(several: Pair, page: str) -> None:
    for report in several[0]:
        row = re.search(rf'<tr[^>]*>\s*<th[^>]*data-order="{report.variant}".*?</tr>', page, re.S)
        assert row and report.steps and report.weights and report.pictures
        for value in (
            figures.size(report.size),
            f"{report.bits_per_weight:.2f}",
            figures.percent(report.steps.relative_rms),
            figures.percent(report.weights["transformer"].relative_rms),
        ):
            assert f"<bdi>{value}</bdi>" in row[0]


def test_commands_give_back_the_settings(several: Pair) -> None:
    settings = several[0][0].settings
    quantize, validate = commands(compare(several[0]))
    assert quantize.startswith("fluxconv quantize tiny-flux --backend ")
    assert f"--steps {settings.steps} " in validate and f"--width {settings.width} " in validate
    assert all(report.variant in validate for report in several[0])


def test_failed_checks_come_first_and_say_by_how_much(several: Pair) -> None:
    checks = (
        Check(name="a", value=30.0, limit=20.0, passed=True, text="PSNR 30 is at least 20"),
        Check(name="b", value=0.3, limit=0.2, passed=False, text="error 0.3 is more than 0.2"),
        Check(name="c", value=None, limit=0, passed=False, text="steps: out of memory"),
    )
    verdict = Verdict(passed=False, checks=checks)
    found = margins(several[0][0].model_copy(update={"verdict": verdict}))
    assert [margin.check.name for margin in found] == ["b", "c", "a"]
    assert [margin.text for margin in found] == ["150 % of the limit", "", "10 above the limit"]


# The comparison ----------------------------------------------------------------------------------


def test_comparison_is_written_and_read_back(several: Pair, tmp_path: Path) -> None:
    reports, folders = several
    write_comparison(reports, folders, tmp_path / "new" / "place")
    names = {file.name for file in (tmp_path / "new" / "place").iterdir()}
    assert names == {COMPARISON_NAME, PAGE_NAME, SHEET_NAME}
    assert read_comparison(tmp_path / "new" / "place" / COMPARISON_NAME) == compare(reports)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda report: {"reference": "another"}, "another reference"),
        (lambda report: {"reference_revision": "f00"}, "another reference"),
        (
            lambda report: {"settings": report.settings.model_copy(update={"seeds": (7,)})},
            "other seeds",
        ),
        (
            lambda report: {"settings": report.settings.model_copy(update={"steps": 99})},
            "other settings",
        ),
    ],
)
def test_reports_that_cannot_be_compared_are_refused(
    change: Callable[[Report], dict[str, Any]], words: str, several: Pair, tmp_path: Path
) -> None:
    reports, folders = several
    odd = reports[1].model_copy(update=change(reports[1]))
    with pytest.raises(BadInput, match=f"{odd.variant}: was validated with {words} than"):
        write_comparison([reports[0], odd], folders[:2], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_machines_share_no_times(several: Pair) -> None:
    reports = several[0]
    machine = reports[1].machine.model_copy(update={"processor": "another"})
    found = compare([reports[0], reports[1].model_copy(update={"machine": machine})])
    assert found.machine is None and found.noise_floor is None and not found.source_performance


def test_failed_comparison_leaves_the_old_one(several: Pair, tmp_path: Path) -> None:
    reports, folders = several
    write_comparison(reports[:2], folders[:2], tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert reports[2].pictures
    picture = reports[2].pictures.pictures[0].model_copy(update={"variant": "images/gone.png"})
    pictures = reports[2].pictures.model_copy(update={"pictures": (picture,)})
    broken = reports[2].model_copy(update={"pictures": pictures})
    with pytest.raises(BadInput, match=r"gone\.png: the picture cannot be read"):
        write_comparison([reports[0], broken], [folders[0], folders[2]], tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_one_report_alone_makes_a_page(
    validated_variants: dict[str, Variant], tmp_path: Path
) -> None:
    variant = validated_variants["bnb-nf4"]
    write_comparison([report_of(variant)], [variant.root], tmp_path)
    assert "The variant " in (tmp_path / PAGE_NAME).read_text("utf-8")


# The blind test ----------------------------------------------------------------------------------


def saved(**changes: Any) -> dict[str, Any]:
    result = {"variant": "a", "manifest_sha256": SHA, "rounds": 20, "right": 14}
    return {
        "kind": "fluxconv-blind-test",
        "format_version": 1,
        "page_version": PAGE_VERSION,
        "date": "2026-01-02T03:04:05.678Z",
        "reference": "tiny-flux",
        "mode": "pairs",
        "planned": 20,
        "rounds": 20,
        "right": 14,
        "prompts": ["a star"],
        "results": [result],
    } | changes


def test_saved_blind_test_is_read(tmp_path: Path) -> None:
    file = tmp_path / "blind.json"
    file.write_text(json.dumps(saved()))
    found = read_blind_test(file)
    assert found == BlindTest.model_validate(saved())
    assert (found.results[0].variant, found.results[0].right) == ("a", 14)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "something"}, "kind: "),
        ({"format_version": 2}, "format_version: "),
        ({"mode": "quads"}, "mode: "),
        ({"extra": 1}, "extra: "),
        ({"results": []}, "results: "),
        ({"rounds": 19}, "the rounds of the variants do not add up"),
        ({"right": 13}, "the right answers of the variants do not add up"),
        ({"planned": 10}, "more rounds than were planned"),
        (
            {"results": [{"variant": "a", "manifest_sha256": SHA, "rounds": 20, "right": 21}]},
            "more right answers than rounds",
        ),
        (
            {"results": [{"variant": "a", "manifest_sha256": "no", "rounds": 20, "right": 14}]},
            "manifest_sha256: ",
        ),
    ],
)
def test_garbled_blind_test_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = tmp_path / "blind.json"
    file.write_text(json.dumps(saved(**changes)))
    with pytest.raises(BadInput, match=re.escape(words)) as caught:
        read_blind_test(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null"])
def test_what_is_no_blind_test_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "blind.json"
    file.write_bytes(content)
    with pytest.raises(BadInput, match="is not a blind test"):
        read_blind_test(file)
    with pytest.raises(BadInput, match="no such file"):
        read_blind_test(tmp_path / "gone.json")


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_ends_where_the_score_test_does(case: tuple[int, int]) -> None:
    right, rounds = case
    low, high = wilson_interval(right, rounds)
    share = right / rounds
    assert 0 <= low <= share <= high <= 1 or math.isclose(low, share) or math.isclose(high, share)
    # Wilson's own definition: the shares at which the seen one is 1.96 standard errors away.
    for end in {low, high} - {0.0, 1.0}:
        variance = end * (1 - end) / rounds
        assert (share - end) ** 2 == pytest.approx(1.959963984540054**2 * variance, abs=1e-12)


def test_interval_of_a_known_case() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263 and 15 of 148.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


# Charts ------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=20),
    st.booleans(),
)
def test_axes_hold_their_values_and_have_few_round_ticks(values: list[float], log: bool) -> None:
    axis = axis_over(Quantity("error", logarithmic=log), values, 10, 400)
    places = [axis.place(value) for value in values]
    assert all(
        10 <= place <= 400 and axis.holds(v) for place, v in zip(places, values, strict=True)
    )
    assert sorted(places) == [axis.place(value) for value in sorted(values)]
    ticks = axis.ticks
    assert 1 <= len(ticks) <= 16
    assert [tick.at for tick in ticks] == sorted(tick.at for tick in ticks)


def test_zero_stands_at_the_end_of_a_logarithmic_axis() -> None:
    axis = axis_over(Quantity("error", logarithmic=True), [0.0, 0.01, 0.1], 0, 100)
    assert axis.place(0.0) == 0 and not axis.holds(0.0) and axis.place(math.inf) == 100


@given(st.lists(st.tuples(st.floats(60, 380), st.floats(20, 250)), max_size=40))
def test_names_in_a_chart_never_touch(dots: list[tuple[float, float]]) -> None:
    names = [f"variant-{index}" for index in range(len(dots))]
    found = placed([(i, x, y) for i, (x, y) in enumerate(dots)], names, (52, 16, 400, 260))
    boxes = [label.box for label in found]
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 52 and top >= 16 and right <= 400 and bottom <= 260
        for other in boxes[index + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart


def test_short_names_leave_out_what_all_share() -> None:
    assert short_names(["flux-dev-bnb-nf4", "flux-dev-gguf-q8_0"]) == ["bnb-nf4", "gguf-q8_0"]
    assert short_names(["flux-dev-bnb-nf4"]) == ["flux-dev-bnb-nf4"]
    assert short_names(["a-b", "a-b-c"]) == ["b", "b-c"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.00372, "0.372 %"), (0.226, "22.6 %"), (3e-7, "3.0e-05 %")],
)
def test_shares_have_three_digits(share: float, text: str) -> None:
    assert figures.percent(share).replace("\u00a0", " ") == text
