"""What an owner should look at before the repository goes public."""

from __future__ import annotations

from collections.abc import Sequence

from fluxconv.hub.rehearsal.pages.gallery import Shown
from fluxconv.hub.rehearsal.pages.markdown import Rendered
from fluxconv.hub.rehearsal.pages.opened import Opened


def remarks(opened: Opened, card: Rendered, pictures: Sequence[Shown]) -> tuple[str, ...]:
    """One sentence for each thing that is missing, broken, or will look different elsewhere."""
    found = []
    if opened.readme is None:
        found.append("There is no README.md, so the Hub will say that it has no model card.")
    elif opened.metadata is None:
        found.append("The card has no metadata, and the Hub will say so above it.")
    else:
        found += [f"Metadata, {problem}." for problem in opened.facts.problems]
        if opened.facts.bases and not opened.facts.bases[0].relation:
            found.append("base_model_relation is not set, so the Hub will guess it.")
    licence = opened.facts.licence
    if licence and licence.link and opened.place().link(licence.link) is None:
        found.append(f"license_link leads to {licence.link}, which is not in the repository.")
    lost = [each.sample.url for each in pictures if not each.is_here]
    found += [f"The gallery's picture {url} is not in the repository." for url in lost]
    found += [f"The card refers to {url}, which is not in the repository." for url in card.missing]
    found += [
        f"The card shows {url}, which lies on another host: it can change or vanish there."
        for url in card.elsewhere
    ]
    found += [
        f"The picture {url} has no text for those who cannot see it." for url in card.wordless
    ]
    return tuple(found)
