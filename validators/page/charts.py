"""What a chart is made of: geometry, and the same numbers as a table.

Every chart uses one colour a variant, by its rank in bits per weight, and is drawn by
`templates/chart.html.jinja`. Lengths are in units of the drawing's own view box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fluxconv.validators.page.axes import Axis, Quantity, axis_over
from fluxconv.validators.page.labels import Label, placed

LONG = 900.0  # width of a chart with a place for each step or layer
_WIDTH, _STRIPS_WIDTH = 400.0, 460.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 30, 46
_ROW = 38  # height of a row of a chart by kinds: a name, and the dots below it
_LETTERS = 52  # of a name, that fit above its row


@dataclass(frozen=True)
class Value:
    """One measurement of the variant `series`; `label` says of what."""

    series: int
    label: str
    x: float
    value: float


@dataclass(frozen=True)
class Point:
    """A value at its place, and in words; `beyond` if it lies beyond the axis: no error at all."""

    series: int
    x: float
    y: float
    label: str
    text: str
    beyond: bool


@dataclass(frozen=True)
class Rule:
    """A line across the chart with a name: the noise floor, a kind of layer."""

    at: float
    label: str


@dataclass(frozen=True)
class Data:
    """The numbers of a chart as a table."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Words:
    """What a chart is called: `key` in the page, a title, and a sentence on what is where."""

    key: str
    title: str
    description: str


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be drawn. `lines` joins the points of a series, `dots` shows them.

    `rules` are lines across it with a name, `rows` stand in place of an upward axis.
    """

    words: Words
    width: float
    height: float
    x: Axis
    y: Axis | None
    points: tuple[Point, ...]
    data: Data
    lines: bool = False
    dots: bool = True
    rules: tuple[Rule, ...] = ()
    rows: tuple[Rule, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def floor(self) -> float:
        """The height of the lower edge."""
        return self.height - _BOTTOM

    @property
    def paths(self) -> list[tuple[int, str]]:
        """For each series the path through its points."""
        found: dict[int, list[str]] = {}
        for point in self.points if self.lines else ():
            found.setdefault(point.series, []).append(f"{point.x:g} {point.y:g}")
        return [(series, "M" + "L".join(places)) for series, places in found.items()]

    @property
    def tips(self) -> dict[str, Any]:
        """The points as the script that names them wants them: each label is said once."""
        labels = list(dict.fromkeys(point.label for point in self.points))
        numbers = {label: number for number, label in enumerate(labels)}
        rows = [[p.series, p.x, p.y, numbers[p.label], p.text] for p in self.points]
        return {"labels": labels, "points": rows}


def scatter(
    words: Words,
    values: Sequence[Value],
    x: Quantity,
    y: Quantity,
    data: Data,
    *,
    names: Sequence[str],
    rules: Sequence[tuple[str, float]] = (),
) -> Chart:
    """A dot for each value, with its variant's name where there is room; `rules` have a height."""
    height = 300.0
    heights = [value.value for value in values] + [at for _, at in rules]
    upward = axis_over(y, heights, height - _BOTTOM, _TOP)
    across = axis_over(x, [value.x for value in values], _LEFT, _WIDTH - _RIGHT)
    points = _points(values, across, upward)
    lines = tuple(Rule(upward.place(at), name) for name, at in rules)
    labels = placed(
        [(point.series, point.x, point.y) for point in points],
        names,
        (_LEFT, 16, _WIDTH, height - _BOTTOM + 8),
        [Label(0, rule.label, _WIDTH - _RIGHT, rule.at - 5, "end").box for rule in lines],
    )
    return Chart(words, _WIDTH, height, across, upward, points, data, rules=lines, labels=labels)


def curves(
    words: Words, values: Sequence[Value], x: Quantity, y: Quantity, data: Data, *, dots: bool
) -> Chart:
    """A line for each variant through its values."""
    height = 330.0
    upward = axis_over(y, [value.value for value in values], height - _BOTTOM, _TOP)
    across = axis_over(x, [value.x for value in values], _LEFT, LONG - _RIGHT)
    points = _points(values, across, upward)
    return Chart(words, LONG, height, across, upward, points, data, lines=True, dots=dots)


def strips(words: Words, values: Sequence[Value], x: Quantity, data: Data) -> Chart:
    """A row for each label, with a dot for each variant."""
    names = list(dict.fromkeys(value.label for value in values))
    height = float(_ROW * len(names) + _BOTTOM + 8)
    across = axis_over(x, [value.value for value in values], _RIGHT, _STRIPS_WIDTH - _RIGHT)
    places = {name: _ROW * number + 28.0 for number, name in enumerate(names)}
    points = tuple(
        Point(
            value.series,
            across.place(value.value),
            places[value.label],
            value.label,
            x.text(value.value),
            not across.holds(value.value),
        )
        for value in values
    )
    rows = tuple(Rule(at, _shortened(name)) for name, at in places.items())
    return Chart(words, _STRIPS_WIDTH, height, across, None, points, data, rows=rows)


def _points(values: Sequence[Value], across: Axis, upward: Axis) -> tuple[Point, ...]:
    return tuple(
        Point(
            value.series,
            across.place(value.x),
            upward.place(value.value),
            value.label,
            upward.quantity.text(value.value),
            not upward.holds(value.value),
        )
        for value in values
    )


def _shortened(name: str) -> str:
    return name if len(name) <= _LETTERS else "…" + name[1 - _LETTERS :]
