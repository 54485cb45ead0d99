"""The committed prompts are what they claim to be, and a file of prompts is taken or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fluxconv.converters.errors import BadInput
from fluxconv.validators import load_settings
from fluxconv.validators.settings import DEFAULT, preset_names, read_prompts

#: "Exploring Quantization Backends in Diffusers", huggingface.co/blog/diffusers-quantization.
GUIDE = (
    "Baroque style, a lavish palace interior with ornate gilded ceilings, intricate tapestries, "
    "and dramatic lighting over a grand staircase.",
    "Futurist style, a dynamic spaceport with sleek silver starships docked at angular platforms, "
    "surrounded by distant planets and glowing energy lines.",
    "Noir style, a shadowy alleyway with flickering street lamps and a solitary trench-coated "
    "figure, framed by rain-soaked cobblestones and darkened storefronts.",
)
PROBED = ("text", "counting", "faces", "hands", "fine texture", "flat colour", "smooth gradients")


@pytest.fixture
def default() -> list[str]:
    prompts: list[str] = yaml.safe_load(DEFAULT.read_text("utf-8"))["prompts"]
    return prompts


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "prompts.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


# The default set ---------------------------------------------------------------------------------


def test_the_guides_prompts_come_first(default: list[str]) -> None:
    assert tuple(default[:3]) == GUIDE


def test_there_are_enough_and_each_says_what_it_probes(default: list[str]) -> None:
    assert len(default) >= 24 and len(set(default)) == len(default)
    lines = DEFAULT.read_text("utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  - ")]
    comments = [lines[number - 1].strip() for number in starts]
    assert len(comments) == len(default) and all(c.startswith("# ") for c in comments)
    for what in PROBED:
        assert any(comment.startswith(f"# {what}") for comment in comments), what


def test_nobody_is_tested_on_what_was_calibrated(default: list[str]) -> None:
    file = DEFAULT.with_name("calibration.yaml")
    calibration = yaml.safe_load(file.read_text("utf-8"))["prompts"]
    assert not set(default) & set(calibration)


def test_the_twelve_of_the_standard_preset_probe_most(default: list[str], tmp_path: Path) -> None:
    drawn = load_settings(tmp_path, preset="standard").prompts
    assert drawn == tuple(default[: len(drawn)])
    lines = DEFAULT.read_text("utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("  - ")]
    comments = [lines[number - 1].strip() for number in starts[: len(drawn)]]
    for what in PROBED:
        assert any(comment.startswith(f"# {what}") for comment in comments), what


@pytest.mark.parametrize("preset", ["quick", "standard", "full"])
def test_every_preset_draws_the_guides_prompts(preset: str, tmp_path: Path) -> None:
    assert preset in preset_names()
    assert load_settings(tmp_path, preset=preset).prompts[:3] == GUIDE


# A file of somebody's ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("a cat\n\n  \na dog  \n", ("a cat", "a dog")),
        ("a cat\r\na dog\r\n", ("a cat", "a dog")),
        (b"\xef\xbb\xbfa cat\n", ("a cat",)),
        ("a cat\na dog\na cat\n", ("a cat", "a dog")),
        ("sign saying \"<script>alert('1')</script>\" & more", None),
        ("ein Schloß\tam Meer, 日本, 🦊", None),
        ("one \u2028 two", None),  # a line to Python's splitlines, not to anybody's editor
    ],
)
def test_prompts_are_the_lines_of_the_file(
    content: str | bytes, prompts: tuple[str, ...] | None, tmp_path: Path
) -> None:
    assert read_prompts(written(tmp_path, content)) == (prompts or (content,))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "holds no prompt"),
        ("\n \n\t\n", "holds no prompt"),
        (b"\xef\xbb\xbf", "holds no prompt"),
        ("a café".encode("latin-1"), "is not UTF-8"),
        ("a cat\n".encode("utf-16"), "is not UTF-8"),
        ("a cat\n".encode("utf-16-le"), "control characters"),
        (b"a cat\0\n", "control characters"),
        ("a \x1b[31mred\x1b[0m cat\n", "control characters"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is not UTF-8"),
    ],
)
def test_what_is_no_text_with_prompts_is_refused(
    content: str | bytes, what: str, tmp_path: Path
) -> None:
    file = written(tmp_path, content)
    with pytest.raises(BadInput, match=what) as caught:
        read_prompts(file)
    assert str(file) in str(caught.value)


def test_a_file_or_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing.txt"):
        with pytest.raises(BadInput, match=str(place)):
            read_prompts(place)


def test_ten_thousand_prompts_are_more_than_anybody_looks_at(tmp_path: Path) -> None:
    file = written(tmp_path, "".join(f"picture number {i}\n" for i in range(10_000)))
    with pytest.raises(BadInput, match=r"10000 prompts.*--limit"):
        load_settings(tmp_path, prompts=file)
    drawn = load_settings(tmp_path, prompts=file, limit=12).prompts
    assert len(drawn) == 12 and drawn[0] == "picture number 0"


def test_html_in_a_prompt_is_kept_as_it_is(tmp_path: Path) -> None:
    hostile: Any = "</script><img src=x onerror=alert(1)> {{ 7*7 }} -->"
    assert load_settings(tmp_path, prompts=written(tmp_path, hostile)).prompts == (hostile,)
