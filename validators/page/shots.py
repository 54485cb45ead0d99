"""What was drawn, prompt by prompt: each variant's picture beside the source's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fluxconv.validators.comparison import Comparison
from fluxconv.validators.page.pictures import MAP_UP_TO, Pool
from fluxconv.validators.page.table import metrics_of
from fluxconv.validators.results import Picture

_MOST_PIXELS = 400_000_000  # of all pictures in a page: a browser should open it in seconds


@dataclass(frozen=True)
class Take:
    """One variant's picture: numbers of the source's, its own and the FLIP map, and its scores."""

    source: int
    variant: int
    flip: int
    scores: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """As the page's scripts want it."""
        return {
            "source": self.source,
            "variant": self.variant,
            "flip": self.flip,
            "scores": self.scores,
        }


@dataclass(frozen=True)
class Shot:
    """One prompt and seed; `takes` has one place for each report, None where nothing was drawn."""

    prompt: str
    seed: int
    takes: tuple[Take | None, ...]


@dataclass(frozen=True)
class Shots:
    """The shots in the order of the prompts; `left_out` counts those that the page has no room
    for, which are the most alike."""

    shown: tuple[Shot, ...]
    left_out: int


def shots_of(comparison: Comparison, folders: Sequence[Path], pool: Pool) -> Shots:
    """All pictures of the comparison, with their files in `pool`; raises `BadInput`."""
    found: dict[tuple[int, str], dict[int, Picture]] = {}
    for index, report in enumerate(comparison.reports):
        for picture in report.pictures.pictures if report.pictures else ():
            found.setdefault((picture.seed, picture.prompt), {})[index] = picture
    settings = comparison.settings
    order = [(seed, prompt) for prompt in settings.prompts for seed in settings.seeds]
    keys = [key for key in dict.fromkeys(order) if key in found]
    room = max(1, _MOST_PIXELS // (settings.width * settings.height * len(comparison.reports)))
    least_alike = sorted(keys, key=lambda key: -_difference(found[key].values()))[:room]
    shown = [key for key in keys if key in set(least_alike)]
    shots = tuple(
        Shot(prompt, seed, _takes(found[seed, prompt], folders, pool)) for seed, prompt in shown
    )
    return Shots(shots, len(keys) - len(shown))


def _difference(pictures: Any) -> float:
    return fmean(picture.scores.get("flip") or 0.0 for picture in pictures)


def _takes(
    pictures: dict[int, Picture], folders: Sequence[Path], pool: Pool
) -> tuple[Take | None, ...]:
    takes: list[Take | None] = []
    for index, folder in enumerate(folders):
        picture = pictures.get(index)
        if picture is None:
            takes.append(None)
            continue
        scores = tuple(
            (metric.title, metric.format(picture.scores[metric.name]))
            for metric in metrics_of(picture.scores)
        )
        takes.append(
            Take(
                pool.number(folder / picture.source),
                pool.number(folder / picture.variant),
                pool.number(folder / picture.flip_map, MAP_UP_TO),
                scores,
            )
        )
    return tuple(takes)
