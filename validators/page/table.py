"""The comparison table: one entry of `_columns` a column, a row a variant.

Below the variants stand the source, for its memory and times, and the noise floor, so that the
errors have a scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fluxconv.validators.comparison import Comparison
from fluxconv.validators.metrics import METRICS, Metric
from fluxconv.validators.page import figures
from fluxconv.validators.page.figures import MISSING
from fluxconv.validators.report import Report
from fluxconv.validators.results import Performance, Summary


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and what it is sorted by: `order` is empty where nothing is known."""

    text: str = MISSING
    order: str = ""
    state: str = ""


@dataclass(frozen=True)
class Row:
    """A row; its first cell is a name."""

    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Heading:
    """The heading of a column; `what` explains it, `numeric` columns stand at the right."""

    title: str
    what: str
    numeric: bool


@dataclass(frozen=True)
class Table:
    """The whole of it; `groups` are titles over neighbouring columns, with their number."""

    groups: tuple[tuple[str, int], ...]
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    references: tuple[Row, ...]


@dataclass(frozen=True)
class _Column:
    group: str
    title: str
    what: str
    cell: Callable[[Report], Cell]
    numeric: bool = True


def comparison_table(comparison: Comparison) -> Table:
    """All variants in their order; columns that nothing is known for are left out."""
    reports = comparison.reports
    columns = [
        column
        for column in _columns(reports)
        if any(column.cell(report).text != MISSING for report in reports)
    ]
    rows = tuple(Row(tuple(column.cell(report) for column in columns)) for report in reports)
    references = tuple(
        Row((Cell(name), *(known.get(column.title, Cell()) for column in columns[1:])))
        for name, known in _references(comparison)
    )
    headings = tuple(Heading(c.title, c.what, c.numeric) for c in columns)
    return Table(_groups(columns), headings, rows, references)


def plain(performance: Sequence[Performance]) -> Performance | None:
    """The measurement that stands for a variant: the first mode that ran, plain before others."""
    ran = [each for each in performance if each.seconds is not None]
    return min(ran, key=lambda each: each.mode != "plain", default=None)


def number(value: float | None, form: Callable[[float], str]) -> Cell:
    """A cell with a number, a dash if there is none."""
    return Cell() if value is None else Cell(form(value), repr(float(value)))


def metrics_of(names: Iterable[str]) -> list[Metric]:
    """The metrics of these names, in the order in which they are shown everywhere."""
    found = set(names)
    return [metric for name, metric in METRICS.items() if name in found]


def summary_cell(metric: Metric, summaries: dict[str, Summary] | None) -> Cell:
    """The mean of a score; infinite where every picture equals the source's."""
    if summaries is None or metric.name not in summaries:
        return Cell()
    mean = summaries[metric.name].mean
    return Cell(metric.format(mean), repr(math.inf if mean is None else mean))


def _columns(reports: Sequence[Report]) -> list[_Column]:
    keys = {key for r in reports if r.pictures for key in r.pictures.summary}
    return [
        _Column("", "Variant", "Name of the variant", lambda r: _text(r.variant), False),
        _Column("", "Verdict", "Whether every check passed", _verdict, False),
        _Column("", "Backend", "How it is quantized", lambda r: _text(r.backend), False),
        _Column(
            "Size",
            "Size",
            "All files of the variant",
            lambda r: number(r.size, figures.size),
        ),
        _Column(
            "Size",
            "Bits/weight",
            "Of the quantized components, scales included",
            lambda r: number(r.bits_per_weight, lambda bits: f"{bits:.2f}"),
        ),
        _Column("Weight error", "Transformer", "Relative RMS error of all weights", _transformer),
        _Column("Weight error", "T5", "Relative RMS error of all weights", _t5),
        _Column(
            "Model error",
            "Text",
            "Relative error of T5's hidden states",
            lambda r: number(
                r.text_encoder.relative_rms if r.text_encoder else None, figures.percent
            ),
        ),
        _Column(
            "Model error",
            "Step",
            "Relative error of the predicted velocity, given the source's own inputs",
            lambda r: number(r.steps.relative_rms if r.steps else None, figures.percent),
        ),
        *(_score_column(metric) for metric in metrics_of(keys)),
        *(_performance_column(title, what) for title, what in _PERFORMANCE),
        _Column("", "Execution", "By its library, or decoded to bf16 first", _execution, False),
    ]


_PERFORMANCE = (
    ("Loaded", "Memory after loading"),
    ("Peak", "Most memory while drawing"),
    ("Picture", "Time for one picture"),
    ("Compiling", "Time that compiling took, in the mode that compiles"),
)


def _score_column(metric: Metric) -> _Column:
    return _Column(
        "Pictures against the source's",
        metric.title,
        metric.meaning,
        lambda r: summary_cell(metric, r.pictures.summary if r.pictures else None),
    )


def _performance_column(title: str, what: str) -> _Column:
    return _Column("Performance", title, what, lambda r: _timed(r.performance)[title])


def _timed(performance: Sequence[Performance]) -> dict[str, Cell]:
    """The cells of the performance columns, by their titles."""
    one = plain(performance)
    compiling = [e.compile_seconds for e in performance if e.compile_seconds is not None]
    return {
        "Loaded": number(one.memory_loaded if one else None, figures.size),
        "Peak": number(one.memory_peak if one else None, figures.size),
        "Picture": number(one.seconds if one else None, figures.seconds),
        "Compiling": number(compiling[0] if compiling else None, figures.seconds),
    }


def _references(comparison: Comparison) -> Iterator[tuple[str, dict[str, Cell]]]:
    yield "The source", _timed(comparison.source_performance)
    if floor := comparison.noise_floor:
        yield "Source, second run", _scores(floor.again)
        if floor.other is not None or floor.steps_rms is not None:
            cells = _scores(floor.other or {})
            cells["Step"] = number(floor.steps_rms, figures.percent)
            yield f"Source in {floor.dtype}", cells


def _scores(summaries: dict[str, Summary]) -> dict[str, Cell]:
    return {metric.title: summary_cell(metric, summaries) for metric in metrics_of(summaries)}


def _groups(columns: Sequence[_Column]) -> tuple[tuple[str, int], ...]:
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return tuple(groups)


def _text(text: str) -> Cell:
    return Cell(text, text)


def _verdict(report: Report) -> Cell:
    word = "passed" if report.verdict.passed else "failed"
    return Cell(word, word, word)


def _execution(report: Report) -> Cell:
    if report.execution is None:
        return Cell()
    word = "decoded" if report.is_decoded else "native"
    return Cell(word, word, word)


def _weights(report: Report, component: str) -> Cell:
    found = (report.weights or {}).get(component)
    return number(found.relative_rms if found else None, figures.percent)


def _transformer(report: Report) -> Cell:
    return _weights(report, "transformer")


def _t5(report: Report) -> Cell:
    return _weights(report, "text_encoder_2")
