"""The figures of `gguf_encoders.py` as Markdown tables, each held against what was promised."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from encoder_promises import PROMISES, TIGHT, TWO_THREADS

Figures = dict[str, Any]  # one `gguf_encoders.Measured`


@dataclass(frozen=True)
class Check:
    """One figure and its bound."""

    value: float
    bound: float
    at_most: bool
    places: int

    @property
    def kept(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        """A table's cell: one that missed stands out, with what was promised."""
        value = f"{self.value:.{self.places}f}"
        return value if self.kept else f"**{value}, not {self.bound:g}**"


def better(errors: dict[str, float]) -> str:
    """C's better path: the one with the smaller error."""
    return min(("C plain", "C searching"), key=errors.__getitem__)


def checks(figures: Figures) -> dict[tuple[str, str], Check]:
    """By level, and kind of weights, "speed" or "two threads". Errors are parts of C's, to four
    places, in which equal errors are equal; speeds are multiples of the path's that is beaten."""
    promise = PROMISES[figures["type_name"]]
    speeds = figures["speeds"]
    found = {}
    for level in figures["first_calls"]:
        for kind, errors in figures["errors"].items():
            path = "C plain" if level == "fast" else better(errors)
            bound = promise.error if level == "best" and kind in TIGHT else 1
            found[level, kind] = Check(round(errors[level] / errors[path], 4), bound, True, 4)
        errors = figures["errors"].get("normal")
        path = better(errors) if level == "best" and errors else "C plain"
        times = promise.fast if level == "fast" else promise.best
        found[level, "speed"] = Check(speeds[level] / speeds[path], times, False, 2)
        gain = speeds[f"{level}, two threads"] / speeds[level]
        found[level, "two threads"] = Check(gain, TWO_THREADS, False, 2)
    return found


def missed(measured: Sequence[Figures]) -> list[str]:
    """A line for every promise that was not kept."""
    return [
        f"{figures['type_name']} {level}, {what}: {check.value:.4f}, not {check.bound:g}"
        for figures in measured
        for (level, what), check in checks(figures).items()
        if not check.kept
    ]


def tables(measured: Sequence[Figures]) -> str:
    """Errors, errors against C's, speeds."""
    return "\n\n".join(
        "\n".join(f"| {' | '.join(row)} |" for row in table(measured))
        for table in (_errors, _against_c, _speeds)
    )


def _errors(measured: Sequence[Figures]) -> Iterator[list[str]]:
    paths = ["C plain", "C searching", *measured[0]["first_calls"]]
    yield from _head("type", "bits", "weights", *paths)
    for each in measured:
        for kind, errors in each["errors"].items():
            bits = f"{each['bits']:g}"
            yield [each["type_name"], bits, kind, *(f"{errors[path]:.5f}" for path in paths)]


def _against_c(measured: Sequence[Figures]) -> Iterator[list[str]]:
    columns = [
        (level, kind) for level in measured[0]["first_calls"] for kind in measured[0]["errors"]
    ]
    yield from _head("type", *(f"{level}, {kind}" for level, kind in columns), "promised")
    for each in measured:
        found = checks(each)
        bound = f"{PROMISES[each['type_name']].error:.3f}"
        yield [each["type_name"], *(str(found[column]) for column in columns), bound]


def _speeds(measured: Sequence[Figures]) -> Iterator[list[str]]:
    levels = list(measured[0]["first_calls"])
    ours = [
        f"{level}{column}"
        for level in levels
        for column in (", Mw/s", " / C", ", two threads / one", ", first call")
    ]
    yield from _head("type", "C plain, Mw/s", "C searching, Mw/s", *ours)
    for each in measured:
        speeds, found = each["speeds"], checks(each)
        row = [each["type_name"], f"{speeds['C plain']:.1f}", f"{speeds['C searching']:.1f}"]
        for level in levels:
            row += [f"{speeds[level]:.1f}", str(found[level, "speed"])]
            row += [str(found[level, "two threads"]), f"{each['first_calls'][level]:.1f} s"]
        yield row


def _head(*names: str) -> Iterator[list[str]]:
    yield list(names)
    yield ["---"] * len(names)
