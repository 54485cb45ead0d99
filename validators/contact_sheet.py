"""The contact sheet: for each prompt the source, the variant and their difference, side by side.

Needs Pillow alone: the font is the one that comes with it, so a sheet looks the same everywhere.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageChops, ImageDraw

from fluxconv.validators import typesetting
from fluxconv.validators.report import Picture, Report
from fluxconv.validators.typesetting import Line

CELL = 256  # pixels: the longer side of a picture on the sheet, at most
SMALL_CELL = 192  # the same for pictures that are enlarged: there is no detail to be lost
AMPLIFIED = 4  # the difference is drawn this much stronger, else small errors cannot be seen
SHOWN = 48  # a PNG of more rows than this is of no use to anybody

_MARGIN, _GAP, _ROW_GAP = 40, 16, 30
_INK, _QUIET, _RULE = "#1c1e21", "#6b7076", "#dfe1e4"
_PASSED, _FAILED = "#1a7f4b", "#c0342b"
_COLUMNS = ("Source", "Variant", f"Difference x {AMPLIFIED}")


def contact_sheet(report: Report, folder: Path, bits_per_weight: float) -> Image.Image:
    """Draw the sheet of a report whose pictures lie in `folder`.

    Of more than 48 pictures the least alike are shown. `bits_per_weight` is for the heading.
    """
    assert report.pictures
    pictures = _choose(report.pictures.pictures)
    width, height = _fitted(report.settings.width, report.settings.height)
    total = 2 * _MARGIN + 3 * width + 2 * _GAP
    heading = _heading(report, bits_per_weight, len(pictures), total - 2 * _MARGIN)
    captions = [_caption(report, picture, 2 * width + _GAP - 12, width) for picture in pictures]
    head_height = _MARGIN + typesetting.height(heading) + 24
    row_heights = [
        height + 10 + max(typesetting.height(left), typesetting.height(right)) + _ROW_GAP
        for left, right in captions
    ]
    sheet = Image.new("RGB", (total, head_height + 30 + sum(row_heights) + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    _badge(pen, report.verdict.passed, total - _MARGIN)
    typesetting.write(pen, (_MARGIN, _MARGIN), heading)
    pen.line((_MARGIN, head_height - 8, total - _MARGIN, head_height - 8), fill=_RULE)
    lefts = [_MARGIN + column * (width + _GAP) for column in range(3)]
    for left, name in zip(lefts, _COLUMNS, strict=True):
        typesetting.write(pen, (left, head_height + 4), [Line(name, 14, _QUIET)])
    top = head_height + 30
    for picture, (left_text, right_text), row in zip(pictures, captions, row_heights, strict=True):
        for left, image in zip(lefts, _triple(picture, folder, (width, height)), strict=True):
            sheet.paste(image, (left, top))
            pen.rectangle((left, top, left + width - 1, top + height - 1), outline=_RULE)
        typesetting.write(pen, (lefts[0], top + height + 10), left_text)
        typesetting.write(pen, (lefts[2], top + height + 10), right_text)
        top += row
    return sheet


def _choose(pictures: tuple[Picture, ...]) -> list[Picture]:
    worst = sorted(range(len(pictures)), key=lambda index: pictures[index].ssim)[:SHOWN]
    return [pictures[index] for index in sorted(worst)]


def _fitted(width: int, height: int) -> tuple[int, int]:
    """The size on the sheet: whole multiples of small pictures, large ones scaled down."""
    longer = max(width, height)
    if longer <= SMALL_CELL:
        return width * (SMALL_CELL // longer), height * (SMALL_CELL // longer)
    if longer <= CELL:
        return width, height
    return max(1, width * CELL // longer), max(1, height * CELL // longer)


def _triple(picture: Picture, folder: Path, size: tuple[int, int]) -> list[Image.Image]:
    found = []
    for name in (picture.source, picture.variant):
        with Image.open(folder / name) as image:
            found.append(image.convert("RGB"))
    difference = ImageChops.difference(*found).point(lambda level: min(255, level * AMPLIFIED))
    # Enlarged pixels stay square, so that what is seen is what was drawn.
    small = found[0].width <= size[0]
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return [image.resize(size, how) for image in (*found, difference)]


def _heading(report: Report, bits: float, shown: int, width: int) -> list[Line]:
    assert report.pictures
    settings, found = report.settings, report.pictures
    psnr = (
        "all pictures equal"
        if found.psnr_mean is None or found.psnr_min is None
        else f"PSNR mean {found.psnr_mean:.1f} dB, lowest {found.psnr_min:.1f} dB"
    )
    lines = typesetting.wrap(report.variant, 28, _INK, width - 130)
    lines.append(Line(f"{report.backend}, {bits:.2f} bits per weight", 17, _INK))
    lines.append(
        Line(f"{psnr}; SSIM mean {found.ssim_mean:.3f}, lowest {found.ssim_min:.3f}", 17, _INK)
    )
    drawn = (
        f"{settings.width} x {settings.height} pixels, {settings.steps} steps, guidance "
        f"{settings.guidance:g}, drawn on {report.device}"
    )
    if shown < len(found.pictures):
        drawn += f"; the {shown} least alike of {len(found.pictures)} pictures"
    lines += typesetting.wrap(drawn, 14, _QUIET, width)
    for name, how in (report.execution or {}).items():
        if how.mode == "decoded":
            text = f"{name} was decoded to bf16 to be drawn: {how.why}"
            lines += typesetting.wrap(text, 14, _QUIET, width)
    for check in report.verdict.checks:
        if not check.passed:
            lines += typesetting.wrap(f"Failed: {check.text}", 14, _FAILED, width, most=4)
    return lines


def _caption(
    report: Report, picture: Picture, left: int, right: int
) -> tuple[list[Line], list[Line]]:
    prompt = typesetting.wrap(picture.prompt, 14, _INK, left, most=4)
    if len(report.settings.seeds) > 1:
        prompt.append(Line(f"seed {picture.seed}", 13, _QUIET))
    psnr = "equal" if picture.psnr is None else f"PSNR {picture.psnr:.1f} dB"
    return prompt, typesetting.wrap(f"{psnr}, SSIM {picture.ssim:.3f}", 14, _INK, right)


def _badge(pen: ImageDraw.ImageDraw, passed: bool, right: int) -> None:
    text, colour = ("passed", _PASSED) if passed else ("failed", _FAILED)
    box = (right - 104, _MARGIN, right, _MARGIN + 34)
    pen.rounded_rectangle(box, radius=17, fill=colour)
    pen.text(
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
        text,
        fill="white",
        font=typesetting.font(17),
        anchor="mm",
    )
