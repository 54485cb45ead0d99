"""Drawing prompts with a source or a variant, each picture kept as soon as it is there.

A picture is a PNG, and beside it a JSON record, written last: whoever comes after a kill draws
only what has no record. A source's drawing can be recorded: what its transformer and T5 were given
and answered, for the layers that give a variant the very same.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from fluxconv.converters.checkpoint import Opening, open_checkpoint
from fluxconv.converters.load import Execution, load_checkpoint, load_variant
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import open_variant
from fluxconv.validators.memory import require_memory
from fluxconv.validators.recording import Recording
from fluxconv.validators.report import Settings
from fluxconv.validators.results import ComponentExecution, Strict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE, VARIANT = "source", "variant"
_SMALL = 50_000_000  # parameters; one layer's product is then done in less than a millisecond


class Wanted(NamedTuple):
    """One picture: what to draw, and from which noise."""

    prompt: str
    seed: int

    @property
    def stem(self) -> str:
        """The name of its files, the same whatever else is drawn."""
        return hashlib.sha256(f"{self.seed}\n{self.prompt}".encode()).hexdigest()[:16]


class Drawn(Strict):
    """One PNG; `finite` is false if the model gave NaN or infinity, drawn black. `seconds` is the
    time to draw it, loading not counted."""

    prompt: str
    seed: int
    file: str
    finite: bool
    seconds: float


def pictures_of(settings: Settings) -> tuple[Wanted, ...]:
    """Every prompt with every seed: the prompts in order, each with all its seeds."""
    return tuple(Wanted(prompt, seed) for prompt in settings.prompts for seed in settings.seeds)


def trajectories_of(settings: Settings) -> tuple[Wanted, ...]:
    """The drawings whose steps are compared: as many prompts as there are, before a second seed."""
    every = (Wanted(prompt, seed) for seed in settings.seeds for prompt in settings.prompts)
    return tuple(every)[: settings.trajectories]


@lru_cache(maxsize=1)
def opened(
    opening: Opening, role: str, device: str, mode: str, settings: Settings
) -> tuple[Any, dict[str, ComponentExecution]]:
    """The pipeline of the source or variant that `opening` is of, and how its components run.

    The last one stays open, so that one load serves every layer of a process. Raises
    `NotEnoughMemory` before it loads anything, and what `load_checkpoint` and `load_variant` raise.
    """
    found: dict[str, Execution] = {}
    if role == SOURCE:
        checkpoint = open_checkpoint(**opening._asdict())
        require_memory(checkpoint, device, settings, mode)
        pipeline = load_checkpoint(checkpoint, device, mode)
    else:
        variant = open_variant(opening.path)
        require_memory(variant, device, settings, mode)
        pipeline, found = load_variant(variant, device, mode)
    pipeline.set_progress_bar_config(disable=True)
    _spare_threads(pipeline)
    return pipeline, {
        name: ComponentExecution(mode=how.mode, why=how.why) for name, how in found.items()
    }


def draw(
    pipeline: Any,
    pictures: Iterable[Wanted],
    settings: Settings,
    folder: Path,
    progress: Progress,
    *,
    suffix: str = "",
    record: bool = False,
) -> None:
    """Draw those `pictures` that `folder` does not hold yet, as STEM + `suffix` + `.png`.

    Progress advances one a step of `settings.steps`, also for what is there already. With `record`,
    what the models were given and answered is written beside each picture (see `recording`).
    """
    for picture in pictures:
        if drawn(folder, picture, suffix):
            progress.advance(settings.steps, picture.prompt)
            continue
        stem = picture.stem + suffix
        with Recording(pipeline) if record else nullcontext() as recording:
            start = time.perf_counter()
            pixels = _draw_one(pipeline, picture, settings, progress)
            seconds = time.perf_counter() - start
        if recording:
            recording.write(folder / f"{picture.stem}.safetensors")
        done = Drawn(
            prompt=picture.prompt,
            seed=picture.seed,
            file=f"{stem}.png",
            finite=_save(pixels, folder / f"{stem}.png"),
            seconds=round(seconds, 4),
        )
        write_whole(folder / f"{stem}.json", done.model_dump_json())


def drawn(folder: Path, picture: Wanted, suffix: str = "") -> Drawn | None:
    """The record of a picture that is there, else None."""
    try:
        record = (folder / f"{picture.stem}{suffix}.json").read_text("utf-8")
        found = Drawn.model_validate_json(record)
    except (FileNotFoundError, ValidationError, UnicodeDecodeError):
        return None
    return found if (folder / found.file).is_file() else None


def write_whole(file: Path, text: str) -> None:
    """Write a text file that is there whole or not at all, whoever else is writing it."""
    place = file.with_name(f".{file.name}.{time.monotonic_ns()}")
    place.write_text(text, "utf-8")
    place.rename(file)


def draw_picture(
    pipeline: Any,
    picture: Wanted,
    settings: Settings,
    step_done: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """One picture, float32 (height, width, 3) from 0 to 1; `step_done` is called at every step."""
    import torch

    def on_step(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        step_done()
        return values

    answer = pipeline(
        picture.prompt,
        height=settings.height,
        width=settings.width,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        max_sequence_length=settings.max_sequence_length,
        # On the CPU whatever the device: the same seed is then the same noise everywhere.
        generator=torch.Generator("cpu").manual_seed(picture.seed),
        output_type="np",
        callback_on_step_end=on_step,
    )
    pixels: NDArray[np.float32] = answer.images[0]
    return pixels


def _draw_one(
    pipeline: Any, picture: Wanted, settings: Settings, progress: Progress
) -> NDArray[np.float32]:
    return draw_picture(pipeline, picture, settings, lambda: progress.advance(1, picture.prompt))


def _spare_threads(pipeline: Any) -> None:
    """On a busy machine a small model spends nearly all its time waiting for its own threads."""
    import torch

    if sum(weight.numel() for weight in pipeline.transformer.parameters()) < _SMALL:
        torch.set_num_threads(1)


def _save(pixels: NDArray[np.float32], file: Path) -> bool:
    import numpy as np
    from PIL import Image

    finite = bool(np.isfinite(pixels).all())
    levels = np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0).clip(0, 1) * 255
    Image.fromarray(levels.round().astype(np.uint8)).save(file)
    return finite
