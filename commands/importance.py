"""`fluxconv importance`."""

from __future__ import annotations

from pathlib import Path

import click

from fluxconv.commands.options import (
    base_option,
    checkpoint_argument,
    choose_device,
    device_option,
    requantize_option,
    revision_option,
)
from fluxconv.commands.output import Output, output_options
from fluxconv.converters.errors import UsageError

#: Flux draws patches of two latents, of eight pixels each.
_PATCH = 16


@click.command("importance")
@checkpoint_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("importance.safetensors"),
    show_default=True,
    help="File to write.",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="Text file with one prompt a line [the checkpoint's own, else a set of ours].",
)
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first N prompts.")
@click.option("--steps", type=int, help="Denoising steps.")
@click.option("--seed", type=click.IntRange(0, 2**62), help="Seed of the first prompt's noise.")
@click.option("--size", type=click.IntRange(_PATCH), help="Height and width in pixels.")
@click.option("--overwrite", is_flag=True, help="Replace the importance file if it is there.")
@revision_option
@base_option
@requantize_option
@device_option
@output_options
def command(
    out: Output,
    checkpoint: str,
    output: Path,
    prompts: Path | None,
    limit: int | None,
    steps: int | None,
    seed: int | None,
    size: int | None,
    overwrite: bool,
    revision: str | None,
    base: str | None,
    allow_requantize: bool,
    device: str,
) -> None:
    """Measure which input channels of each layer matter, by drawing with CHECKPOINT.

    `fluxconv quantize --importance FILE` then spends its bits where they count.
    """
    from fluxconv.converters.importance import importance_digest
    from fluxconv.converters.importance.own_file import check_free
    from fluxconv.converters.load import require_pipeline
    from fluxconv.hub.sources import open_source
    from fluxconv.validators.calibration import calibration_settings
    from fluxconv.validators.importance import measure_importance

    if size is not None and size % _PATCH:
        raise UsageError(f"--size {size}: must be a multiple of {_PATCH}")
    check_free(output, overwrite=overwrite)  # before torch, and any download
    overrides = {
        "steps": steps,
        "height": size,
        "width": size,
        "seeds": None if seed is None else (seed,),
    }
    with out.progress() as progress:
        source = open_source(
            checkpoint,
            revision=revision,
            base=base,
            allow_requantize=allow_requantize,
            progress=progress,
        )
        require_pipeline(source)
        settings = calibration_settings(source.root, overrides, prompts, limit)
        found = measure_importance(
            source,
            output,
            settings=settings,
            device=choose_device(device),
            overwrite=overwrite,
            progress=progress,
        )
    data = {
        "importance": str(output),
        "sha256": importance_digest(output),
        "layers": len(found),
        "prompts": len(settings.prompts),
        "steps": settings.steps,
        "seed": settings.seeds[0],
    }
    count = len(settings.prompts)
    out.note(f"{len(found)} layers, measured on {count} prompt{'' if count == 1 else 's'}")
    out.result(data, lambda: out.line(str(output)))
