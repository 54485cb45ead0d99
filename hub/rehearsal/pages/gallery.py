"""The pictures that the metadata of a card shows (`widget`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fluxconv.hub.rehearsal.pages.facts import Sample
from fluxconv.hub.rehearsal.pages.opened import Opened
from fluxconv.hub.rehearsal.pages.rewriting import Rewriter
from fluxconv.hub.rehearsal.pages.visit import fragment


@dataclass(frozen=True)
class Shown:
    """A sample and its picture, or what stands in its place."""

    sample: Sample
    picture: Markup
    is_here: bool


def shown(opened: Opened) -> list[Shown]:
    """The pictures of a repository's gallery, in their order."""
    place = opened.place()
    found = []
    for sample in opened.facts.samples:
        picture = Rewriter(place).picture({"src": sample.url, "alt": sample.prompt})
        found.append(Shown(sample, Markup(picture), place.picture(sample.url) is not None))
    return found


def html(pictures: Sequence[Shown]) -> Markup:
    """The gallery as it stands in the card."""
    return fragment("gallery", pictures=pictures) if pictures else Markup()
