"""The source's drawings, made once for all variants and kept for the next validation.

They lie in a cache, in a folder named after everything that determines them: the source's files,
how is drawn, on which kind of device, with which libraries. Such a folder can be copied to another
machine. Beside each picture lies what the source's models were given and answered, and for the
first few what the source draws a second time, and in float32: the noise floor.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from fluxconv.converters.checkpoint import Checkpoint, Opening
from fluxconv.converters.errors import BadInput
from fluxconv.converters.modes import get_mode
from fluxconv.converters.progress import Progress, Silent
from fluxconv.validators import metrics
from fluxconv.validators.drawing import (
    SOURCE,
    Drawn,
    Wanted,
    draw,
    drawn,
    opened,
    pictures_of,
    write_whole,
)
from fluxconv.validators.machine import free_gpu_memory, free_memory
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.report import Settings
from fluxconv.validators.results import NoiseFloor
from fluxconv.validators.teacher import compare_steps

AGAIN, FLOAT32 = ".again", ".float32"
_VERSIONED = ("torch", "diffusers", "transformers")
_NO_ROOM = "no-float32.txt"


class SourceDrawings:
    """The drawings of one source with one set of settings; made when first asked for.

    `hashes` are the sha256 of the source's files. Raises `BadInput` if the cache cannot be written.
    """

    def __init__(
        self,
        reference: Checkpoint,
        hashes: Mapping[str, str],
        settings: Settings,
        device: str,
        mode: str,
        progress: Progress,
        cache: Path | None = None,
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._device = device
        self._mode = mode
        self._progress = progress
        self._failure: LayerFailed | None = None
        self.hashes = dict(hashes)
        determined = _determined_by(hashes, settings, device)
        self.key = digest(determined)
        self.folder = (cache or _default_cache()) / self.key[:32]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "drawn-with.json", json.dumps(determined, indent=2))
        except OSError as error:
            raise BadInput(f"{self.folder}: cannot be written: {error.strerror}") from error

    def ensure(self) -> None:
        """Have everything drawn; raises `LayerFailed` if it cannot be."""
        if self._failure:
            raise self._failure
        if self._complete():
            return
        request = {
            "opening": self._reference.opening._asdict(),
            "device": self._device,
            "mode": self._mode,
            "settings": self._settings.model_dump(mode="json"),
            "folder": str(self.folder),
        }
        try:
            # A process that ends here, so that its memory is free for the variants.
            with Worker(self._device) as worker:
                worker.run("source", request, self._progress)
        except LayerFailed as failure:
            # Kept, so that the next variant does not wait for the same failure again.
            self._failure = LayerFailed(f"the source could not be drawn: {failure}")
            raise self._failure from None

    def drawing(self, picture: Wanted) -> Drawn:
        """The record of one picture, which must have been drawn."""
        found = drawn(self.folder, picture)
        assert found
        return found

    @cached_property
    def noise_floor(self) -> NoiseFloor | None:
        """What the source differs from itself by; None if the settings ask for none. It must have
        been drawn."""
        pictures = pictures_of(self._settings)[: self._settings.noise]
        if not pictures:
            return None
        again = [self._scores(picture, AGAIN) for picture in pictures]
        if not _has_float32(self.folder, pictures):
            why = (self.folder / _NO_ROOM).read_text("utf-8")
            return NoiseFloor(pictures=len(pictures), again=metrics.summarise(again), why=why)
        return NoiseFloor(
            pictures=len(pictures),
            again=metrics.summarise(again),
            dtype="float32",
            other=metrics.summarise([self._scores(picture, FLOAT32) for picture in pictures]),
            steps_rms=round(fmean(_steps(self.folder, picture) for picture in pictures), 7),
        )

    def _complete(self) -> bool:
        every = pictures_of(self._settings)
        noisy = every[: self._settings.noise]
        return (
            all(drawn(self.folder, picture) for picture in every)
            and all(drawn(self.folder, picture, AGAIN) for picture in noisy)
            and (_has_float32(self.folder, noisy) or (self.folder / _NO_ROOM).is_file())
        )

    def _scores(self, picture: Wanted, suffix: str) -> dict[str, float | None]:
        first, other = drawn(self.folder, picture), drawn(self.folder, picture, suffix)
        assert first and other
        return metrics.compare(
            metrics.pixels_of(self.folder / first.file),
            metrics.pixels_of(self.folder / other.file),
            picture.prompt,
        ).scores


def draw_source(
    opening: Opening, device: str, mode: str, settings: Settings, folder: Path, progress: Progress
) -> None:
    """Draw what `folder` lacks, in this process, with one load of the source."""
    import torch

    every = pictures_of(settings)
    noisy = every[: settings.noise]
    runs = len(every) + 2 * len(noisy)
    progress.start(f"Drawing {Path(opening.path).name}", runs * settings.steps, "steps")
    pipeline, _ = opened(opening, SOURCE, device, mode, settings)
    draw(pipeline, every, settings, folder, progress, record=True)
    draw(pipeline, noisy, settings, folder, progress, suffix=AGAIN)
    if _has_float32(folder, noisy):
        progress.advance(len(noisy) * settings.steps)
    elif why := _no_float32(pipeline, device, mode):
        write_whole(folder / _NO_ROOM, why)
    else:
        pipeline.to(torch.float32)
        draw(pipeline, noisy, settings, folder, progress, suffix=FLOAT32)
        for picture in noisy:
            found = compare_steps(
                pipeline, [picture], folder, settings.steps, Silent(), torch.float32
            )
            write_whole(_steps_file(folder, picture), json.dumps(found.relative_rms))
    progress.finish()


def _no_float32(pipeline: Any, device: str, mode: str) -> str | None:
    """Why the pipeline cannot be turned into float32 here; None if it can."""
    if get_mode(mode).offload:
        return "not drawn in float32: the source is offloaded"
    models = [model for model in pipeline.components.values() if hasattr(model, "parameters")]
    weights = [weight for model in models for weight in model.parameters()]
    more = sum(4 * weight.numel() - weight.nbytes for weight in weights)
    free = free_memory() if device == "cpu" else free_gpu_memory()
    if more < free:
        return None
    return f"not drawn in float32: it takes {more / 1e9:.1f} GB more, and {free / 1e9:.1f} are free"


def digest(determined: Mapping[str, Any]) -> str:
    """One name for everything that determines something."""
    text = json.dumps(determined, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _determined_by(hashes: Mapping[str, str], settings: Settings, device: str) -> dict[str, Any]:
    # Not by prompts and seeds: each picture has a file of its own.
    how = ("height", "width", "steps", "guidance", "max_sequence_length")
    return {
        "format": 1,
        "source": dict(hashes),
        "settings": {name: getattr(settings, name) for name in how},
        "device": device.partition(":")[0],
        "dtype": "bfloat16",
        "versions": {name: metadata.version(name) for name in _VERSIONED},
    }


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fluxconv" / "references"


def _has_float32(folder: Path, pictures: tuple[Wanted, ...]) -> bool:
    return all(
        drawn(folder, picture, FLOAT32) and _steps_file(folder, picture).is_file()
        for picture in pictures
    )


def _steps(folder: Path, picture: Wanted) -> float:
    found: float = json.loads(_steps_file(folder, picture).read_text("utf-8"))
    return found


def _steps_file(folder: Path, picture: Wanted) -> Path:
    return folder / f"{picture.stem}.steps.json"
