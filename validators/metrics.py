"""The scores of a variant's picture against the source's: what each one means, and all in one call.

`METRICS` has a row for each, in the order in which they are shown; its names are the keys of
`Picture.scores`. The formulas are in `similarity`, what needs trained weights in `learned_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluxconv.validators import learned_metrics, similarity
from fluxconv.validators.results import Summary

if TYPE_CHECKING:
    from fluxconv.validators.similarity import Pixels as Pixels

Scores = Mapping[str, float | None]
_KEPT = 1  # digit that is recorded beyond those that are shown


def _nothing_missing() -> str | None:
    return None


@dataclass(frozen=True)
class Metric:
    """One score. `digits` are shown after the point.

    `measure` takes the source's picture, the variant's and the prompt; its None is infinity, for
    pictures that are equal. `missing` says why there is no such score on this machine, or None.
    Pictures less than `smallest` pixels across have no such score either.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    digits: int
    meaning: str
    paper: str
    measure: Callable[[Pixels, Pixels, str], float | None]
    missing: Callable[[], str | None] = _nothing_missing
    smallest: int = 0

    def format(self, value: float | None) -> str:
        """The value as people read it, with its unit."""
        if value is None:
            return "equal"
        return f"{value:.{self.digits}f} {self.unit}".rstrip()

    def worst(self, values: Iterable[float]) -> float:
        """The worst of some values."""
        return min(values) if self.higher_is_better else max(values)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric(
                name="psnr",
                title="PSNR",
                unit="dB",
                higher_is_better=True,
                digits=1,
                meaning="How small the differences of the levels are: 6 dB more is half of them.",
                paper="10 log10(255² / the mean of all squared differences)",
                measure=lambda source, variant, _: similarity.psnr(source, variant),
            ),
            Metric(
                name="ssim",
                title="SSIM",
                unit="",
                higher_is_better=True,
                digits=4,
                meaning="How alike brightness, contrast and structure are from place to place; "
                "1 is equal.",
                paper="Wang et al., Image Quality Assessment: From Error Visibility to Structural "
                "Similarity, IEEE Transactions on Image Processing, 2004",
                measure=lambda source, variant, _: similarity.ssim(source, variant),
            ),
            Metric(
                name="ms_ssim",
                title="MS-SSIM",
                unit="",
                higher_is_better=True,
                digits=4,
                meaning="SSIM on several scales, so that coarse structure counts as much as fine; "
                "1 is equal.",
                paper="Wang, Simoncelli and Bovik, Multiscale Structural Similarity for Image "
                "Quality Assessment, Asilomar Conference, 2003",
                measure=lambda source, variant, _: similarity.ms_ssim(source, variant),
            ),
            Metric(
                name="flip",
                title="FLIP",
                unit="",
                higher_is_better=False,
                digits=4,
                meaning="The difference seen by somebody who flips between the two pictures; "
                "0 is none, 1 the most there can be.",
                paper="Andersson et al., FLIP: A Difference Evaluator for Alternating Images, "
                "Proceedings of the ACM on Computer Graphics and Interactive Techniques, 2020",
                measure=lambda source, variant, _: similarity.flip(source, variant)[0],
            ),
            Metric(
                name="lpips",
                title="LPIPS",
                unit="",
                higher_is_better=False,
                digits=4,
                meaning="How far apart a trained network (AlexNet) finds the two pictures; "
                "0 is equal.",
                paper="Zhang et al., The Unreasonable Effectiveness of Deep Features as a "
                "Perceptual Metric, CVPR, 2018",
                measure=learned_metrics.lpips,
                missing=learned_metrics.lpips_missing,
                smallest=learned_metrics.LPIPS_SMALLEST,
            ),
            Metric(
                name="image_text",
                title="CLIP score",
                unit="",
                higher_is_better=True,
                digits=1,
                meaning="How well the variant's picture fits the prompt, 0 to 100; the source's "
                "own score is the one to hold it against.",
                paper="Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image "
                "Captioning, EMNLP, 2021",
                measure=learned_metrics.image_text,
                missing=learned_metrics.image_text_missing,
            ),
        )
    }
)


@dataclass(frozen=True)
class Comparison:
    """The scores of one picture, and where FLIP sees differences (see `similarity.flip`)."""

    scores: dict[str, float | None]
    flip_map: Pixels


def compare(source: Pixels, variant: Pixels, prompt: str) -> Comparison:
    """Every score that can be had here, and FLIP's map. The pictures are of one size."""
    flip, flip_map = similarity.flip(source, variant)
    scores: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        if min(source.shape[:2]) < metric.smallest or metric.missing():
            continue
        # FLIP gives its score along with its map, and takes as long as all the others.
        value = flip if name == "flip" else metric.measure(source, variant, prompt)
        scores[name] = None if value is None else round(value, metric.digits + _KEPT)
    return Comparison(scores, flip_map)


def scores(source: Pixels, variant: Pixels, prompt: str) -> dict[str, float | None]:
    """The scores of `compare` alone."""
    return compare(source, variant, prompt).scores


def missing_metrics() -> dict[str, str]:
    """Why each of the metrics that cannot be had here cannot, with what to run, by name."""
    return {name: why for name, metric in METRICS.items() if (why := metric.missing()) is not None}


def summarise(pictures: Iterable[Scores]) -> dict[str, Summary]:
    """Mean and worst of each score over some pictures.

    Equal pictures, whose PSNR is infinite, do not count in it; if all are equal, there is none.
    """
    found: dict[str, list[float]] = {}
    for scores in pictures:
        for name, value in scores.items():
            found.setdefault(name, []).extend([] if value is None else [value])
    return {name: _summary(METRICS[name], values) for name, values in found.items()}


def _summary(metric: Metric, values: list[float]) -> Summary:
    if not values:
        return Summary(mean=None, worst=None)
    return Summary(
        mean=round(fmean(values), metric.digits + _KEPT),
        worst=metric.worst(values),
    )


def is_flat(pixels: Pixels) -> bool:
    """Whether the picture is of one colour, give or take one level of rounding."""
    return int((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))).max()) <= 1


def pixels_of(file: Path) -> Pixels:
    """The pixels of a picture file."""
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
