"""A sheet of pictures: a heading, then strips of cells, each with text above and below.

It knows where things go, not what they mean. It needs Pillow alone: the font is the one that comes
with it, so that a sheet looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from PIL import Image, ImageDraw

from fluxconv.validators import typesetting
from fluxconv.validators.typesetting import Line

INK, QUIET, RULE = "#1c1e21", "#6b7076", "#dfe1e4"
GOOD, BAD = "#1a7f4b", "#c0342b"
GAP = 16  # pixels between columns
TALLEST = 16_000  # pixels: viewers and browsers refuse longer pictures, or scale them down

_NARROWEST, _NARROWEST_COLUMN = 760, 150  # pixels across that a heading, that numbers need
_MARGIN, _STRIP_GAP, _CELL_GAP, _TEXT_GAP = 40, 18, 6, 8
_TABLE_SIZE, _TABLE_GAP = 14, 26


@dataclass(frozen=True)
class Cell:
    """Pictures one below the other; each is made when it is drawn, so that none waits in memory."""

    pictures: tuple[Callable[[], Image.Image], ...]
    title: Sequence[Line] = ()
    caption: Sequence[Line] = ()


Strip = tuple[Cell, ...]
Table = Sequence[tuple[Sequence[str], str]]  # the texts of each row, and its colour


@dataclass(frozen=True)
class Heading:
    """Lines, below them a table with numbers to the right, and a badge in the corner."""

    lines: Sequence[Line]
    table: Table = ()
    badge: tuple[str, str] | None = None

    @property
    def height(self) -> int:
        rows = [Line("", _TABLE_SIZE, INK)] * len(self.table)
        return typesetting.height(self.lines) + (typesetting.height(rows) + 10 if rows else 0)


@dataclass(frozen=True)
class Grid:
    """Columns for pictures of one `size`, on a sheet with room for `least` pixels of text."""

    columns: int
    size: tuple[int, int]
    least: int = 0

    @property
    def column(self) -> int:
        """Pixels across a column."""
        return max(self.size[0], _NARROWEST_COLUMN)

    @property
    def inner(self) -> int:
        """Pixels across the sheet without its margins."""
        return max(self.least, _NARROWEST, self.span(self.columns))

    def span(self, columns: int) -> int:
        """Pixels across some neighbouring columns."""
        return columns * (self.column + GAP) - GAP

    def height(self, strip: Strip) -> int:
        """Pixels that a strip takes, with the gap below it."""
        title = max(typesetting.height(cell.title) for cell in strip)
        return title + max(self._below_title(cell) for cell in strip) + _STRIP_GAP

    def _below_title(self, cell: Cell) -> int:
        pictures = len(cell.pictures) * (self.size[1] + _CELL_GAP)
        return pictures + typesetting.height(cell.caption) + _TEXT_GAP

    def draw_strip(self, sheet: Image.Image, top: int, strip: Strip) -> None:
        """Draw a strip with its upper edge at `top`."""
        pen = ImageDraw.Draw(sheet)
        width, height = self.size
        below = top + max(typesetting.height(cell.title) for cell in strip)
        for column, cell in enumerate(strip):
            left, y = _MARGIN + column * (self.column + GAP), below
            typesetting.write(pen, (left, top), cell.title)
            for make in cell.pictures:
                sheet.paste(make(), (left, y))
                pen.rectangle((left - 1, y - 1, left + width, y + height), outline=RULE)
                y += height + _CELL_GAP
            typesetting.write(pen, (left, y + _TEXT_GAP - _CELL_GAP), cell.caption)


def table_width(table: Table) -> int:
    """Pixels across a heading's table."""
    return _edges(table)[-1]


def fitting(grid: Grid, heading: Heading, groups: Sequence[Sequence[Strip]]) -> int:
    """How many of the `groups`, from the first on, a sheet can hold; one at least."""
    # A line is left free: titles may be added above the first strip.
    room = TALLEST - _top(heading) - _MARGIN - 30
    heights = accumulate(sum(map(grid.height, group)) for group in groups)
    return max(1, sum(height <= room for height in heights))


def draw(grid: Grid, heading: Heading, groups: Sequence[Sequence[Strip]]) -> Image.Image:
    """The sheet; a rule parts the groups of strips."""
    heights = [[grid.height(strip) for strip in group] for group in groups]
    total = _top(heading) + sum(map(sum, heights)) + _MARGIN
    sheet = Image.new("RGB", (grid.inner + 2 * _MARGIN, total), "white")
    pen = ImageDraw.Draw(sheet)
    right = sheet.width - _MARGIN
    typesetting.write(pen, (_MARGIN, _MARGIN), heading.lines)
    _write_table(pen, _MARGIN + typesetting.height(heading.lines) + 10, heading.table)
    if heading.badge:
        _write_badge(pen, right, *heading.badge)
    top = _top(heading)
    for group, group_heights in zip(groups, heights, strict=True):
        pen.line((_MARGIN, top - 10, right, top - 10), fill=RULE)
        for strip, height in zip(group, group_heights, strict=True):
            grid.draw_strip(sheet, top, strip)
            top += height
    return sheet


def _top(heading: Heading) -> int:
    return _MARGIN + heading.height + 28


def _edges(table: Table) -> list[int]:
    """The right edge of each column."""
    columns = zip(*(texts for texts, _ in table), strict=True)
    widths = [max(typesetting.length(text, _TABLE_SIZE) for text in column) for column in columns]
    return [round(edge) for edge in accumulate(width + _TABLE_GAP for width in widths)]


def _write_table(pen: ImageDraw.ImageDraw, top: int, table: Table) -> None:
    if not table:
        return
    edges = _edges(table)
    for texts, colour in table:
        for column, (text, edge) in enumerate(zip(texts, edges, strict=True)):
            line = Line(text, _TABLE_SIZE, colour)
            start = 0 if column == 0 else edge - _TABLE_GAP - typesetting.length(text, _TABLE_SIZE)
            typesetting.write(pen, (_MARGIN + round(start), top), [line])
        top += typesetting.height([line])


def _write_badge(pen: ImageDraw.ImageDraw, right: int, text: str, colour: str) -> None:
    box = (right - 104, _MARGIN, right, _MARGIN + 34)
    pen.rounded_rectangle(box, radius=17, fill=colour)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    pen.text(middle, text, fill="white", font=typesetting.font(17), anchor="mm")
