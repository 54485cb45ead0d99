"""Drawing every prompt with every seed, by the source or by a variant, in a process of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from fluxconv.converters.checkpoint import Opening, open_checkpoint
from fluxconv.converters.load import load_checkpoint, load_variant
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import open_variant
from fluxconv.validators.report import ComponentExecution, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE, VARIANT = "source", "variant"
_SMALL = 50_000_000  # parameters; one layer's product is then done in less than a millisecond


class DrawnPicture(BaseModel):
    """One PNG; `finite` is false if the model gave NaN or infinity, drawn black."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    seed: int
    file: str
    finite: bool


class Drawing(BaseModel):
    """All pictures of one model; `seconds` is the time to draw them, loading not counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pictures: tuple[DrawnPicture, ...]
    execution: dict[str, ComponentExecution]
    seconds: float


def picture_name(index: int, seed: int, role: str) -> str:
    """The PNG of prompt `index` (from 0) and `seed`, drawn by `role` (source or variant)."""
    return f"{index:02d}-{seed}-{role}.png"


def draw(
    opening: Opening, role: str, device: str, settings: Settings, folder: Path, progress: Progress
) -> Drawing:
    """Draw with the source or the variant that `opening` is of, into PNG files in `folder`.

    Raises what `load_checkpoint` and `load_variant` raise.
    """
    total = len(settings.prompts) * len(settings.seeds) * settings.steps
    progress.start(f"Drawing {Path(opening.path).name}", total, "steps")
    pipeline, execution = _load(opening, role, device)
    pipeline.set_progress_bar_config(disable=True)
    _spare_threads(pipeline)
    pictures = []
    seconds = 0.0
    for index, prompt in enumerate(settings.prompts):
        for seed in settings.seeds:
            start = time.perf_counter()
            pixels = _draw_one(pipeline, prompt, seed, settings, progress)
            seconds += time.perf_counter() - start
            file = picture_name(index, seed, role)
            finite = _save(pixels, folder / file)
            pictures.append(DrawnPicture(prompt=prompt, seed=seed, file=file, finite=finite))
    progress.finish()
    return Drawing(pictures=tuple(pictures), execution=execution, seconds=round(seconds, 3))


def _load(opening: Opening, role: str, device: str) -> tuple[Any, dict[str, ComponentExecution]]:
    if role == SOURCE:
        return load_checkpoint(open_checkpoint(**opening._asdict()), device), {}
    pipeline, found = load_variant(open_variant(opening.path), device)
    return pipeline, {
        name: ComponentExecution(mode=how.mode, why=how.why) for name, how in found.items()
    }


def _spare_threads(pipeline: Any) -> None:
    """On a busy machine a small model spends nearly all its time waiting for its own threads."""
    import torch

    if sum(weight.numel() for weight in pipeline.transformer.parameters()) < _SMALL:
        torch.set_num_threads(1)


def _draw_one(
    pipeline: Any, prompt: str, seed: int, settings: Settings, progress: Progress
) -> NDArray[np.float32]:
    import torch

    def step_done(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        progress.advance(1, prompt)
        return values

    drawn = pipeline(
        prompt,
        height=settings.height,
        width=settings.width,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        max_sequence_length=settings.max_sequence_length,
        # On the CPU whatever the device: the same seed is then the same noise everywhere.
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
        callback_on_step_end=step_done,
    )
    pixels: NDArray[np.float32] = drawn.images[0]
    return pixels


def _save(pixels: NDArray[np.float32], file: Path) -> bool:
    import numpy as np
    from PIL import Image

    finite = bool(np.isfinite(pixels).all())
    levels = np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 1) * 255
    Image.fromarray(levels.round().astype(np.uint8)).save(file)
    return finite
