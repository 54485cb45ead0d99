"""`fluxconv dequantize`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.options import base_option
from fluxconv.commands.output import Output, output_options


@click.command("dequantize")
@click.argument("variant", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write."
)
@base_option
@output_options
def command(out: Output, variant: Path, output: Path, base: str | None) -> None:
    """Decode VARIANT, or a single GGUF or float8 file, back to a plain bf16 checkpoint."""
    from fluxconv.converters import open_variant
    from fluxconv.converters.dequantization import dequantize, dequantize_file
    from fluxconv.converters.errors import UsageError
    from fluxconv.converters.staging import check_free
    from fluxconv.hub.sources import open_source

    check_free(output)
    if variant.is_file():
        with out.progress() as progress:
            file = open_source(str(variant), base=base, allow_requantize=True, progress=progress)
            made = dequantize_file(file, output, progress=progress)
    elif base is not None:
        raise UsageError("--base: only a single file has one")
    else:
        opened = open_variant(variant)
        with out.progress() as progress:
            opened.check_hashes(progress)
            made = dequantize(opened, output, progress=progress)
    out.result({"path": str(made)}, lambda: out.line(str(made)))
