"""`fluxconv generate`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from fluxconv.commands.options import (
    base_option,
    choose_device,
    device_option,
    drawing_options,
    offload_option,
    revision_option,
)
from fluxconv.commands.output import Output, output_options
from fluxconv.converters.errors import BadInput, OutputExists, UsageError
from fluxconv.converters.modes import Offload, find_mode


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
@drawing_options
@offload_option
@click.option("--compile", "compiles", is_flag=True, help="Compile the transformer first.")
@click.option("--no-metadata", is_flag=True, help="Do not write into the PNG how it was drawn.")
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
    offload: Offload | None,
    compiles: bool,
    no_metadata: bool,
    overwrite: bool,
    revision: str | None,
    base: str | None,
    device: str,
    **settings: int | float | None,
) -> None:
    """Draw one picture with a variant, or with a source checkpoint.

    The PNG says how it was drawn, in a text chunk called `fluxconv`.
    """
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("--prompt: is not UTF-8 text") from error
    from fluxconv.converters import Checkpoint, Variant, open_variant
    from fluxconv.converters.manifest import MANIFEST_NAME
    from fluxconv.hub.sources import open_source
    from fluxconv.validators import load_settings
    from fluxconv.validators.generation import generate

    _check_output(output, overwrite)
    chosen, mode = choose_device(device), find_mode(offload, compiles=compiles)
    model: Checkpoint | Variant
    with out.progress() as progress:
        if (Path(variant) / MANIFEST_NAME).is_file() and revision is None and base is None:
            model = open_variant(variant)
        else:
            model = open_source(variant, revision=revision, base=base, progress=progress)
        found = generate(
            model,
            load_settings(model.root, {**settings, "seeds": (seed,), "prompts": (prompt,)}),
            output,
            device=chosen,
            mode=mode.name,
            with_recipe=not no_metadata,
            progress=progress,
        )
    for name, how in found.recipe.execution.items():
        if how.why:
            out.note(f"{name} was decoded to bf16 first: {how.why}")
    data = {"picture": str(output), "seconds": found.seconds}
    out.result(
        data | found.recipe.model_dump(mode="json"),
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
