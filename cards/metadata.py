"""The front matter that fluxconv puts on a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fluxconv.cards.escaping import one_line
from fluxconv.cards.facts import Facts
from fluxconv.cards.licences import Licence
from fluxconv.cards.naming import is_hub_id, shares_repository
from fluxconv.converters.variant import is_safe_path
from fluxconv.validators.report import IMAGES

#: Keys that fluxconv decides; a hand-written value of these is replaced or dropped.
OWNED = (
    "license",
    "license_name",
    "license_link",
    "library_name",
    "pipeline_tag",
    "widget",
    "extra_gated_prompt",
)
#: Pictures of a gallery: two rows of the Hub's.
_PICTURES = 8


def card_metadata(own: Sequence[Facts], licence: Licence, inner: str) -> dict[str, Any]:
    """The front matter of the card that these variants share (or that the only one has).

    `inner` is where the first one's pictures lie, as the README sees them.
    """
    first = own[0].variant
    source = first.manifest.source.id
    is_gguf = shares_repository(first)
    base = {"base_model": source, "base_model_relation": "quantized"} if is_hub_id(source) else {}
    libraries = ["gguf"] if is_gguf else [first.backend.requirement.package]
    names = [facts.variant.backend.name for facts in own]
    pictures = gallery(own[0], inner)
    return {
        **base,
        **licence.metadata,
        "library_name": "gguf" if is_gguf else "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": list(dict.fromkeys(["flux", "quantization", *libraries, *names, "fluxconv"])),
        **({"widget": pictures} if pictures else {}),
    }


def gallery(facts: Facts, inner: str) -> list[dict[str, Any]]:
    """The report's pictures that the variant drew, as the Hub's gallery shows them."""
    pictures = facts.report.pictures.pictures if facts.report and facts.report.pictures else ()
    return [
        {"text": prompt, "output": {"url": inner + picture.variant}}
        for picture in pictures[:_PICTURES]
        if (prompt := one_line(picture.prompt))
        and is_safe_path(picture.variant)
        and picture.variant.startswith(f"{IMAGES}/")
        and (facts.variant.root / picture.variant).is_file()
    ]
