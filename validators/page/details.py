"""What the page says beside numbers and pictures: the verdict in words, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fluxconv.validators.comparison import Comparison
from fluxconv.validators.page import figures
from fluxconv.validators.page.table import Cell, number
from fluxconv.validators.report import Report
from fluxconv.validators.results import Check, Performance

PROMPTS_FILE = "prompts.txt"

_NAMED = 3  # variants that failed, in a headline


def plural(count: int, what: str) -> str:
    """`count` things, in words fit for a sentence."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def headline(comparison: Comparison) -> str:
    """The verdict of the whole in one sentence."""
    reports = comparison.reports
    names = [report.variant for report in reports if not report.verdict.passed]
    failed = len(names)
    if len(reports) == 1:
        return f"The variant {'failed' if failed else 'passed'}."
    if not failed:
        return f"All {len(reports)} variants passed."
    if failed == len(reports):
        return f"All {len(reports)} variants failed."
    which = ", ".join(names) if failed <= _NAMED else f"{failed} others"
    return f"{len(reports) - failed} of {len(reports)} variants passed, not {which}."


def standfirst(comparison: Comparison) -> str:
    """What was done, in one or two sentences."""
    settings = comparison.settings
    drawings = len(settings.prompts) * len(settings.seeds)
    text = (
        f"Source and variants drew {plural(drawings, 'picture')} each from the same prompts and "
        f"seeds, {settings.width} × {settings.height} pixels in {plural(settings.steps, 'step')}."
    )
    errors = sorted((r.steps.relative_rms, r.variant) for r in comparison.reports if r.steps)
    if errors:
        (least, nearest), (most, farthest) = errors[0], errors[-1]
        text += f" The error of a step is {figures.percent(least)} with {nearest}"
        text += f" and {figures.percent(most)} with {farthest}." if len(errors) > 1 else "."
    floor = comparison.noise_floor
    if floor and floor.steps_rms:
        text += (
            f" For scale: the source in {floor.dtype} differs from the source in bf16 by "
            f"{figures.percent(floor.steps_rms)}."
        )
    return text


@dataclass(frozen=True)
class Margin:
    """How far a check is from its limit: in words, and as a share of the limit."""

    check: Check
    text: str
    used: float | None


def margins(report: Report) -> list[Margin]:
    """Every check, failed ones first, with how much room there was or how much was lacking."""
    ordered = sorted(report.verdict.checks, key=lambda check: check.passed)
    return [_margin(check) for check in ordered]


def _margin(check: Check) -> Margin:
    if check.value is None or check.limit == 0:
        return Margin(check, "", None)
    # A check says nowhere which way it goes; the verdict and the two numbers do.
    at_most = (check.value <= check.limit) == check.passed
    used = check.value / check.limit
    if at_most:
        text = f"{100 * used:.0f} % of the limit" if used < 10 else f"{used:.0f} times the limit"
    else:
        by = check.value - check.limit
        text = f"{figures.number(abs(by))} {'above' if by >= 0 else 'below'} the limit"
    return Margin(check, text, used if at_most else None)


@dataclass(frozen=True)
class Timing:
    """One row of the performance table."""

    name: str
    mode: str
    device: str
    cells: tuple[Cell, ...]
    why: str


def timings(comparison: Comparison) -> list[Timing]:
    """Every mode of the source and of each variant."""
    rows = list(_timings("The source", comparison.source_performance))
    for report in comparison.reports:
        rows += _timings(report.variant, report.performance)
    return rows


def _timings(name: str, performance: Sequence[Performance]) -> Iterator[Timing]:
    for each in performance:
        cells = (
            number(each.load_seconds, figures.seconds),
            number(each.memory_loaded, figures.size),
            number(each.memory_peak, figures.size),
            number(each.seconds, figures.seconds),
            number(each.compile_seconds, figures.seconds),
        )
        yield Timing(name, each.mode, each.device, cells, each.why)


def versions(comparison: Comparison) -> dict[str, str]:
    """The libraries of all reports, each with every version that measured."""
    found: dict[str, set[str]] = {}
    for report in comparison.reports:
        for name, version in report.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(found[name])) for name in sorted(found)}


def prompts_file(comparison: Comparison) -> str:
    """The prompts as `--prompts` takes them: one a line."""
    return "\n".join(" ".join(prompt.split()) for prompt in comparison.settings.prompts) + "\n"


def commands(comparison: Comparison) -> list[str]:
    """What makes, draws and measures the same again, given the prompts file."""
    reference = (
        ["--revision", comparison.reference_revision] if comparison.reference_revision else []
    )
    backends = dict.fromkeys(report.backend for report in comparison.reports)
    named = [word for name in backends for word in ("--backend", name)]
    quantize = ["fluxconv", "quantize", comparison.reference, *reference, *named, "-o", "."]
    variants = [report.variant for report in comparison.reports]
    validate = ["fluxconv", "validate", *variants, "--reference", comparison.reference]
    return [shlex.join(quantize), shlex.join([*validate, *_options(comparison)])]


def _options(comparison: Comparison) -> list[str]:
    settings = comparison.settings
    preset, device = comparison.preset, comparison.device
    flags: dict[str, object] = {
        "--preset": preset,
        "--prompts": PROMPTS_FILE,
        "--width": settings.width,
        "--height": settings.height,
        "--steps": settings.steps,
        "--guidance": f"{settings.guidance:g}",
        "--max-sequence-length": settings.max_sequence_length,
        "--device": device,
    }
    words = [word for flag, value in flags.items() if value for word in (flag, str(value))]
    words += [word for seed in settings.seeds for word in ("--seed", str(seed))]
    modes = dict.fromkeys(each.mode for r in comparison.reports for each in r.performance)
    return words + ([w for mode in modes for w in ("--mode", mode)] or ["--no-performance"])
