"""Model cards, licences and notices, and the words of a collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxconv.converters.lazy import lazy

if TYPE_CHECKING:
    from fluxconv.cards.blind_tests import merge_blind_tests
    from fluxconv.cards.collection_text import collection_description, item_note
    from fluxconv.cards.licences import Licence, licence_of
    from fluxconv.cards.naming import repository_name
    from fluxconv.cards.rules import metadata_problems
    from fluxconv.cards.writing import refresh_card, write, write_card

__all__ = [
    "Licence",
    "collection_description",
    "item_note",
    "licence_of",
    "merge_blind_tests",
    "metadata_problems",
    "refresh_card",
    "repository_name",
    "write",
    "write_card",
]

__getattr__ = lazy(
    __name__,
    {
        "collection_description": "collection_text",
        "item_note": "collection_text",
        "Licence": "licences",
        "licence_of": "licences",
        "merge_blind_tests": "blind_tests",
        "metadata_problems": "rules",
        "repository_name": "naming",
        "refresh_card": "writing",
        "write": "writing",
        "write_card": "writing",
    },
)
