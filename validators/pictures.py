"""The pictures layer: the same prompts and seeds through the source and the variant."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING

from fluxconv.converters.checkpoint import Checkpoint, Opening
from fluxconv.converters.progress import Progress
from fluxconv.validators import metrics
from fluxconv.validators.drawing import SOURCE, VARIANT, Drawing, DrawnPicture
from fluxconv.validators.process import LayerFailed, Worker
from fluxconv.validators.report import IMAGES, Picture, PicturesResult, Settings

if TYPE_CHECKING:
    from fluxconv.validators.metrics import Pixels


class SourcePictures:
    """The source's pictures, drawn when first asked for and once for all variants."""

    def __init__(
        self, reference: Checkpoint, settings: Settings, device: str, progress: Progress
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._device = device
        self._progress = progress
        self._drawing: Drawing | None = None
        self._failure: LayerFailed | None = None

    def __enter__(self) -> SourcePictures:
        self._temporary = tempfile.TemporaryDirectory(prefix="fluxconv-")
        self.folder = Path(self._temporary.name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._temporary.cleanup()

    def drawing(self) -> Drawing:
        """The pictures, as files in `folder`; raises `LayerFailed` if they cannot be drawn."""
        if self._failure:
            raise self._failure
        if self._drawing is None:
            try:
                with Worker() as worker:
                    self._drawing = draw_in(
                        worker,
                        self._reference.opening,
                        SOURCE,
                        self._device,
                        self._settings,
                        self.folder,
                        self._progress,
                    )
            except LayerFailed as failure:
                # Kept, so that the next variant does not wait for the same failure again.
                self._failure = LayerFailed(f"the source could not be drawn: {failure}")
                raise self._failure from None
        return self._drawing


def draw_in(
    worker: Worker,
    opening: Opening,
    role: str,
    device: str,
    settings: Settings,
    folder: Path,
    progress: Progress,
) -> Drawing:
    """Draw all pictures in `worker`'s process; raises `LayerFailed`."""
    answer = worker.run(
        "draw",
        {
            "opening": opening._asdict(),
            "role": role,
            "device": device,
            "settings": settings.model_dump(mode="json"),
            "folder": str(folder),
        },
        progress,
    )
    return Drawing.model_validate(answer)


def compare_pictures(
    source: SourcePictures,
    worker: Worker,
    variant: Path,
    settings: Settings,
    device: str,
    images: Path,
    progress: Progress,
) -> tuple[PicturesResult, Drawing]:
    """Draw with the variant in `worker`, compare, and leave all PNG files in `images`.

    Raises `LayerFailed` if the source or the variant cannot be drawn.
    """
    of_source = source.drawing()
    opening = Opening(str(variant))
    of_variant = draw_in(worker, opening, VARIANT, device, settings, images, progress)
    pictures: list[Picture] = []
    problems: list[str] = []
    flat_sources = 0
    for theirs, ours in zip(of_source.pictures, of_variant.pictures, strict=True):
        shutil.copyfile(source.folder / theirs.file, images / theirs.file)
        first, second = _pixels(images / theirs.file), _pixels(images / ours.file)
        flat_sources += metrics.is_flat(first)
        problems += _problems(theirs, ours, first, second)
        psnr = metrics.psnr(first, second)
        pictures.append(
            Picture(
                prompt=theirs.prompt,
                seed=theirs.seed,
                source=f"{IMAGES}/{theirs.file}",
                variant=f"{IMAGES}/{ours.file}",
                psnr=None if psnr is None else round(psnr, 3),
                ssim=round(metrics.ssim(first, second), 5),
            )
        )
    if flat_sources == len(pictures):
        problems.append("every picture of the source is of one colour, so they prove nothing")
    return summarise(pictures, problems, of_variant.seconds, of_source.seconds), of_variant


def summarise(
    pictures: list[Picture], problems: list[str], seconds: float, source_seconds: float
) -> PicturesResult:
    """The layer's result: equal pictures have no PSNR and do not count in its mean."""
    ratios = [picture.psnr for picture in pictures if picture.psnr is not None]
    similarities = [picture.ssim for picture in pictures]
    return PicturesResult(
        pictures=tuple(pictures),
        psnr_mean=round(fmean(ratios), 3) if ratios else None,
        psnr_min=min(ratios, default=None),
        ssim_mean=round(fmean(similarities), 5),
        ssim_min=min(similarities),
        seconds=seconds,
        source_seconds=source_seconds,
        problems=tuple(problems),
    )


def _problems(theirs: DrawnPicture, ours: DrawnPicture, first: Pixels, second: Pixels) -> list[str]:
    if not theirs.finite:
        return [f"{theirs.file}: the source itself draws NaN or infinity"]
    if not ours.finite:
        return [f"{ours.file} has NaN or infinity in it"]
    if metrics.is_flat(second) and not metrics.is_flat(first):
        return [f"{ours.file} is of one colour"]
    return []


def _pixels(file: Path) -> Pixels:
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
