"""Contact sheets: prompts down, the source and one variant or many across, numbers below.

One variant is shown with its difference, drawn stronger, and FLIP's map; of many each has FLIP's
map below its picture. Where things go on the sheet is the matter of `sheet`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from statistics import fmean

from PIL import Image, ImageChops

from fluxconv.validators import sheet, typesetting
from fluxconv.validators.metrics import METRICS
from fluxconv.validators.report import Report
from fluxconv.validators.results import Picture
from fluxconv.validators.sheet import BAD, GOOD, INK, QUIET, Cell, Grid, Heading, Strip, Table
from fluxconv.validators.typesetting import Line

AMPLIFIED = 4  # the difference is drawn this much stronger, else small errors cannot be seen

_CELL = 256  # pixels: the longer side of a picture on the sheet, at most
_SMALL_CELL = 192  # the same beside many others, and for those that are enlarged: no detail is lost
_FEW, _MOST = 4, 10  # variants across: up to so many in large cells, and at most
_COLUMNS = ("Source", "Variant", f"Difference x {AMPLIFIED}", "FLIP")


def contact_sheet(report: Report, folder: Path) -> Image.Image:
    """The sheet of one report, whose pictures lie in `folder`.

    Of more pictures than a sheet can hold the least alike are shown.
    """
    assert report.pictures
    pictures = report.pictures.pictures
    grid = Grid(len(_COLUMNS), _fitted(report, _CELL))
    strips = [_strip_of_one(report, picture, folder, grid) for picture in pictures]
    badge = ("passed", GOOD) if report.verdict.passed else ("failed", BAD)
    heading = Heading(_lines_of_one(report, grid.inner), badge=badge)
    likeness = [_likeness([picture]) for picture in pictures]
    return _draw(grid, heading, [[strip] for strip in strips], likeness, _COLUMNS)


def comparison_sheet(reports: Sequence[Report], folders: Sequence[Path]) -> Image.Image:
    """One sheet of several reports with the same reference and settings.

    The pictures of each report lie in its folder. Variants that were not drawn are only in the
    table. More than ten variants go on several lines for each prompt, the source on every one.
    """
    drawn = [each for each in zip(reports, folders, strict=True) if each[0].pictures]
    lines = ceil(len(drawn) / _MOST) or 1
    across = ceil(len(drawn) / lines)
    table = _table(reports)
    grid = Grid(
        1 + across,
        _fitted(reports[0], _CELL if across <= _FEW else _SMALL_CELL),
        least=sheet.table_width(table),
    )
    found: dict[tuple[str, int], dict[int, Picture]] = {}
    for index, (report, _) in enumerate(drawn):
        for picture in report.pictures.pictures if report.pictures else ():
            found.setdefault((picture.prompt, picture.seed), {})[index] = picture
    groups = [_group_of_many(drawn, pictures, across, grid) for pictures in found.values()]
    heading = Heading(_lines_of_many(reports, grid.inner), table)
    likeness = [_likeness(pictures.values()) for pictures in found.values()]
    return _draw(grid, heading, groups, likeness)


def _draw(
    grid: Grid,
    heading: Heading,
    groups: Sequence[Sequence[Strip]],
    likeness: Sequence[float],
    columns: Sequence[str] = (),
) -> Image.Image:
    """As many groups as there is room for, the least alike, in their order; `columns` on top."""
    order = sorted(range(len(groups)), key=lambda index: likeness[index])
    note = f"Only the least alike are shown, of {len(groups)} pictures."
    noted = replace(heading, lines=[*heading.lines, Line(note, 14, QUIET)])
    shown = sorted(order[: sheet.fitting(grid, noted, [groups[index] for index in order])])
    chosen = [list(groups[index]) for index in shown]
    if columns:
        first = zip(chosen[0][0], columns, strict=True)
        chosen[0][0] = tuple(replace(cell, title=[Line(name, 14, QUIET)]) for cell, name in first)
    return sheet.draw(grid, heading if len(shown) == len(groups) else noted, chosen)


# Cells -------------------------------------------------------------------------------------------


def _strip_of_one(report: Report, picture: Picture, folder: Path, grid: Grid) -> Strip:
    source, variant = folder / picture.source, folder / picture.variant
    half = grid.span(2) - 12
    prompt, numbers = _prompt(report, picture, half, 4), _numbers(picture, half)
    return (
        Cell((partial(_opened, source, grid.size),), caption=prompt),
        Cell((partial(_opened, variant, grid.size),)),
        Cell((partial(_difference, source, variant, grid.size),), caption=numbers),
        Cell((partial(_opened, folder / picture.flip_map, grid.size),)),
    )


def _group_of_many(
    drawn: Sequence[tuple[Report, Path]], pictures: dict[int, Picture], across: int, grid: Grid
) -> list[Strip]:
    index, any_picture = next(iter(pictures.items()))
    report, folder = drawn[index]
    title = [Line("Source", 14, QUIET)]
    source = Cell((partial(_opened, folder / any_picture.source, grid.size),), title)
    cells = [_cell_of_many(*each, pictures.get(i), grid) for i, each in enumerate(drawn)]
    # The prompt has the room beside the maps.
    lines = (grid.size[1] + 60) // 19
    prompt = _prompt(report, any_picture, grid.column, lines)
    return [
        (replace(source, caption=prompt if start == 0 else ()), *cells[start : start + across])
        for start in range(0, len(cells), across)
    ]


def _cell_of_many(report: Report, folder: Path, picture: Picture | None, grid: Grid) -> Cell:
    title = typesetting.wrap(_label(report), 14, INK, grid.column, most=2)
    if picture is None:
        return Cell((), title, [Line("not drawn", 13, QUIET)])
    paths = (folder / picture.variant, folder / picture.flip_map)
    return Cell(
        tuple(partial(_opened, path, grid.size) for path in paths),
        title,
        _numbers(picture, grid.column),
    )


def _opened(file: Path, size: tuple[int, int]) -> Image.Image:
    with Image.open(file) as image:
        return _resized(image.convert("RGB"), size)


def _difference(source: Path, variant: Path, size: tuple[int, int]) -> Image.Image:
    with Image.open(source) as first, Image.open(variant) as second:
        difference = ImageChops.difference(first.convert("RGB"), second.convert("RGB"))
    return _resized(difference.point(lambda level: min(255, level * AMPLIFIED)), size)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # Enlarged pixels stay square, so that what is seen is what was drawn.
    small = image.width <= size[0]
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return image.resize(size, how, reducing_gap=None if small else 3.0)


def _fitted(report: Report, longest: int) -> tuple[int, int]:
    """The size on the sheet: whole multiples of small pictures, large ones scaled down."""
    width, height = report.settings.width, report.settings.height
    longer = max(width, height)
    if longer <= _SMALL_CELL:
        return width * (_SMALL_CELL // longer), height * (_SMALL_CELL // longer)
    shrunk = min(1.0, longest / longer)
    return max(1, round(width * shrunk)), max(1, round(height * shrunk))


# Words -------------------------------------------------------------------------------------------


def _prompt(report: Report, picture: Picture, width: int, most: int) -> list[Line]:
    lines = typesetting.wrap(picture.prompt, 14, INK, width, most=most)
    if len(report.settings.seeds) > 1:
        lines.append(Line(f"seed {picture.seed}", 13, QUIET))
    return lines


def _numbers(picture: Picture, width: int) -> list[Line]:
    scores = [
        f"{METRICS[name].title} {METRICS[name].format(value)}"
        for name, value in picture.scores.items()
    ]
    return typesetting.flow(scores, 13, INK, width)


def _label(report: Report) -> str:
    """The variant's name from its backend on: what tells it from others of the same source."""
    start = report.variant.rfind(report.backend)
    return report.variant[max(0, start) :]


def _drawn_with(report: Report) -> str:
    settings = report.settings
    return (
        f"{settings.width} x {settings.height} pixels, {settings.steps} steps, guidance "
        f"{settings.guidance:g}, drawn on {report.device}"
    )


def _lines_of_one(report: Report, width: int) -> list[Line]:
    assert report.pictures
    lines = typesetting.wrap(report.variant, 28, INK, width - 130)
    lines.append(Line(f"{report.backend}, {report.bits_per_weight:.2f} bits per weight", 17, INK))
    scores = []
    for name, found in report.pictures.summary.items():
        metric = METRICS[name]
        worst = "" if found.worst is None else f", worst {metric.format(found.worst)}"
        scores.append(f"{metric.title} {metric.format(found.mean)}{worst}")
    lines += typesetting.flow(scores, 15, INK, width, joint="     ")
    lines += typesetting.wrap(_drawn_with(report), 14, QUIET, width)
    for name, how in (report.execution or {}).items():
        if how.mode == "decoded":
            text = f"{name} was decoded to bf16 to be drawn: {how.why}"
            lines += typesetting.wrap(text, 14, QUIET, width)
    for check in report.verdict.checks:
        if not check.passed:
            lines += typesetting.wrap(f"Failed: {check.text}", 14, BAD, width, most=4)
    return lines


def _lines_of_many(reports: Sequence[Report], width: int) -> list[Line]:
    variants = "1 variant" if len(reports) == 1 else f"{len(reports)} variants"
    drawn = f"{_drawn_with(reports[0])}; below each picture, where FLIP sees a difference"
    return [
        *typesetting.wrap(f"{reports[0].reference}, {variants}", 28, INK, width),
        *typesetting.wrap(drawn, 14, QUIET, width),
    ]


def _table(reports: Sequence[Report]) -> Table:
    """Every variant with the mean of each score and its verdict."""
    summaries = [report.pictures.summary if report.pictures else {} for report in reports]
    names = [name for name in METRICS if any(name in summary for summary in summaries)]
    pictures = max(len(report.pictures.pictures) if report.pictures else 0 for report in reports)
    first = f"Means of {pictures} pictures"
    rows = [((first, "Bits", *(METRICS[name].title for name in names), "Verdict"), QUIET)]
    for report, summary in zip(reports, summaries, strict=True):
        means = [METRICS[n].format(summary[n].mean) if n in summary else "-" for n in names]
        verdict = "passed" if report.verdict.passed else "failed"
        verdict += ", decoded" if report.is_decoded else ""
        label = typesetting.wrap(_label(report), 14, INK, 420, most=1)[0].text
        texts = (label, f"{report.bits_per_weight:.2f}", *means, verdict)
        rows.append((texts, INK if report.verdict.passed else BAD))
    return rows


def _likeness(pictures: Iterable[Picture]) -> float:
    return fmean(picture.scores["ssim"] or 0.0 for picture in pictures)
