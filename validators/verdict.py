"""Measurements held against limits: each check is one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fluxconv.validators.metrics import METRICS
from fluxconv.validators.results import (
    Check,
    PicturesResult,
    StepsResult,
    StructureResult,
    TextResult,
    Verdict,
    WeightsResult,
)
from fluxconv.validators.thresholds import Limit

Limits = Mapping[str, Limit]
_SHOWN = 3  # problems that a check quotes; the report has them all


@dataclass(frozen=True)
class _Measure:
    """One number of a layer's result, and the limit that it is held against."""

    limit: str
    title: str
    value: Callable[[Any], float]
    at_least: bool = False


_TEXT = (
    _Measure("text_rms", "text encoder: relative error of T5's states", lambda r: r.relative_rms),
    _Measure(
        "text_cosine_min",
        "text encoder: cosine of the worst token",
        lambda r: r.cosine_min,
        at_least=True,
    ),
)
_STEPS = (
    _Measure("steps_rms", "steps: relative error of the velocity", lambda r: r.relative_rms),
    _Measure(
        "steps_rms_max",
        "steps: relative error of the velocity at the worst step",
        lambda r: r.relative_rms_max,
    ),
)
_PICTURES = ("psnr", "ssim", "flip")


def verdict(checks: list[Check]) -> Verdict:
    """Passed if every check passed; a run that stopped early has one that did not."""
    return Verdict(passed=all(check.passed for check in checks), checks=tuple(checks))


def structure_checks(result: StructureResult) -> list[Check]:
    """Whether the files are those of the manifest and the plan."""
    good = f"all {result.files} files and {result.tensors} tensors are as planned"
    return [_no_problems("structure", result.problems, good)]


def weights_checks(
    results: Mapping[str, WeightsResult], limits: Limits, *, weighted: bool = False
) -> list[Check]:
    """Kept tensors are equal, no quantized one is an outlier, and their errors stay below the
    limits; where errors were `weighted` by importance, a stretch may be worse than these allow."""
    checks = []
    for name, result in results.items():
        good = (
            f"{name}: all {result.kept} tensors kept in high precision equal their source, and "
            f"{len(result.tensors)} quantized ones err as their types do"
        )
        checks.append(_no_problems(f"{name} tensors", result.problems, good))
        if not result.tensors:
            continue
        limit = limits["weights_rms"].limit
        checks.append(_error(name, "weights", "all quantized weights", result.relative_rms, limit))
        worst = result.worst[0]
        what = f"the worst tensor, {worst.name},"
        limit = limits["weights_tensor_rms"].limit
        checks.append(_error(name, "worst tensor", what, worst.relative_rms, limit))
        if (stretch := result.worst_stretch) and not weighted:
            place = f"{stretch.name} at row {stretch.row}, column {stretch.column}"
            what = f"the worst 256 neighbouring weights, in {place},"
            limit = limits["weights_stretch_rms"].limit
            checks.append(_error(name, "worst stretch", what, stretch.relative_rms, limit))
    return checks


def text_checks(result: TextResult, limits: Limits) -> list[Check]:
    """T5 says nearly what the source's says."""
    return [_held(measure, result, limits) for measure in _TEXT]


def steps_checks(result: StepsResult, limits: Limits) -> list[Check]:
    """The transformer goes nearly where the source's goes, from every step."""
    return [_held(measure, result, limits) for measure in _STEPS]


def pictures_checks(result: PicturesResult, limits: Limits) -> list[Check]:
    """The pictures show something, and the same as the source's."""
    good = f"all {len(result.pictures)} pictures show something"
    checks = [_no_problems("pictures", result.problems, good)]
    for name in _PICTURES:
        metric, summary = METRICS[name], result.summary[name]
        for which, value in (("mean", summary.mean), ("worst", summary.worst)):
            limit = limits[f"{name}_{which}"].limit
            title = f"pictures: {metric.title} {which}"
            if value is None:
                text = f"{title} is infinite: all pictures equal the source's"
                checks.append(Check(name=title, value=None, limit=limit, passed=True, text=text))
            else:
                unit = f" {metric.unit}" if metric.unit else ""
                checks.append(_compared(title, value, limit, metric.higher_is_better, unit))
    return checks


def failed_layer(name: str, reason: str) -> Check:
    """A layer that could not be finished fails the variant."""
    return Check(name=name, value=None, limit=0, passed=False, text=f"{name}: {reason}")


def _held(measure: _Measure, result: Any, limits: Limits) -> Check:
    limit = limits[measure.limit].limit
    return _compared(measure.title, measure.value(result), limit, measure.at_least)


def _compared(title: str, value: float, limit: float, at_least: bool, unit: str = "") -> Check:
    passed = value >= limit if at_least else value <= limit
    relation = {
        (True, True): "is at least",
        (True, False): "is less than",
        (False, True): "is at most",
        (False, False): "is more than",
    }[at_least, passed]
    text = f"{title} {value:.4g}{unit} {relation} {limit:g}{unit}"
    return Check(name=title, value=value, limit=limit, passed=passed, text=text)


def _no_problems(name: str, problems: tuple[str, ...], good: str) -> Check:
    count = len(problems)
    text = good
    if problems:
        more = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
        text = f"{name}: " + "; ".join(problems[:_SHOWN]) + more
    return Check(name=name, value=count, limit=0, passed=not problems, text=text)


def _error(component: str, name: str, what: str, value: float, limit: float) -> Check:
    passed = value <= limit
    relation = "is at most" if passed else "is more than"
    text = f"{component}: relative RMS error {value:.3g} of {what} {relation} {limit:g}"
    return Check(name=f"{component} {name} RMS", value=value, limit=limit, passed=passed, text=text)
