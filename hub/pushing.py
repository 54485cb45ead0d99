"""Publishing variants: everything is checked first, then each repository changes in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fluxconv.cards.collection_text import collection_description, collection_title, item_note
from fluxconv.cards.licences import licence_of
from fluxconv.cards.naming import folder_in_repository, is_hub_id, shares_repository
from fluxconv.cards.readme import Readme, parse
from fluxconv.cards.writing import (
    README,
    documents,
    local_readme,
    split_siblings,
    write_card,
    write_documents,
)
from fluxconv.converters.errors import UsageError
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant, open_variant
from fluxconv.hub.collection import PublishedCollection, update_collection
from fluxconv.hub.publication import assemble, group_by_repository, published_paths
from fluxconv.hub.remote import RemoteRepository, read_repository, read_text
from fluxconv.hub.repositories import (
    Change,
    RemoteVariant,
    apply_change,
    plan_change,
    refuse_foreign,
    remote_variants,
)
from fluxconv.hub.session import Session, bounded_client, open_session
from fluxconv.validators.report import REPORT_NAME, require_passed


@dataclass(frozen=True)
class PushedRepository:
    """One repository; without a commit nothing was done (a dry run). Paths are in the repository.

    `is_new` says that the push created it (or would).
    """

    name: str
    url: str
    variants: tuple[str, ...]
    commit: str | None
    is_new: bool
    uploaded: tuple[str, ...]
    uploaded_bytes: int
    skipped: tuple[str, ...]
    deleted: tuple[str, ...]


@dataclass(frozen=True)
class PushResult:
    """What a push did, or would do."""

    endpoint: str
    repositories: tuple[PushedRepository, ...]
    collection: PublishedCollection | None
    dry_run: bool


@dataclass(frozen=True)
class _Target:
    """A repository before anything is changed."""

    name: str
    variants: tuple[Variant, ...]
    remote: RemoteRepository | None
    present: tuple[RemoteVariant, ...]


def push(
    variants: Sequence[Variant],
    namespace: str,
    *,
    collection: str | None = None,
    validate_required: bool = True,
    dry_run: bool = False,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> PushResult:
    """Publish each variant in its repository of `namespace`, and list all in a collection.

    Nothing is created before every variant has a passed report (unless `validate_required` is
    False: the cards then say "not validated"), a licence, and files that match its manifest, and
    before the token and every repository are known to be ours to write. Each repository gets one
    commit with the files that differ, is read back and compared. The same push again changes
    nothing. A dry run changes nothing here or there.

    Raises `UsageError`, `CheckFailed`, `MissingLicence`, `NotAVariant`, `BadInput`,
    `HubUnreachable`, `HubRefused`, `HubError`.
    """
    progress = progress or Silent()
    if not variants:
        raise UsageError("no variant to push was given")
    if not is_hub_id(f"{namespace}/x"):
        raise UsageError(f"'{namespace}' can be no user or organisation of the Hub")
    title = collection_title(collection) if collection is not None else None
    groups = group_by_repository(variants, namespace)
    for variant in variants:
        if validate_required:
            require_passed(variant)
        licence_of(variant)
        published_paths(variant, validated=validate_required)
    session = open_session(endpoint, token)
    with ExitStack() as stack:
        stack.enter_context(bounded_client())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fluxconv-")))
        session.require_writer(namespace)
        targets = [_look(session, name, group) for name, group in groups.items()]
        for variant in variants:
            variant.check_hashes(progress)
        changes = [
            _prepare(session, target, variants, validate_required, dry_run, folder / str(index))
            for index, target in enumerate(targets)
        ]
        done = tuple(_apply(session, change, private, dry_run, progress) for change in changes)
        listed = None
        if title is not None:
            notes = {
                change.publication.repository: item_note(
                    change.publication.variants, validated=validate_required
                )
                for change in changes
            }
            listed = update_collection(
                session,
                namespace,
                title,
                collection_description(variants, validated=validate_required),
                notes,
                private=private,
                dry_run=dry_run,
            )
    return PushResult(session.endpoint, done, listed, dry_run)


def _look(session: Session, name: str, variants: tuple[Variant, ...]) -> _Target:
    remote = read_repository(session, name)
    present = remote_variants(session, remote) if remote else ()
    if remote:
        refuse_foreign(remote, present)
    return _Target(name, variants, remote, present)


def _prepare(
    session: Session,
    target: _Target,
    variants: Sequence[Variant],
    validated: bool,
    dry_run: bool,
    folder: Path,
) -> Change:
    """Write the cards with their final names, and plan the repository's commit."""
    first = target.variants[0]
    _, others = split_siblings(first, variants)
    neighbours = _neighbours(session, target, folder)
    texts = documents(
        (*target.variants, *neighbours),
        others=others,
        repository=target.name,
        validated=validated,
        endpoint=session.endpoint,
        existing=_existing_readme(session, target),
        published=True,
    )
    publication = assemble(target.name, target.variants, texts, validated=validated)
    change = plan_change(publication, target.remote, target.present)
    if not dry_run:
        for variant in target.variants:
            if shares_repository(variant):
                # Its folder is laid out otherwise than the repository, so its card is too.
                write_card(
                    variant,
                    siblings=[*variants, *neighbours],
                    repository=target.name,
                    validated=validated,
                    endpoint=session.endpoint,
                )
            else:
                write_documents(variant, texts)
    return change


def _neighbours(session: Session, target: _Target, folder: Path) -> tuple[Variant, ...]:
    """The variants that an earlier push left in a shared repository: rows of its card as well.

    Only their manifests and reports are fetched, which is all that a row needs.
    """
    own = {folder_in_repository(variant) for variant in target.variants}
    found = []
    for present in target.present:
        if target.remote is None or present.folder in own or not present.folder:
            continue
        place = folder / present.folder
        place.mkdir(parents=True)
        (place / MANIFEST_NAME).write_bytes(present.stored)
        report = present.folder + REPORT_NAME
        if report in target.remote.files:
            (place / REPORT_NAME).write_bytes(read_text(session, target.remote, report))
        found.append(open_variant(place))
    return tuple(found)


def _existing_readme(session: Session, target: _Target) -> Readme:
    """What stands around our part of the card: here, else on the Hub."""
    here = local_readme(target.variants[0])
    if here.is_written_by_hand or target.remote is None or README not in target.remote.files:
        return here
    text = read_text(session, target.remote, README).decode("utf-8", "replace")
    there = parse(text, f"{target.name}/{README}")
    return there if there.is_written_by_hand else here


def _apply(
    session: Session, change: Change, private: bool, dry_run: bool, progress: Progress
) -> PushedRepository:
    publication = change.publication
    commit = change.remote.commit if change.remote and not dry_run else None
    if not dry_run and not change.is_empty:
        names = ", ".join(variant.name for variant in publication.variants)
        commit = apply_change(
            session, change, f"Publish {names}", private=private, progress=progress
        )
    return PushedRepository(
        publication.repository,
        f"{session.endpoint}/{publication.repository}",
        tuple(variant.name for variant in publication.variants),
        commit,
        change.remote is None,
        tuple(file.path for file in change.upload),
        change.upload_bytes,
        change.skip,
        change.delete,
    )
