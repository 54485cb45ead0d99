"""`fluxconv dequantize`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.output import Output, output_options


@click.command("dequantize")
@click.argument("variant", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write."
)
@output_options
def command(out: Output, variant: Path, output: Path) -> None:
    """Decode VARIANT back to a plain bf16 checkpoint."""
    from fluxconv.converters import dequantize, open_variant
    from fluxconv.converters.staging import check_free

    opened = open_variant(variant)
    check_free(output)
    with out.progress() as progress:
        opened.check_hashes(progress)
        made = dequantize(opened, output, progress=progress)
    out.result({"path": str(made)}, lambda: out.line(str(made)))
