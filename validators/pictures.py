"""The pictures layer: what the variant drew against what the source drew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fluxconv.converters.errors import BadInput
from fluxconv.validators import metrics
from fluxconv.validators.drawing import Drawn, drawn, pictures_of
from fluxconv.validators.report import IMAGES, Settings
from fluxconv.validators.results import Picture, PicturesResult
from fluxconv.validators.source_drawings import SourceDrawings

if TYPE_CHECKING:
    from fluxconv.validators.metrics import Pixels


def compare_pictures(
    source: SourceDrawings, folder: Path, settings: Settings, images: Path
) -> PicturesResult:
    """Compare the variant's pictures in `folder` with the source's, and leave all of them in
    `images`, with a map of where they differ."""
    from PIL import Image

    pictures: list[Picture] = []
    problems: list[str] = []
    flat_sources = 0
    seconds = source_seconds = 0.0
    for index, wanted in enumerate(pictures_of(settings)):
        theirs, ours = source.drawing(wanted), drawn(folder, wanted)
        if ours is None:
            raise BadInput(f"{folder}: a picture is gone; run `fluxconv validate` again")
        seconds, source_seconds = seconds + ours.seconds, source_seconds + theirs.seconds
        name = f"{index // len(settings.seeds):02d}-{wanted.seed}"
        (images / f"{name}-source.png").write_bytes((source.folder / theirs.file).read_bytes())
        (images / f"{name}-variant.png").write_bytes((folder / ours.file).read_bytes())
        first = metrics.pixels_of(images / f"{name}-source.png")
        second = metrics.pixels_of(images / f"{name}-variant.png")
        compared = metrics.compare(first, second, wanted.prompt)
        Image.fromarray(compared.flip_map).save(images / f"{name}-flip.png")
        flat_sources += metrics.is_flat(first)
        problems += _problems(name, theirs, ours, first, second)
        pictures.append(
            Picture(
                prompt=wanted.prompt,
                seed=wanted.seed,
                source=f"{IMAGES}/{name}-source.png",
                variant=f"{IMAGES}/{name}-variant.png",
                flip_map=f"{IMAGES}/{name}-flip.png",
                scores=compared.scores,
            )
        )
    if flat_sources == len(pictures):
        problems.append("every picture of the source is of one colour, so they prove nothing")
    return PicturesResult(
        pictures=tuple(pictures),
        summary=metrics.summarise([picture.scores for picture in pictures]),
        seconds=round(seconds, 3),
        source_seconds=round(source_seconds, 3),
        problems=tuple(problems),
    )


def _problems(name: str, theirs: Drawn, ours: Drawn, first: Pixels, second: Pixels) -> list[str]:
    if not theirs.finite:
        return [f"{name}-source.png: the source itself draws NaN or infinity"]
    if not ours.finite:
        return [f"{name}-variant.png has NaN or infinity in it"]
    if metrics.is_flat(second) and not metrics.is_flat(first):
        return [f"{name}-variant.png is of one colour"]
    return []
