"""A collection of the published repositories: found or created, one item a repository."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxconv.cards.collection_text import SIGNATURE
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.session import Session

if TYPE_CHECKING:
    from huggingface_hub import Collection

_SLUG = re.compile(r"[^/\s]+/[^/\s]*[0-9a-f]{24}")


@dataclass(frozen=True)
class PublishedCollection:
    """The collection; without a slug it would be created."""

    title: str
    slug: str | None
    url: str | None
    added: tuple[str, ...]
    updated: tuple[str, ...]
    is_new: bool


def is_slug(text: str) -> bool:
    """Whether `text` is a collection's slug, `namespace/title-<24 hex digits>`."""
    return bool(_SLUG.fullmatch(text))


def find_collection(
    session: Session, namespace: str, title: str, repositories: Mapping[str, str]
) -> Collection | None:
    """The namespace's collection of this title, None if it has none.

    Titles are not unique: one that holds any of `repositories` already comes before one that
    fluxconv described, and that before any other.
    """
    with hub_errors(f"{namespace}, collection '{title}'"):
        listed = session.api.list_collections(owner=namespace)
        slugs = [found.slug for found in listed if found.title == title]
        # A listing shows the first items only.
        found = [session.api.get_collection(slug) for slug in slugs]

    def rank(collection: Collection) -> tuple[bool, bool]:
        holds_ours = any(item.item_id in repositories for item in collection.items)
        return holds_ours, is_described_by_us(collection)

    return max(found, key=rank, default=None)


def update_collection(
    session: Session,
    namespace: str,
    title: str,
    description: str,
    notes: Mapping[str, str],
    *,
    private: bool,
    dry_run: bool,
) -> PublishedCollection:
    """Make the collection of that title hold each repository in `notes`, with its note.

    Other items stay, and so does a description that somebody else wrote. Raises `HubUnreachable`,
    `HubRefused` or `HubError`.
    """
    collection = find_collection(session, namespace, title, notes)
    items = {item.item_id: item for item in collection.items} if collection else {}
    added = tuple(name for name in notes if name not in items)
    updated = tuple(name for name in notes if name in items and items[name].note != notes[name])
    is_new = collection is None
    if not dry_run:
        with hub_errors(f"{namespace}, collection '{title}'"):
            if collection is None:
                collection = session.api.create_collection(
                    title,
                    namespace=namespace,
                    description=description,
                    private=private,
                    exists_ok=True,
                )
            elif is_described_by_us(collection) and collection.description != description:
                session.api.update_collection_metadata(collection.slug, description=description)
            for name in added:
                session.api.add_collection_item(
                    collection.slug, name, "model", note=notes[name], exists_ok=True
                )
            for name in updated:
                session.api.update_collection_item(
                    collection.slug, items[name].item_object_id, note=notes[name]
                )
    slug = collection.slug if collection else None
    url = f"{session.endpoint}/collections/{slug}" if slug else None
    return PublishedCollection(title, slug, url, added, updated, is_new)


def is_described_by_us(collection: Collection) -> bool:
    """Whether its description may be replaced."""
    return not collection.description or collection.description.endswith(SIGNATURE)
