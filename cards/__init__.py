"""Model cards, licences and notices, and the words of a collection."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxconv.cards.collection_text import collection_description, item_note
    from fluxconv.cards.licences import Licence, licence_of
    from fluxconv.cards.metadata import metadata_problems
    from fluxconv.cards.naming import repository_name
    from fluxconv.cards.writing import write_card

__all__ = [
    "Licence",
    "collection_description",
    "item_note",
    "licence_of",
    "metadata_problems",
    "repository_name",
    "write_card",
]

_HOME = {
    "collection_description": "collection_text",
    "item_note": "collection_text",
    "Licence": "licences",
    "licence_of": "licences",
    "metadata_problems": "metadata",
    "repository_name": "naming",
    "write_card": "writing",
}


def __getattr__(name: str) -> Any:
    # Names are imported when first used, so that `fluxconv --help` stays quick.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
