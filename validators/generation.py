"""Drawing one picture for its own sake, into a PNG that says how it was drawn."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.checkpoint import Checkpoint, Opening
from fluxconv.converters.errors import CheckFailed, MissingRequirement
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.modes import PLAIN, get_mode
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant, hash_file
from fluxconv.validators.drawing import SOURCE, VARIANT, draw_picture, opened, pictures_of
from fluxconv.validators.report import Settings
from fluxconv.validators.results import ComponentExecution, Strict
from fluxconv.validators.torch_errors import torch_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The PNG's text chunk: a `Recipe` as JSON.
CHUNK = "fluxconv"
_VERSIONED = ("fluxconv", "torch", "diffusers", "transformers")


class Recipe(Strict):
    """All that decides what a picture looks like.

    `model` is a variant's name or what the Hub would be asked for; `manifest_sha256` tells one
    variant of a name from another, `revision` one commit of a source.
    """

    prompt: str
    seed: int
    height: int
    width: int
    steps: int
    guidance: float
    max_sequence_length: int
    model: str
    revision: str | None = None
    manifest_sha256: str | None = None
    device: str
    mode: str
    execution: dict[str, ComponentExecution]
    versions: dict[str, str]


class Generated(Strict):
    """A picture that was drawn; `seconds` is the time to draw it, loading not counted."""

    recipe: Recipe
    seconds: float


def generate(
    model: Checkpoint | Variant,
    settings: Settings,
    output: Path,
    *,
    device: str = "cpu",
    mode: str = PLAIN,
    with_recipe: bool = True,
    progress: Progress | None = None,
) -> Generated:
    """Draw the first prompt and seed of `settings` into the PNG `output`, which appears whole.

    Raises `MissingRequirement` for a mode that does not work here, `NotEnoughMemory` before
    anything is loaded, what loading raises, and `CheckFailed` if the model computes NaN.
    """
    progress = progress or Silent()
    chosen = get_mode(mode)
    why = chosen.cannot_run(device)
    if why is not None:
        raise MissingRequirement(f"{model.name}: cannot be drawn in mode {mode}: {why}")
    progress.start(f"Drawing {model.name}", settings.steps, "steps")
    if isinstance(model, Variant):
        opening, role = Opening(str(model.root)), VARIANT
    else:
        opening, role = model.opening, SOURCE
    picture = pictures_of(settings)[0]
    with torch_errors(model.name, chosen):
        pipeline, execution = opened(opening, role, device, mode, settings)
        start = time.perf_counter()
        pixels = draw_picture(pipeline, picture, settings, lambda: progress.advance(1))
        seconds = time.perf_counter() - start
    progress.finish()
    drawn = settings.model_dump(include=set(Recipe.model_fields))
    recipe = Recipe(
        **drawn,
        prompt=picture.prompt,
        seed=picture.seed,
        model=model.name if isinstance(model, Variant) else model.source,
        revision=None if isinstance(model, Variant) else model.revision,
        manifest_sha256=_manifest_hash(model),
        device=device,
        mode=mode,
        execution=execution,
        versions=_versions(),
    )
    _write(output, pixels, model.name, recipe if with_recipe else None)
    return Generated(recipe=recipe, seconds=round(seconds, 3))


def read_recipe(picture: Path) -> Recipe | None:
    """The recipe in a PNG, None if it has none."""
    from PIL import Image

    with Image.open(picture) as image:
        image.load()  # chunks may come after the pixels
        text = getattr(image, "text", {}).get(CHUNK)
    return None if text is None else Recipe.model_validate_json(text)


def _manifest_hash(model: Checkpoint | Variant) -> str | None:
    return hash_file(model.root / MANIFEST_NAME).sha256 if isinstance(model, Variant) else None


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in _VERSIONED}
    return {"python": platform.python_version(), **found}


def _write(output: Path, pixels: NDArray[np.float32], name: str, recipe: Recipe | None) -> None:
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if not np.isfinite(pixels).all():
        raise CheckFailed(f"{name}: computes NaN or infinity, so there is no picture")
    info = PngInfo()
    if recipe:
        text = json.dumps(recipe.model_dump(mode="json"), ensure_ascii=False)
        info.add_itxt(CHUNK, text)
    levels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        Image.fromarray(levels).save(partial, format="PNG", pnginfo=info)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
