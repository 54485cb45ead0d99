"""What the metadata of a card says, in the words in which a page shows it.

Whoever wrote the metadata chose every value, also its type and length: what is not what it should
be is left out here, and named among the remarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxconv.cards import metadata_problems
from fluxconv.cards.naming import HUB, is_hub_id

_LIBRARIES = {"diffusers": "Diffusers", "gguf": "GGUF", "transformers": "Transformers"}
_SMALL_WORDS = ("to", "and", "or", "of")
_MOST, _LONGEST = 40, 2000


@dataclass(frozen=True)
class Licence:
    """The licence as the card names it; `link` may be a file of the repository."""

    label: str
    link: str = ""


@dataclass(frozen=True)
class Base:
    """A model that this one was made from."""

    id: str
    relation: str

    @property
    def address(self) -> str:
        """Where it is on the real Hub; empty for what cannot be there."""
        return f"{HUB}/{self.id}" if is_hub_id(self.id) else ""


@dataclass(frozen=True)
class Sample:
    """One picture of the gallery with what it was drawn from; `url` as it stands in the card."""

    prompt: str
    negative: str
    url: str


@dataclass(frozen=True)
class Gate:
    """What a card says to people before the gate."""

    heading: str
    prompt: str
    fields: tuple[str, ...]
    button: str


@dataclass(frozen=True)
class Facts:
    """What a card's metadata says."""

    pipeline: str
    library: str
    licence: Licence | None
    bases: tuple[Base, ...]
    languages: tuple[str, ...]
    tags: tuple[str, ...]
    samples: tuple[Sample, ...]
    gate: Gate
    problems: tuple[str, ...]


def facts_of(metadata: Mapping[str, Any]) -> Facts:
    """Read the metadata of a card."""
    library = _text(metadata.get("library_name"))
    relation = _text(metadata.get("base_model_relation"))
    return Facts(
        pipeline=_title(_text(metadata.get("pipeline_tag"))),
        library=_LIBRARIES.get(library, library),
        licence=_licence(metadata),
        bases=tuple(Base(name, relation) for name in _texts(metadata.get("base_model"))),
        languages=_texts(metadata.get("language")),
        tags=_texts(metadata.get("tags")),
        samples=_samples(metadata.get("widget")),
        gate=_gate(metadata),
        problems=metadata_problems(metadata),
    )


def _licence(metadata: Mapping[str, Any]) -> Licence | None:
    names = _texts(metadata.get("license"))
    if not names:
        return None
    own_name = _text(metadata.get("license_name"))
    label = own_name if names == ("other",) and own_name else ", ".join(names)
    return Licence(label, _text(metadata.get("license_link")))


def _samples(widget: Any) -> tuple[Sample, ...]:
    found = []
    for entry in widget[:_MOST] if isinstance(widget, list) else []:
        output = entry.get("output") if isinstance(entry, dict) else None
        url = _text(output.get("url")) if isinstance(output, dict) else ""
        if url:
            parameters = entry.get("parameters")
            given = parameters if isinstance(parameters, dict) else {}
            negative = _text(given.get("negative_prompt"))
            found.append(Sample(_text(entry.get("text")), negative, url))
    return tuple(found)


def _gate(metadata: Mapping[str, Any]) -> Gate:
    fields = metadata.get("extra_gated_fields")
    return Gate(
        heading=_text(metadata.get("extra_gated_heading")),
        prompt=_text(metadata.get("extra_gated_prompt")),
        fields=_texts([*fields]) if isinstance(fields, dict) else (),
        button=_text(metadata.get("extra_gated_button_content")),
    )


def _title(tag: str) -> str:
    """`text-to-image` as `Text-to-Image`."""
    parts = tag.split("-")
    return "-".join(part if part in _SMALL_WORDS else part.capitalize() for part in parts)


def _text(value: Any) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for text in map(_text, values[:_MOST]) if text)
