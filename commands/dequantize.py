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
@click.option(
    "--base",
    metavar="PIPELINE",
    help="The pipeline that a single file belongs to, a folder or OWNER/NAME[@REVISION]; the rest "
    "is taken from it.",
)
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
        raise UsageError(f"--base: {variant} is a folder, and only a single file takes one")
    else:
        opened = open_variant(variant)
        with out.progress() as progress:
            opened.check_hashes(progress)
            made = dequantize(opened, output, progress=progress)
    out.result({"path": str(made)}, lambda: out.line(str(made)))
