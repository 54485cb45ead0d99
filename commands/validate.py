"""`fluxconv validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxconv.commands.options import (
    base_option,
    choose_device,
    device_option,
    variants_argument,
)
from fluxconv.commands.output import Output, output_options, size
from fluxconv.converters.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    from fluxconv.converters import Checkpoint, Variant
    from fluxconv.converters.progress import Progress
    from fluxconv.validators import Report


@click.command("validate")
@variants_argument
@click.option(
    "--reference", metavar="CHECKPOINT", help="What they were made from [as the manifest says]."
)
@base_option
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Text file with one prompt a line."
)
@click.option("--seed", "seeds", type=int, multiple=True, help="Seed; give it once for each.")
@click.option("--steps", type=int, help="Denoising steps.")
@click.option("--height", type=int, help="Pixels.")
@click.option("--width", type=int, help="Pixels.")
@click.option("--guidance", type=float, help="Guidance scale.")
@click.option("--max-sequence-length", type=int, help="Tokens that T5 reads.")
@click.option(
    "--thresholds", type=click.Path(path_type=Path), help="YAML file to judge by instead of ours."
)
@click.option("--keep-going", is_flag=True, help="Measure every layer even if one fails.")
@click.option("--force", is_flag=True, help="Accept a reference that is not the variants' source.")
@click.option("--show", is_flag=True, help="Measure nothing; show the reports that are there.")
@device_option
@output_options
def command(
    out: Output,
    variants: tuple[str, ...],
    reference: str | None,
    base: str | None,
    prompts: Path | None,
    thresholds: Path | None,
    keep_going: bool,
    force: bool,
    show: bool,
    device: str,
    seeds: tuple[int, ...],
    **settings: int | float | None,
) -> None:
    """Compare variants with their source: structure, weights, pictures; write report.json."""
    from fluxconv.cards import refresh_card
    from fluxconv.converters import open_variant
    from fluxconv.validators import load_settings, read_report, validate

    opened = [open_variant(path) for path in variants]
    if show:
        found = [read_report(variant) for variant in opened]
        missing = [v.name for v, report in zip(opened, found, strict=True) if report is None]
        if missing:
            raise CheckFailed(
                f"{missing[0]}: has no report; run `fluxconv validate` without --show"
            )
        reports = tuple(report for report in found if report is not None)
    else:
        overrides = {**settings, "seeds": seeds or None}
        with out.progress() as progress:
            source = _reference(opened, reference, base, progress)
            reports = validate(
                opened,
                source,
                settings=load_settings(source.root, overrides, prompts),
                device=choose_device(device),
                keep_going=keep_going,
                force=force,
                thresholds=thresholds,
                progress=progress,
            )
        for variant in opened:
            # A card must not go on saying what an older report said.
            if refresh_card(variant, siblings=opened):
                out.note(f"{variant.name}: its card now says what this report says")
    data = {"reports": [report.model_dump(mode="json") for report in reports]}
    out.result(data, lambda: _table(out, opened, reports))
    failed = [report for report in reports if not report.verdict.passed]
    if failed:
        why = "; ".join(c.text for c in failed[0].verdict.checks if not c.passed)
        names = ", ".join(report.variant for report in failed)
        raise CheckFailed(f"{len(failed)} of {len(reports)} failed ({names}): {why}")


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


def _table(out: Output, opened: list[Variant], reports: tuple[Report, ...]) -> None:
    out.table(
        "",
        (
            "variant",
            ">size",
            ">bits/weight",
            ">weight error",
            ">PSNR",
            ">SSIM",
            "execution",
            "verdict",
        ),
        [
            (
                report.variant,
                size(sum(record.size for record in variant.manifest.files.values())),
                f"{variant.manifest.bits_per_weight:.2f}",
                f"{max(w.relative_rms for w in report.weights.values()):.4f}"
                if report.weights
                else "",
                _psnr(report),
                f"{report.pictures.ssim_mean:.4f}" if report.pictures else "",
                ", ".join(f"{how.mode} {name}" for name, how in (report.execution or {}).items()),
                "passed" if report.verdict.passed else "FAILED",
            )
            for variant, report in zip(opened, reports, strict=True)
        ],
    )


def _psnr(report: Report) -> str:
    if report.pictures is None:
        return ""
    mean = report.pictures.psnr_mean
    return "equal" if mean is None else f"{mean:.2f} dB"
