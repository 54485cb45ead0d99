"""Lines of text on a picture: wrapped to a width, cut with an ellipsis when they are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import ImageDraw, ImageFont

# Pillow's own font has ASCII only; these cover most alphabets, and Pillow finds them by name.
_WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf")
_SPACING = 1.36  # of the font's size, from one line to the next


@dataclass(frozen=True)
class Line:
    """One line of text, its size in pixels and its colour."""

    text: str
    size: int
    colour: str


@cache
def font(size: int, ascii_only: bool = True) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow; for other characters than ASCII, one of the machine's."""
    if not ascii_only:
        for name in _WIDE_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def wrap(text: str, size: int, colour: str, width: int, *, most: int = 3) -> list[Line]:
    """`text` as lines of at most `width` pixels, at most `most` of them."""
    # A tab or an escape sequence in a prompt has no place in a picture.
    words = "".join(c if c.isprintable() else " " for c in text).split()
    return flow(words, size, colour, width, joint=" ", most=most)


def flow(
    items: Sequence[str],
    size: int,
    colour: str,
    width: int,
    *,
    joint: str = "   ",
    most: int = 100,
) -> list[Line]:
    """`items` side by side, on lines of at most `width` pixels, at most `most` of them.

    Only an item that is longer than a line is broken.
    """
    items = list(items)
    lines: list[str] = []
    while items and len(lines) < most:
        line = items.pop(0)
        while items and length(f"{line}{joint}{items[0]}", size) <= width:
            line += f"{joint}{items.pop(0)}"
        cut = _fitting(line, size, width)
        if cut < len(line):
            items.insert(0, line[cut:])
            line = line[:cut]
        lines.append(line)
    if items and lines:
        last = lines[-1]
        while last and length(f"{last} ...", size) > width:
            last = last[:-1]
        lines[-1] = f"{last} ..."
    return [Line(line, size, colour) for line in lines]


def height(lines: Sequence[Line]) -> int:
    """Pixels that the lines take, one below the other."""
    return sum(_step(line) for line in lines)


def length(text: str, size: int) -> float:
    """Pixels that `text` takes on one line."""
    return font(size, text.isascii()).getlength(text)


def write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[Line]) -> None:
    """Write the lines with their upper left corner at `corner`."""
    left, top = corner
    for line in lines:
        pen.text(
            (left, top), line.text, fill=line.colour, font=font(line.size, line.text.isascii())
        )
        top += _step(line)


def _step(line: Line) -> int:
    return round(line.size * _SPACING)


def _fitting(text: str, size: int, width: int) -> int:
    """How many characters of `text` fit into `width`; at least one."""
    text = text[: width + 1]  # a character takes a pixel at least
    if length(text, size) <= width:
        return len(text)
    low, high = 1, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if length(text[:middle], size) <= width else (low, middle)
    return low
