"""Measurements held against limits: each check is one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from fluxconv.validators.report import (
    Check,
    PicturesResult,
    StructureResult,
    Verdict,
    WeightsResult,
)
from fluxconv.validators.thresholds import Limits

_SHOWN = 3  # problems that a check quotes; the report has them all


def verdict(checks: list[Check]) -> Verdict:
    """Passed if every check passed; a run that stopped early has one that did not."""
    return Verdict(passed=all(check.passed for check in checks), checks=tuple(checks))


def structure_checks(result: StructureResult) -> list[Check]:
    """Whether the files are those of the manifest and the plan."""
    good = f"all {result.files} files and {result.tensors} tensors are as planned"
    return [_no_problems("structure", result.problems, good)]


def weights_checks(results: Mapping[str, WeightsResult], limits: Limits) -> list[Check]:
    """Kept tensors are equal; errors of quantized ones stay below the limits."""
    checks = []
    for name, result in results.items():
        good = f"{name}: all {result.kept} tensors kept in high precision equal their source"
        checks.append(_no_problems(f"{name} kept tensors", result.problems, good))
        if not result.worst:
            continue
        limit = limits.weights_rms.limit
        checks.append(_error(name, "weights", "all quantized weights", result.relative_rms, limit))
        worst = result.worst[0]
        what = f"the worst tensor, {worst.name},"
        limit = limits.weights_tensor_rms.limit
        checks.append(_error(name, "worst tensor", what, worst.relative_rms, limit))
        if stretch := result.worst_stretch:
            place = f"{stretch.name} at row {stretch.row}, column {stretch.column}"
            what = f"the worst 256 neighbouring weights, in {place},"
            limit = limits.weights_stretch_rms.limit
            checks.append(_error(name, "worst stretch", what, stretch.relative_rms, limit))
    return checks


def pictures_checks(result: PicturesResult, limits: Limits) -> list[Check]:
    """The pictures show something, and the same as the source's."""
    good = f"all {len(result.pictures)} pictures show something"
    return [
        _no_problems("pictures", result.problems, good),
        _psnr("PSNR mean", result.psnr_mean, limits.psnr_mean.limit),
        _psnr("PSNR min", result.psnr_min, limits.psnr_min.limit),
        _at_least("SSIM mean", result.ssim_mean, limits.ssim_mean.limit, ".3f"),
        _at_least("SSIM min", result.ssim_min, limits.ssim_min.limit, ".3f"),
    ]


def failed_layer(name: str, reason: str) -> Check:
    """A layer that could not be finished fails the variant."""
    return Check(name=name, value=None, limit=0, passed=False, text=f"{name}: {reason}")


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


def _at_least(name: str, value: float, limit: float, form: str, unit: str = "") -> Check:
    passed = value >= limit
    relation = "is at least" if passed else "is less than"
    text = f"{name} {value:{form}}{unit} {relation} {limit:g}{unit}"
    return Check(name=name, value=value, limit=limit, passed=passed, text=text)


def _psnr(name: str, value: float | None, limit: float) -> Check:
    if value is None:
        text = f"{name} is infinite: all pictures equal the source's"
        return Check(name=name, value=None, limit=limit, passed=True, text=text)
    return _at_least(name, value, limit, ".1f", " dB")
