"""`fluxconv download`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.options import endpoint_option
from fluxconv.commands.output import Output, output_options


@click.command("download")
@click.argument("what", metavar="COLLECTION|REPOSITORY")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder of the variants [the current one].",
)
@endpoint_option
@output_options
def command(out: Output, what: str, output: Path, endpoint: str | None) -> None:
    """Fetch a variant, or every variant of a collection, and verify every hash."""
    from fluxconv.hub import download

    with out.progress() as progress:
        folders = download(what, output, endpoint=endpoint, progress=progress)

    def show() -> None:
        for folder in folders:
            out.line(str(folder))

    out.result({"variants": [str(folder) for folder in folders]}, show)
