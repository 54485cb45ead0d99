"""Publishing variants: everything is checked before a byte is sent, then each repository changes in
one commit, and only what is verified is shown."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fluxconv.cards.collection_text import collection_description, collection_title, item_note
from fluxconv.cards.naming import is_hub_id
from fluxconv.converters.errors import HubError, UsageError
from fluxconv.converters.progress import Progress, Silent
from fluxconv.converters.variant import Variant
from fluxconv.hub.collection import PublishedCollection, plan_collection, publish_collection
from fluxconv.hub.committing import create, publish
from fluxconv.hub.finishing import Ending, ending_of, finish
from fluxconv.hub.journal import Journal, open_journal, read_journal
from fluxconv.hub.preflight import Prepared, Wishes, prepare, write_cards
from fluxconv.hub.pull_requests import propose
from fluxconv.hub.repositories import (
    Change,
    plan_change,
    refuse_foreign,
    refuse_overwriting,
    remote_variants,
)
from fluxconv.hub.results import PushedRepository, PushResult, Step, pushed
from fluxconv.hub.retrying import DEFAULT_TIMEOUT
from fluxconv.hub.session import Session, bounded_client, open_session
from fluxconv.hub.signing import SIGNATURE, sign
from fluxconv.hub.uploading import Uploader


def push(
    variants: Sequence[Variant],
    namespace: str,
    *,
    collection: str | None = None,
    validate_required: bool = True,
    dry_run: bool = False,
    private: bool | None = None,
    gated: Literal["auto", "manual", "off"] | None = None,
    replace: bool = False,
    create_pr: bool = False,
    private_key: Path | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> PushResult:
    """Publish each variant in its repository of `namespace`, and list all in a collection.

    Nothing is created before every variant has a passed report (unless `validate_required` is
    False: the cards then say "not validated"), a licence, and files that match its manifest, and
    before the token and every repository are known to be ours to write. Each repository gets one
    commit with the files that differ, is read back and compared; then only is it made public, or
    kept private, and gated. The same push again does only what is missing. A dry run changes
    nothing here or there. `timeout` is in seconds, and bounds every wait in which nothing moves.

    `private` None leaves the visibility of a finished repository as it is and makes a new one
    public; `gated` None asks for consent where the source does. `replace` publishes into a
    repository with foreign content, whose other files stay. `create_pr` proposes everything to
    repositories that exist, as pull requests. With `private_key`, an elliptic-curve key in PEM,
    each variant is signed first.

    Raises `UsageError`, `CheckFailed`, `MissingLicence`, `NotAVariant`, `BadInput`,
    `SourceChanged`, `OutputExists` while another push here is at the same repository,
    `HubUnreachable`, `HubRefused`, `HubError`, and `MissingRequirement` to sign without the
    library.
    """
    progress = progress or Silent()
    if not variants:
        raise UsageError("no variant to push was given")
    if not is_hub_id(f"{namespace}/x"):
        raise UsageError(f"'{namespace}' can be no user or organisation of the Hub")
    if timeout <= 0:
        raise UsageError("--timeout: give a number of seconds above 0")
    if create_pr and (collection is not None or private is not None or gated is not None):
        raise UsageError(
            "--create-pr leaves visibility, gating and collections to the repository's owner"
        )
    title = collection_title(collection) if collection is not None else None
    session = open_session(endpoint, token, timeout)
    wishes = Wishes(namespace, validate_required, dry_run, replace, create_pr)
    if private_key is not None:
        _sign(variants, private_key, progress, dry_run=dry_run)
    with ExitStack() as stack:
        stack.enter_context(bounded_client(timeout, home=session.endpoint))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fluxconv-")))
        uploader = stack.enter_context(Uploader())
        if not dry_run:
            # While files are hashed.
            uploader.start()
        ready = prepare(session, variants, wishes, folder, progress)
        endings = [
            ending_of(
                session,
                change.publication,
                change.remote,
                private=private,
                gated=gated,
                upstream=ready.upstream[change.publication.repository],
            )
            for change in ready.changes
        ]
        run = _Run(
            session, ready, wishes, progress, on_step or (lambda step: None), stack, uploader
        )
        notes = {
            change.publication.repository: item_note(
                change.publication.variants, validated=validate_required
            )
            for change in ready.changes
        }
        if dry_run:
            done = tuple(
                pushed(session, change, ending, is_proposal=create_pr)
                for change, ending in zip(ready.changes, endings, strict=True)
            )
        else:
            journals = [run.journal(change.publication.repository) for change in ready.changes]
            write_cards(ready, variants, wishes, session)
            done = tuple(
                _apply(run, *each) for each in zip(ready.changes, endings, journals, strict=True)
            )
        listed = None
        if title is not None:
            listed = _list(run, namespace, title, variants, notes, endings, public=private is False)
    return PushResult(session.endpoint, done, listed, dry_run)


def _sign(
    variants: Sequence[Variant], private_key: Path, progress: Progress, *, dry_run: bool
) -> None:
    if dry_run:
        progress.note(f"A dry run signs nothing; {SIGNATURE} would come on top where it is new.")
        return
    for variant in variants:
        sign(variant, private_key, hashed=True)  # as they are before anything is sent


@dataclass(frozen=True)
class _Run:
    """What every step of one push needs."""

    session: Session
    ready: Prepared
    wishes: Wishes
    progress: Progress
    on_step: Callable[[Step], object]
    stack: ExitStack
    uploader: Uploader

    def journal(self, place: str, *, wait: float = 0.0) -> Journal:
        """Its journal, and with it the place, for this push alone."""
        return self.stack.enter_context(open_journal(self.session.endpoint, place, wait=wait))

    def saying(self, place: str) -> Callable[[str, str], object]:
        return lambda step, detail: self.on_step(Step(step, place, detail))


def _apply(run: _Run, change: Change, ending: Ending, journal: Journal) -> PushedRepository:
    session, publication = run.session, change.publication
    name, said = publication.repository, run.saying(publication.repository)
    names = ", ".join(variant.name for variant in publication.variants)
    if run.wishes.create_pr:
        assert change.remote is not None
        address, sent = propose(
            session,
            publication,
            change.remote,
            run.ready.user,
            f"Add {names}",
            run.progress,
            run.uploader,
            said,
        )
        change = replace(change, upload=sent.upload, skip=sent.skip, known=sent.known)
        return pushed(session, change, ending, is_proposal=True, address=address)
    planned = change
    if change.remote is None:
        fresh = create(session, name)
        # Whatever an older one of this name was sent went with it.
        journal.note("forgotten")
        journal.note("create")
        said("create", "private until it is verified")
        present = remote_variants(session, fresh)
        # Somebody may have made it in this moment.
        if not run.wishes.replace:
            refuse_foreign(fresh, present)
        if present:
            refuse_overwriting(change, fresh)
        change = plan_change(publication, fresh, present)
    remote = publish(
        session,
        change,
        f"Publish {names}",
        ending.description,
        journal,
        run.progress,
        run.uploader,
        replace=run.wishes.replace,
        said=said,
    )
    finish(session, remote, ending, said)
    journal.close_chapter("finished", commit=remote.commit, tag=ending.tag)
    return pushed(session, planned, ending, commit=remote.commit)


def _list(
    run: _Run,
    namespace: str,
    title: str,
    variants: Sequence[Variant],
    notes: dict[str, str],
    endings: Sequence[Ending],
    *,
    public: bool,
) -> PublishedCollection:
    place = f"{namespace}, collection {title}"
    if run.wishes.dry_run:
        journal = read_journal(run.session.endpoint, place)
        return plan_collection(run.session, namespace, title, notes, journal)
    # Another push on this machine may list its repositories in it just now: that takes seconds.
    journal = run.journal(place, wait=run.session.timeout)
    try:
        listed = publish_collection(
            run.session,
            namespace,
            title,
            collection_description(variants, validated=run.wishes.validated),
            notes,
            journal,
            private=all(ending.private for ending in endings),
            public=public,
        )
    except HubError as error:
        raise type(error)(
            f"{error} (all repositories are published; only this is missing)"
        ) from None
    run.saying(title)("collection", listed.url or "")
    return listed
