"""The charts of the page: error against size, along the steps, and along the layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from fluxconv.validators.comparison import Comparison
from fluxconv.validators.metrics import METRICS, Metric
from fluxconv.validators.page import figures
from fluxconv.validators.page.axes import Quantity
from fluxconv.validators.page.charts import Chart, Data, Value, Words, curves, scatter, strips
from fluxconv.validators.page.labels import short_names
from fluxconv.validators.report import Report

TITLES = {"transformer": "Transformer", "text_encoder_2": "T5"}

_BITS = Quantity("bits per weight")
_STEP = Quantity("step", whole=True)
_TENSOR = Quantity("tensor, in the model's order", whole=True)

#: Of each variant, by the name of what was measured.
Found = Mapping[int, Mapping[str, float]]


def _error(title: str) -> Quantity:
    return Quantity(title, figures.percent, " %", 100, logarithmic=True)


def charts(comparison: Comparison) -> dict[str, list[Chart]]:
    """All charts that there are numbers for: `size`, `steps`, `layers` and `kinds`."""
    reports = comparison.reports
    components = list(dict.fromkeys(name for r in reports for name in r.weights or {}))
    return {
        "size": [_steps_by_bits(comparison), *_scores_by_bits(comparison)],
        "steps": [_per_step(reports)],
        "layers": [_per_layer(reports, name) for name in components],
        "kinds": [_per_kind(reports, name) for name in components],
    }


def drawn(comparison: Comparison) -> dict[str, list[Chart]]:
    """The charts that show anything."""
    return {
        group: found
        for group, every in charts(comparison).items()
        if (found := [chart for chart in every if chart.points])
    }


def _steps_by_bits(comparison: Comparison) -> Chart:
    values = {i: r.steps.relative_rms for i, r in enumerate(comparison.reports) if r.steps}
    floor = comparison.noise_floor
    rules = [(f"source in {floor.dtype}", floor.steps_rms)] if floor and floor.steps_rms else []
    return _by_bits(comparison, "step", _error("step error"), values, rules)


def _scores_by_bits(comparison: Comparison) -> Iterator[Chart]:
    for metric in (METRICS["psnr"], METRICS["flip"]):
        values = {
            i: _finite(r.pictures.summary[metric.name].mean)
            for i, r in enumerate(comparison.reports)
            if r.pictures and metric.name in r.pictures.summary
        }
        quantity = Quantity(
            metric.title,
            metric.format,
            f" {metric.unit}".rstrip(),
            logarithmic=not metric.higher_is_better,
        )
        yield _by_bits(comparison, metric.name, quantity, values, _noise(comparison, metric))


def _noise(comparison: Comparison, metric: Metric) -> list[tuple[str, float]]:
    floor = comparison.noise_floor
    summary = (floor.other or {}).get(metric.name) if floor else None
    return (
        [(f"source in {floor.dtype}", summary.mean)] if floor and summary and summary.mean else []
    )


def _finite(mean: float | None) -> float:
    return math.inf if mean is None else mean


def _by_bits(
    comparison: Comparison,
    key: str,
    quantity: Quantity,
    values: Mapping[int, float],
    rules: Sequence[tuple[str, float]],
) -> Chart:
    reports = comparison.reports
    bits = {i: reports[i].bits_per_weight for i in values}
    title = quantity.title[:1].upper() + quantity.title[1:]
    rows = [(reports[i].variant, f"{bits[i]:.2f}", quantity.text(v)) for i, v in values.items()]
    return scatter(
        Words(
            f"bits-{key}",
            f"{title} against bits per weight",
            "One dot a variant; hollow where there is no difference at all.",
        ),
        [Value(i, f"{bits[i]:.2f} bits per weight", bits[i], v) for i, v in values.items()],
        _BITS,
        quantity,
        Data(("Variant", "Bits per weight", title), tuple(rows)),
        names=short_names([report.variant for report in reports]),
        rules=rules,
    )


def _per_step(reports: Sequence[Report]) -> Chart:
    found: dict[int, dict[str, float]] = {}
    for i, report in enumerate(reports):
        if report.steps:
            tracks = [[s.relative_rms for s in each.steps] for each in report.steps.trajectories]
            means = [fmean(column) for column in zip(*tracks, strict=False)]
            found[i] = {f"step {number}": mean for number, mean in enumerate(means, 1)}
    count = max((len(r.steps.trajectories) for r in reports if r.steps), default=0)
    names = _merged(found)
    return curves(
        Words(
            "steps",
            "Error of each step",
            f"The predicted velocity against the source's, the mean over {count} drawings. Every "
            "step starts from the source's own latents.",
        ),
        _values(found, names),
        _STEP,
        _error("relative error"),
        _table(reports, "Step", names, found),
        dots=True,
    )


def _per_layer(reports: Sequence[Report], component: str) -> Chart:
    found = {
        i: {tensor.name: tensor.relative_rms for tensor in report.weights[component].tensors}
        for i, report in enumerate(reports)
        if report.weights and component in report.weights
    }
    names = _merged(found)
    return curves(
        Words(
            f"layers-{component}",
            f"{TITLES.get(component, component)}: error of each layer",
            f"The weights of the {len(names)} quantized tensors against the source's.",
        ),
        _values(found, names),
        _TENSOR,
        _error("relative RMS error"),
        _table(reports, "Tensor", names, found),
        dots=False,
    )


def _per_kind(reports: Sequence[Report], component: str) -> Chart:
    found = {
        i: {kind.name: kind.relative_rms for kind in report.weights[component].kinds}
        for i, report in enumerate(reports)
        if report.weights and component in report.weights
    }
    names = _merged(found)
    return strips(
        Words(
            f"kinds-{component}",
            f"{TITLES.get(component, component)}: error by kind of layer",
            "One row for all layers of a kind together, one dot a variant.",
        ),
        _values(found, names),
        _error("relative RMS error"),
        _table(reports, "Kind", names, found),
    )


def _merged(found: Found) -> list[str]:
    """All names, in the order of the variant that has most of them: others keep some whole."""
    ordered = sorted(found.values(), key=lambda errors: -len(errors))
    return list(dict.fromkeys(name for errors in ordered for name in errors))


def _values(found: Found, names: Sequence[str]) -> list[Value]:
    return [
        Value(i, name, place, errors[name])
        for i, errors in found.items()
        for place, name in enumerate(names, 1)
        if name in errors
    ]


def _table(reports: Sequence[Report], first: str, names: Sequence[str], found: Found) -> Data:
    text = _error("").text
    rows = tuple((name, *(text(errors.get(name)) for errors in found.values())) for name in names)
    return Data((first, *(reports[i].variant for i in found)), rows)
