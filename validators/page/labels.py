"""Names beside the dots of a chart, where there is room for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Left, top, right and bottom.
Box = tuple[float, float, float, float]

_LETTER = 6.2  # mean width of a letter, in units of the drawing
_HEIGHT = 12.0
_AWAY = 8.0  # from the middle of a dot to its name


@dataclass(frozen=True)
class Label:
    """A name, its place, and the end of it that stands there: `start`, `middle` or `end`."""

    series: int
    text: str
    x: float
    y: float
    anchor: str

    @property
    def box(self) -> Box:
        """What it covers."""
        width = _LETTER * len(self.text)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - _HEIGHT + 2, left + width, self.y + 3


def short_names(names: Sequence[str]) -> list[str]:
    """The names without what they all begin with, up to the last hyphen of it."""
    start = _beginning(names).rfind("-") + 1 if len(set(names)) > 1 else 0
    return [name[start:] or name for name in names]


def placed(
    dots: Sequence[tuple[int, float, float]],
    names: Sequence[str],
    within: Box,
    taken: Iterable[Box] = (),
) -> tuple[Label, ...]:
    """Names for dots (series, x, y) inside the box `within`.

    None touches another, a dot, or what is `taken`. A dot that has no room on any side stays
    without a name: pointing at it tells it.
    """
    boxes = [*taken, *((x - 5, y - 5, x + 5, y + 5) for _, x, y in dots)]
    found: list[Label] = []
    for series, x, y in dots:
        name = names[series]
        for label in (
            Label(series, name, x + _AWAY, y + 4, "start"),
            Label(series, name, x - _AWAY, y + 4, "end"),
            Label(series, name, x, y - _AWAY, "middle"),
            Label(series, name, x, y + _AWAY + 9, "middle"),
        ):
            if _inside(label.box, within) and not any(_touch(label.box, box) for box in boxes):
                found.append(label)
                boxes.append(label.box)
                break
    return tuple(found)


def _beginning(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), None
    )
    return first if same is None else first[:same]


def _inside(box: Box, outer: Box) -> bool:
    return outer[0] <= box[0] and outer[1] <= box[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _touch(first: Box, second: Box) -> bool:
    return (
        first[0] < second[2]
        and second[0] < first[2]
        and first[1] < second[3]
        and second[1] < first[3]
    )
