"""`fluxconv validate`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fluxconv.commands.options import (
    base_option,
    choose_device,
    device_option,
    drawing_options,
    offload_option,
    variants_argument,
)
from fluxconv.commands.output import Output, output_options, size
from fluxconv.converters.errors import BadInput, CheckFailed, UsageError
from fluxconv.converters.modes import MODES, PLAIN, find_mode, get_mode
from fluxconv.validators.metrics import METRICS

if TYPE_CHECKING:
    from fluxconv.converters import Checkpoint, Variant
    from fluxconv.converters.modes import Offload
    from fluxconv.converters.progress import Progress
    from fluxconv.validators import Report


@click.command("validate")
@variants_argument
@click.option(
    "--reference", metavar="CHECKPOINT", help="What they were made from [as the manifest says]."
)
@base_option
@click.option(
    "--preset",
    type=click.Choice(["quick", "standard", "full"]),
    default="standard",
    show_default=True,
    help="How much is drawn, where neither the checkpoint nor an option says.",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Text file with one prompt a line."
)
@click.option("--limit", type=int, help="Draw only the first so many prompts.")
@click.option("--seed", "seeds", type=int, multiple=True, help="Seed; give it once for each.")
@drawing_options
@offload_option
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice(list(MODES)),
    help="Measure memory and time in this mode; give it once for each [plain].",
)
@click.option("--no-performance", is_flag=True, help="Do not measure memory and time.")
@click.option(
    "--thresholds", type=click.Path(path_type=Path), help="YAML file to judge by instead of ours."
)
@click.option("--keep-going", is_flag=True, help="Measure every layer even if one fails.")
@click.option("--force", is_flag=True, help="Accept a reference that is not the variants' source.")
@click.option("--fresh", is_flag=True, help="Measure anew what was measured before.")
@click.option(
    "--reference-cache",
    "cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the source's drawings [fluxconv/references in the user's cache].",
)
@click.option(
    "--comparison",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the comparison of all variants [comparison-NAME beside them].",
)
@click.option("--show", is_flag=True, help="Measure nothing; show the reports that are there.")
@device_option
@output_options
def command(
    out: Output,
    variants: tuple[str, ...],
    reference: str | None,
    base: str | None,
    preset: str,
    prompts: Path | None,
    limit: int | None,
    offload: Offload | None,
    modes: tuple[str, ...],
    no_performance: bool,
    comparison: Path | None,
    show: bool,
    device: str,
    seeds: tuple[int, ...],
    **others: Any,
) -> None:
    """Prove that variants draw what their source draws; write report.json and report.html.

    Layers from cheap to dear: structure, weights, text encoder, steps, pictures, performance. A
    variant that fails one is not taken to the next.
    """
    from fluxconv.cards import refresh_card
    from fluxconv.converters import open_variant
    from fluxconv.validators import Options, load_settings, validate, write_comparison
    from fluxconv.validators.comparison import comparable_beside

    opened = [open_variant(path) for path in variants]
    if show:
        _show(out, _reports_there(opened), comparison)
        return
    kept = ("thresholds", "keep_going", "force", "fresh", "cache")
    options = Options(
        device=choose_device(device),
        mode=find_mode(offload, compiles=False).name,
        modes=() if no_performance else modes or (PLAIN,),
        preset=preset,
        **{name: others.pop(name) for name in kept},
    )
    if why := get_mode(options.mode).cannot_run(options.device):
        raise UsageError(f"--offload: {why}")
    with out.progress() as progress:
        source = _reference(opened, reference, base, progress)
        settings = load_settings(
            source.root, {**others, "seeds": seeds or None}, prompts, preset=preset, limit=limit
        )
        reports = validate(opened, source, settings=settings, options=options, progress=progress)
        folder = comparison or _beside(opened)
        siblings = [] if comparison else comparable_beside(opened, reports[0])
        every = [*zip(opened, reports, strict=True), *siblings]
        write_comparison(
            [report for _, report in every], [each.root for each, _ in every], folder, progress
        )
    for variant in opened:
        # A card must not go on saying what an older report said.
        if refresh_card(variant, siblings=opened):
            out.note(f"{variant.name}: its card now says what this report says")
    _show(out, reports, folder)


def _show(out: Output, reports: tuple[Report, ...], folder: Path | None) -> None:
    page = str(folder / "report.html") if folder else None
    data = {"reports": [report.model_dump(mode="json") for report in reports], "page": page}
    failed = [report for report in reports if not report.verdict.passed]
    error = _failure(failed, len(reports)) if failed else None
    out.result(data, lambda: _table(out, reports), error)
    if page:
        out.note(f"side by side: {page}")
    out.note(f"{len(reports) - len(failed)} of {len(reports)} passed")
    if error is not None:
        raise error


def _failure(failed: list[Report], of: int) -> CheckFailed:
    why = "; ".join(c.text for c in failed[0].verdict.checks if not c.passed)
    names = ", ".join(report.variant for report in failed)
    return CheckFailed(f"{len(failed)} of {of} failed ({names}): {why}")


def _reports_there(opened: list[Variant]) -> tuple[Report, ...]:
    from fluxconv.validators import read_report

    found = []
    for variant in opened:
        report = read_report(variant)
        if report is None:
            raise CheckFailed(
                f"{variant.name}: has no report; run `fluxconv validate` without --show"
            )
        found.append(report)
    return tuple(found)


def _beside(opened: list[Variant]) -> Path:
    """Not named after the checkpoint first: what is, is taken for a variant of it."""
    parent = Path(os.path.commonpath([variant.root.parent for variant in opened]))
    return parent / f"comparison-{opened[0].manifest.checkpoint}"


def _reference(
    opened: list[Variant], given: str | None, base: str | None, progress: Progress
) -> Checkpoint:
    from fluxconv.hub.sources import open_recorded, open_source

    if given is not None:
        return open_source(given, base=base, allow_requantize=True, progress=progress)
    source = opened[0].manifest.source
    if source.revision is None:
        raise BadInput(
            f"{opened[0].root}: was made from a folder called '{source.id}'; say where it is with "
            "--reference"
        )
    return open_recorded(source, base, progress)


_SCORES = ("psnr", "ssim", "flip")
#: In the words and units of the page.
_COLUMNS: tuple[tuple[str, Callable[[Report], str]], ...] = (
    ("variant", lambda r: r.variant),
    ("verdict", lambda r: "passed" if r.verdict.passed else "FAILED"),
    (">size", lambda r: size(r.size)),
    (">bits", lambda r: f"{r.bits_per_weight:.2f}"),
    (">weights", lambda r: _percent(max(_errors(r))) if r.weights else ""),
    (">text", lambda r: _percent(r.text_encoder.relative_rms) if r.text_encoder else ""),
    (">steps", lambda r: _percent(r.steps.relative_rms) if r.steps else ""),
    *((f">{name.upper()}", partial(lambda name, r: _mean(r, name), name)) for name in _SCORES),
    (">s/picture", lambda r: f"{r.performance[0].seconds:.2f}" if _timed(r) else ""),
    ("ran", lambda r: "decoded" if r.is_decoded else "native" if r.execution else ""),
)


def _table(out: Output, reports: tuple[Report, ...]) -> None:
    """Errors are relative; the worse component's of the weights. The last row is the source
    against itself."""
    rows = [[value(report) for _, value in _COLUMNS] for report in reports]
    floor = next((r.noise_floor for r in reports if r.noise_floor), None)
    if floor and floor.other:
        steps = "" if floor.steps_rms is None else _percent(floor.steps_rms)
        scores = [METRICS[name].format(floor.other[name].mean) for name in _SCORES]
        rows.append(["source in float32", "", "", "", "", "", steps, *scores, "", ""])
    out.table("", tuple(title for title, _ in _COLUMNS), rows)


def _errors(report: Report) -> list[float]:
    return [found.relative_rms for found in (report.weights or {}).values()]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _timed(report: Report) -> bool:
    return bool(report.performance) and report.performance[0].seconds is not None


def _mean(report: Report, name: str) -> str:
    if report.pictures is None:
        return ""
    return METRICS[name].format(report.pictures.summary[name].mean)
