"""A collection of the published repositories: found or created, one item a repository."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from fluxconv.cards.collection_text import SIGNATURE
from fluxconv.hub.errors import Unclear, hub_errors
from fluxconv.hub.journal import Journal
from fluxconv.hub.retrying import Retrying
from fluxconv.hub.session import Session

if TYPE_CHECKING:
    from huggingface_hub import Collection

#: Of a namespace, looked through for a title.
_MOST_COLLECTIONS = 1000
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
    session: Session,
    namespace: str,
    title: str,
    repositories: Mapping[str, str],
    remembered: str | None = None,
) -> Collection | None:
    """The collection of the slug `remembered`, else the namespace's one of this title, None if
    there is none.

    Titles are not unique: one that holds any of `repositories` already comes before one that
    fluxconv described, and that before any other.
    """
    from huggingface_hub.errors import HfHubHTTPError

    with hub_errors(f"{namespace}, collection '{title}'"):
        if remembered is not None:
            try:
                return session.api.get_collection(remembered)
            except HfHubHTTPError as error:
                if error.response.status_code != 404:
                    raise
        listed = islice(session.api.list_collections(owner=namespace), _MOST_COLLECTIONS)
        slugs = [found.slug for found in listed if found.title == title]
        # A listing shows the first items only.
        found = [session.api.get_collection(slug) for slug in slugs]

    def rank(collection: Collection) -> tuple[bool, bool]:
        holds_ours = any(item.item_id in repositories for item in collection.items)
        return holds_ours, is_described_by_us(collection)

    return max(found, key=rank, default=None)


def plan_collection(
    session: Session, namespace: str, title: str, notes: Mapping[str, str], journal: Journal
) -> PublishedCollection:
    """What `publish_collection` would do now."""
    found = find_collection(session, namespace, title, notes, _remembered(journal))
    return _described(session, title, found, found, notes)


def publish_collection(
    session: Session,
    namespace: str,
    title: str,
    description: str,
    notes: Mapping[str, str],
    journal: Journal,
    *,
    private: bool,
    public: bool = False,
) -> PublishedCollection:
    """Make the collection of that title hold each repository in `notes`, in that order, with its
    note. A new one is private if `private`; one that exists and is private becomes public if
    `public`.

    Other items stay where they are, and so does a description that somebody else wrote. Whatever
    gets no answer is looked at before it is tried again. Raises `HubUnreachable`, `HubRefused` or
    `HubError`.
    """
    what = f"{namespace}, collection '{title}'"
    attempts = Retrying(session.timeout)
    first: Collection | None = None
    looked = False
    while True:
        try:
            found = find_collection(session, namespace, title, notes, _remembered(journal))
            if not looked:
                first, looked = found, True
            with hub_errors(what):
                if found is None:
                    found = session.api.create_collection(
                        title,
                        namespace=namespace,
                        description=description,
                        private=private,
                        exists_ok=True,
                    )
                if _remembered(journal) != found.slug:
                    journal.note("collection", slug=found.slug)
                _fill(session, found, description, notes)
                if public and found.private:
                    session.api.update_collection_metadata(found.slug, private=False)
            return _described(session, title, first, found, notes)
        except Unclear:
            if not attempts.wait():
                raise


def _fill(
    session: Session, collection: Collection, description: str, notes: Mapping[str, str]
) -> None:
    api, slug = session.api, collection.slug
    if is_described_by_us(collection) and collection.description != description:
        api.update_collection_metadata(slug, description=description)
    items = {item.item_id: item for item in collection.items}
    for name, note in notes.items():
        if name not in items:
            api.add_collection_item(slug, name, "model", note=note, exists_ok=True)
        elif items[name].note != note:
            api.update_collection_item(slug, items[name].item_object_id, note=note)
    shown = api.get_collection(slug).items
    numbers = {item.item_id: item.item_object_id for item in shown}
    for name, place in moves([item.item_id for item in shown], list(notes)):
        api.update_collection_item(slug, numbers[name], position=place)


def moves(shown: Sequence[str], wanted: Sequence[str]) -> Iterator[tuple[str, int]]:
    """What to move, and to which position, so that `wanted` come in their order; the others keep
    their places. Each move takes an item out and puts it in again."""
    now = list(shown)
    order = iter([name for name in wanted if name in now])
    target = [next(order) if name in wanted else name for name in now]
    for place, name in enumerate(target):
        if now[place] != name:
            now.remove(name)
            now.insert(place, name)
            yield name, place


def is_described_by_us(collection: Collection) -> bool:
    """Whether its description may be replaced."""
    return not collection.description or collection.description.endswith(SIGNATURE)


def _remembered(journal: Journal) -> str | None:
    entry = journal.last("collection")
    return str(entry["slug"]) if entry else None


def _described(
    session: Session,
    title: str,
    before: Collection | None,
    after: Collection | None,
    notes: Mapping[str, str],
) -> PublishedCollection:
    items = {item.item_id: item for item in before.items} if before else {}
    return PublishedCollection(
        title,
        after.slug if after else None,
        f"{session.endpoint}/collections/{after.slug}" if after else None,
        tuple(name for name in notes if name not in items),
        tuple(name for name in notes if name in items and items[name].note != notes[name]),
        before is None,
    )
