"""`fluxconv quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from fluxconv.commands.options import (
    backend_options,
    base_option,
    checkpoint_argument,
    choose_device,
    chosen_backends,
    component_option,
    device_option,
    overwrite_option,
    requantize_option,
    revision_option,
)
from fluxconv.commands.output import Output, output_options, size


@click.command("quantize")
@checkpoint_argument
@backend_options
@component_option
@revision_option
@base_option
@requantize_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder of the variants [the current one].",
)
@click.option(
    "--source-id",
    metavar="OWNER/NAME",
    help="The Hub repository that a local CHECKPOINT is a copy of; cards then name it.",
)
@click.option(
    "--engine",
    type=click.Choice(["stream", "library"]),
    default="stream",
    show_default=True,
    help="library: the libraries' own from_pretrained and save_pretrained, all in memory.",
)
@device_option
@overwrite_option
@output_options
def command(
    out: Output,
    checkpoint: str,
    revision: str | None,
    base: str | None,
    allow_requantize: bool,
    backends: tuple[str, ...],
    settings: tuple[str, ...],
    skip: tuple[str, ...],
    tensor_types: tuple[str, ...],
    effort: str | None,
    importance: Path | None,
    components: tuple[str, ...],
    output: Path,
    source_id: str | None,
    engine: Literal["stream", "library"],
    device: str,
    overwrite: bool,
) -> None:
    """Write one variant of CHECKPOINT for each backend, in one pass over its weights."""
    from fluxconv.converters import quantize
    from fluxconv.hub.sources import open_source

    # Before any download.
    chosen = chosen_backends(backends, settings, skip, tensor_types, effort, importance)
    with out.progress() as progress:
        source = open_source(
            checkpoint,
            revision=revision,
            source_id=source_id,
            base=base,
            allow_requantize=allow_requantize,
            progress=progress,
        )
        variants = quantize(
            source,
            chosen,
            output,
            components=components,
            device=choose_device(device),
            overwrite=overwrite,
            engine=engine,
            progress=progress,
        )
    data = [
        {
            "name": variant.name,
            "path": str(variant.root),
            "backend": variant.manifest.backend,
            "bytes": sum(record.size for record in variant.manifest.files.values()),
            "bits_per_weight": variant.manifest.bits_per_weight,
        }
        for variant in variants
    ]

    def show() -> None:
        out.table(
            "",
            ("variant", ">size", ">bits/weight", "folder"),
            [
                (
                    variant.name,
                    size(sum(record.size for record in variant.manifest.files.values())),
                    f"{variant.manifest.bits_per_weight:.2f}",
                    str(output / variant.name),
                )
                for variant in variants
            ],
        )

    out.result({"source": source.source, "variants": data}, show)
