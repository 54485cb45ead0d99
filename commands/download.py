"""`fluxconv download`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxconv.commands.options import endpoint_option, timeout_option
from fluxconv.commands.output import Output, output_options
from fluxconv.commands.recommend import amount

if TYPE_CHECKING:
    from fluxconv.validators.candidates import Device
    from fluxconv.validators.recommendation import Prefer

public_key_option = click.option(
    "--verify-signature",
    "public_key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PUBLIC_KEY",
    help="Insist on a signature made with the key whose public half this PEM file is.",
)


@click.command("download")
@click.argument("what", metavar="REPOSITORY|FILE|COLLECTION")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder of the variants [the current one].",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Of several, only this one: a backend (bnb-nf4) or GGUF type (Q4_K_S).",
)
@click.option(
    "--vram",
    metavar="SIZE",
    help="Only the best that fits this memory, such as 12GB, by the reports.",
)
@click.option("--device", type=click.Choice(["cuda", "cpu", "mps"]), help="With --vram [cuda].")
@click.option(
    "--prefer",
    type=click.Choice(["quality", "speed", "size"]),
    help="With --vram, what counts most among those that fit [quality].",
)
@public_key_option
@timeout_option
@endpoint_option
@output_options
def command(
    out: Output,
    what: str,
    output: Path,
    only: tuple[str, ...],
    vram: str | None,
    device: Device | None,
    prefer: Prefer | None,
    public_key: Path | None,
    timeout: float,
    endpoint: str | None,
) -> None:
    """Fetch variants, or one GGUF file (OWNER/NAME/FILE.gguf), and verify every hash.

    Given again after an interruption it goes on where it was; of a variant that is here already,
    what is missing or harmed is fetched again.
    """
    from fluxconv.converters.errors import UsageError

    if vram is None and (device or prefer):
        raise UsageError("--device, --prefer: say with --vram how much memory there is")
    memory = amount(vram) if vram is not None else None
    from fluxconv.hub import download
    from fluxconv.hub.choosing import Fit

    fit = Fit(memory, device or "cuda", prefer or "quality") if memory is not None else None
    with out.progress() as progress:
        places = download(
            what,
            output,
            only=only,
            fit=fit,
            public_key=public_key,
            endpoint=endpoint,
            timeout=timeout,
            progress=progress,
        )

    def show() -> None:
        for place in places:
            out.line(str(place))

    out.result({"variants": [str(place) for place in places]}, show)
