"""The axes of a chart: from values to places, and where the ticks stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fluxconv.validators.page import figures


@dataclass(frozen=True)
class Quantity:
    """What an axis shows: its name, a value in words, and how ticks are labelled.

    A tick's label is `scale` times the value, with the unit. `whole` quantities have no tick
    between two whole numbers.
    """

    title: str
    form: Callable[[float], str] = figures.number
    unit: str = ""
    scale: float = 1
    logarithmic: bool = False
    whole: bool = False

    def text(self, value: float | None) -> str:
        """A value in words; a dash for none."""
        if value is None:
            return figures.MISSING
        return figures.EQUAL if math.isinf(value) else self.form(value)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, at a place in the drawing."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on a line from `start` to `end`, both in units of the drawing.

    Values beyond an end are drawn on it: zero on a logarithmic axis, infinity on any.
    """

    quantity: Quantity
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where `value` stands."""
        value = min(max(value, self.low), self.high)
        if self.quantity.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def holds(self, value: float) -> bool:
        """Whether the value is not beyond an end."""
        return self.low <= value <= self.high

    @property
    def ticks(self) -> list[Tick]:
        """Round values, few enough to be read."""
        values = self._decades() if self.quantity.logarithmic else self._steps()
        scale, unit = self.quantity.scale, self.quantity.unit
        return [Tick(self.place(value), f"{value * scale:.4g}{unit}") for value in values]

    def _steps(self) -> list[float]:
        step = _round_step((self.high - self.low) / 5)
        if self.quantity.whole:
            step = max(step, 1)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 10) for number in range(first, last + 1)]

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for parts in ((1, 2, 5), (1, 3), (1,)):
            values = [part * 10.0**power for power in range(first, last + 1) for part in parts]
            inside = [value for value in values if self.low <= value <= self.high]
            if len(inside) <= 7:
                break
        return inside


def axis_over(quantity: Quantity, values: Iterable[float], start: float, end: float) -> Axis:
    """An axis over all values that it can show, with some air at both ends."""
    if quantity.logarithmic:
        shown = [value for value in values if 0 < value < math.inf] or [1.0]
        low, high = min(shown) / 1.3, max(shown) * 1.3
        middle = math.sqrt(low * high)
        return Axis(quantity, min(low, middle / 2), max(high, middle * 2), start, end)
    shown = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    air = (max(shown) - min(shown)) * 0.06 or abs(shown[0]) * 0.1 or 1.0
    air = 0.5 if quantity.whole else air
    return Axis(quantity, min(shown) - air, max(shown) + air, start, end)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
