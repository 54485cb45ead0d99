"""Contact sheets show every variant, whatever their number, their pictures and their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fluxconv.validators import typesetting
from fluxconv.validators.contact_sheet import AMPLIFIED, comparison_sheet, contact_sheet
from fluxconv.validators.metrics import summarise
from fluxconv.validators.report import IMAGES, Report, Settings
from fluxconv.validators.results import (
    Check,
    Machine,
    Picture,
    PicturesResult,
    StructureResult,
    Verdict,
)
from fluxconv.validators.sheet import TALLEST

Colour = tuple[int, int, int]
SOURCE: Colour = (12, 34, 56)


def reported(
    folder: Path,
    variant: Colour = (200, 40, 40),
    prompts: Sequence[str] = ("a circle",),
    *,
    name: str = "flux-gguf-q8_0",
    size: tuple[int, int] = (64, 64),
    ssim: Sequence[float] | None = None,
) -> Report:
    """A report whose pictures are of plain colours, one file for all prompts."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    for file, colour in (("source", SOURCE), ("variant", variant), ("flip", flip_colour(variant))):
        Image.new("RGB", size, colour).save(folder / IMAGES / f"{file}.png")
    pictures = tuple(
        Picture(
            prompt=prompt,
            seed=3,
            source=f"{IMAGES}/source.png",
            variant=f"{IMAGES}/variant.png",
            flip_map=f"{IMAGES}/flip.png",
            scores={"psnr": None, "ssim": alike, "ms_ssim": 0.99, "flip": 0.01},
        )
        for prompt, alike in zip(prompts, ssim or [0.9] * len(prompts), strict=True)
    )
    check = Check(name="weights", value=1.0, limit=0.5, passed=False, text="weights: too far off")
    return Report(
        variant=name,
        backend="gguf-q8_0",
        size=1,
        bits_per_weight=8.5,
        manifest_sha256="0" * 64,
        reference="flux",
        reference_revision=None,
        settings=Settings(width=size[0], height=size[1], prompts=tuple(prompts)),
        device="cpu",
        machine=Machine(system="Linux", processor="any", cores=1, memory=1),
        versions={},
        structure=StructureResult(files=1, tensors=1, problems=()),
        pictures=PicturesResult(
            pictures=pictures,
            summary=summarise([picture.scores for picture in pictures]),
            seconds=1.0,
        ),
        verdict=Verdict(passed=False, checks=(check,)),
    )


def flip_colour(variant: Colour) -> Colour:
    return (variant[0], variant[1], 250)


def several(folder: Path, count: int, prompts: Sequence[str] = ("a circle",)) -> list[Report]:
    """Reports whose pictures are of a colour each; that of report N lies in `folder`/N."""
    return [
        reported(folder / str(index), colour_of(index), prompts, name=f"flux-gguf-q8_0-{index}")
        for index in range(count)
    ]


def colour_of(index: int) -> Colour:
    return (100 + 5 * index, 60, 20)


class Seen:
    """Where the plain colours of a sheet are."""

    def __init__(self, sheet: Image.Image) -> None:
        red, green, blue = np.moveaxis(np.asarray(sheet).astype(np.uint32), -1, 0)
        self._codes = (red << 16) + (green << 8) + blue

    def pixels(self, colour: Colour) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self._codes == (colour[0] << 16) + (colour[1] << 8) + colour[2]
        return found

    def places(self, colour: Colour) -> list[tuple[int, int]]:
        """Top and left of every picture of that colour."""
        found = self.pixels(colour)
        corners = found.copy()
        corners[1:] &= ~found[:-1]
        corners[:, 1:] &= ~found[:, :-1]
        return [(int(top), int(left)) for top, left in np.argwhere(corners)]


# Many variants -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "lines"), [(1, 1), (2, 1), (8, 1), (11, 2), (20, 2)])
def test_every_variant_is_beside_its_source_with_its_map_below(
    count: int, lines: int, tmp_path: Path
) -> None:
    prompts = ["a circle", "a star"]
    reports = several(tmp_path, count, prompts)
    sheet = comparison_sheet(reports, [tmp_path / str(index) for index in range(count)])
    seen = Seen(sheet)
    sources = seen.places(SOURCE)
    assert len(sources) == len(prompts) * lines
    rows = {top for top, _ in sources}
    for index in range(count):
        drawn, maps = seen.places(colour_of(index)), seen.places(flip_colour(colour_of(index)))
        assert len(drawn) == len(maps) == len(prompts)
        assert {top for top, _ in drawn} <= rows
        for (top, left), (map_top, map_left) in zip(drawn, maps, strict=True):
            assert map_left == left and 150 < map_top - top < 220
    assert sheet.width < 2500
    order = [seen.places(colour_of(index))[0] for index in range(count)]
    assert order == sorted(order)


def test_a_sheet_too_tall_keeps_the_prompts_that_are_least_alike(tmp_path: Path) -> None:
    count, marked = 80, {7: (1, 200, 1), 41: (1, 200, 90)}
    ssim = [0.5 if index in marked else 0.9 for index in range(count)]
    report = reported(tmp_path, prompts=[f"prompt {index}" for index in range(count)], ssim=ssim)
    assert report.pictures
    pictures = list(report.pictures.pictures)
    for index, colour in marked.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{index}.png")
        pictures[index] = pictures[index].model_copy(update={"source": f"{index}.png"})
    result = report.pictures.model_copy(update={"pictures": tuple(pictures)})
    report = report.model_copy(update={"pictures": result})
    for sheet in (contact_sheet(report, tmp_path), comparison_sheet([report] * 3, [tmp_path] * 3)):
        seen = Seen(sheet)
        assert TALLEST * 0.9 < sheet.height <= TALLEST
        first, second = (seen.places(colour) for colour in marked.values())
        assert len(first) == len(second) == 1 and first < second
        assert 10 < len(seen.places(SOURCE)) < count - len(marked)


def test_variants_without_pictures_stand_in_the_table_alone(tmp_path: Path) -> None:
    reports = several(tmp_path, 3, ["a circle", "a star"])
    assert reports[2].pictures
    reports[1] = reports[1].model_copy(update={"pictures": None})
    fewer = reports[2].pictures.model_copy(update={"pictures": reports[2].pictures.pictures[1:]})
    reports[2] = reports[2].model_copy(update={"pictures": fewer})
    folders = [tmp_path / str(index) for index in range(3)]
    sheet = comparison_sheet(reports, folders)
    shown = [len(Seen(sheet).places(colour_of(index))) for index in range(3)]
    assert shown == [2, 0, 1]
    nothing = comparison_sheet([reports[1]], folders[1:2])
    assert nothing.height < 400 and not Seen(nothing).places(SOURCE)


# One variant -------------------------------------------------------------------------------------


def test_one_variant_is_shown_with_its_difference_and_map(tmp_path: Path) -> None:
    variant = (SOURCE[0] + 10, SOURCE[1], SOURCE[2] - 20)
    sheet = contact_sheet(reported(tmp_path, variant), tmp_path)
    strip = [
        Seen(sheet).places(colour)
        for colour in (
            SOURCE,
            variant,
            (10 * AMPLIFIED, 0, 20 * AMPLIFIED),
            flip_colour(variant),
        )
    ]
    assert [len(each) for each in strip] == [1, 1, 1, 1]
    corners = [each[0] for each in strip]
    assert len({top for top, _ in corners}) == 1 and corners == sorted(corners)


@pytest.mark.parametrize(
    "prompt",
    [
        "x" * 3000,
        "word " * 3000,
        "",
        " \t\n",
        "<script>alert(1)</script> &amp; \x1b[31m\x00",
        "قطة حمراء على خلفية زرقاء",
        "\u202ereversed\u2066",
        "🐈‍⬛ 猫 кошка Übergröße",
        "\ud800 half a pair",
    ],
)
def test_any_prompt_can_be_written(prompt: str, tmp_path: Path) -> None:
    report = reported(tmp_path, prompts=(prompt,)) if "\ud800" not in prompt else None
    if report is None:  # such a string cannot be recorded, but it can be written
        assert typesetting.wrap(prompt, 14, "black", 200)
        return
    plain = reported(tmp_path)
    for sheet, usual in (
        (contact_sheet(report, tmp_path), contact_sheet(plain, tmp_path)),
        (comparison_sheet([report], [tmp_path]), comparison_sheet([plain], [tmp_path])),
    ):
        assert sheet.width == usual.width and sheet.height < usual.height + 100
        assert (np.asarray(sheet)[:, -30:] == 255).all()  # nothing runs over the margin


@pytest.mark.parametrize("size", [(1024, 512), (512, 1024), (8, 8), (8, 2048), (2048, 8)])
def test_pictures_of_any_shape_fit_and_keep_it(size: tuple[int, int], tmp_path: Path) -> None:
    report = reported(tmp_path, size=size)
    for sheet in (
        contact_sheet(report, tmp_path),
        comparison_sheet([report] * 6, [tmp_path] * 6),
    ):
        assert sheet.width < 2500 and sheet.height < 1200
        rows, columns = np.nonzero(Seen(sheet).pixels(SOURCE))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        if min(size) > 8:
            assert width / height == pytest.approx(size[0] / size[1], rel=0.02)


def test_the_same_report_gives_the_same_sheet(tmp_path: Path) -> None:
    report = reported(tmp_path)
    assert contact_sheet(report, tmp_path).tobytes() == contact_sheet(report, tmp_path).tobytes()


# Lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 150, 400])
def test_lines_keep_to_their_width_and_number(width: int) -> None:
    for text in ("some words of a prompt " * 20, "y" * 500, "кошка " * 50):
        lines = typesetting.wrap(text, 14, "black", width, most=4)
        assert len(lines) == 4 and lines[-1].text.endswith("...")
        assert all(typesetting.length(line.text, 14) <= width for line in lines)


def test_items_are_not_parted() -> None:
    lines = typesetting.flow(["PSNR 31.2 dB", "SSIM 0.98", "FLIP 0.05"], 13, "black", 170)
    assert [line.text for line in lines] == ["PSNR 31.2 dB   SSIM 0.98", "FLIP 0.05"]
    assert typesetting.flow([], 13, "black", 170) == []
