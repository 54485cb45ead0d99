"""`fluxconv generate`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from fluxconv.commands.options import base_option, choose_device, device_option, revision_option
from fluxconv.commands.output import Output, output_options
from fluxconv.converters.errors import BadInput, OutputExists, UsageError


@click.command("generate")
@click.argument("variant", metavar="VARIANT|CHECKPOINT")
@click.option("--prompt", required=True, help="What to draw.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("picture.png"),
    show_default=True,
    help="PNG file to write.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the noise.")
@click.option("--steps", type=int, help="Denoising steps.")
@click.option("--height", type=int, help="Pixels.")
@click.option("--width", type=int, help="Pixels.")
@click.option("--guidance", type=float, help="Guidance scale.")
@click.option("--max-sequence-length", type=int, help="Tokens that T5 reads.")
@click.option("--overwrite", is_flag=True, help="Replace the picture if it is there.")
@revision_option
@base_option
@device_option
@output_options
def command(
    out: Output,
    variant: str,
    prompt: str,
    output: Path,
    seed: int,
    overwrite: bool,
    revision: str | None,
    base: str | None,
    device: str,
    **settings: int | float | None,
) -> None:
    """Draw one picture with a variant, or with a source checkpoint."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("--prompt: is not UTF-8 text") from error
    from fluxconv.converters.checkpoint import Opening
    from fluxconv.converters.manifest import MANIFEST_NAME
    from fluxconv.hub.sources import open_source
    from fluxconv.validators import load_settings
    from fluxconv.validators.drawing import SOURCE, VARIANT, draw

    _check_output(output, overwrite)
    place, opening, role = Path(variant), Opening(variant), VARIANT
    with tempfile.TemporaryDirectory(prefix="fluxconv-") as folder, out.progress() as progress:
        if not (place / MANIFEST_NAME).is_file():
            source = open_source(variant, revision=revision, base=base, progress=progress)
            place, opening, role = source.root, source.opening, SOURCE
        chosen = load_settings(place, {**settings, "seeds": (seed,), "prompts": (prompt,)})
        drawing = draw(opening, role, choose_device(device), chosen, Path(folder), progress)
        output.write_bytes((Path(folder) / drawing.pictures[0].file).read_bytes())
    execution = {name: how.model_dump() for name, how in drawing.execution.items()}
    for name, how in drawing.execution.items():
        if how.why:
            out.note(f"{name} was decoded to bf16 first: {how.why}")
    out.result(
        {"picture": str(output), "seconds": drawing.seconds, "execution": execution},
        lambda: out.line(str(output)),
    )


def _check_output(output: Path, overwrite: bool) -> None:
    """Before minutes of drawing, not after."""
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: the picture is a PNG; let its name end in .png")
    if output.exists() and not overwrite:
        raise OutputExists(f"{output}: exists; choose another file with -o, or give --overwrite")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise BadInput(f"{output.parent}: cannot be written: {error.strerror}") from error
