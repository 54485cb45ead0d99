"""Everything that is looked at before a single byte is sent."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxconv.cards.licences import licence_of
from fluxconv.cards.naming import folder_in_repository, shares_repository
from fluxconv.cards.writing import documents, split_siblings, write_card, write_documents
from fluxconv.converters.errors import DiskFull, HubRefused
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.converters.progress import Progress
from fluxconv.converters.variant import Variant, open_variant
from fluxconv.hub.account import require_writer
from fluxconv.hub.errors import hub_errors
from fluxconv.hub.finishing import Gating
from fluxconv.hub.hand_written import existing_readme
from fluxconv.hub.publication import assemble, group_by_repository, published_paths
from fluxconv.hub.remote import RemoteRepository, read_repository, read_text
from fluxconv.hub.repositories import (
    Change,
    RemoteVariant,
    plan_change,
    refuse_foreign,
    refuse_oversized,
    remote_variants,
)
from fluxconv.hub.session import Session
from fluxconv.validators.report import REPORT_NAME, require_passed

#: What Xet keeps of an upload on this machine: its lists of pieces, a small part of the files.
_KEPT_PART, _KEPT_LEAST = 0.002, 32 << 20


@dataclass(frozen=True)
class Wishes:
    """What the user asked for, as far as every step has to know it."""

    namespace: str
    validated: bool
    dry_run: bool
    replace: bool
    create_pr: bool


@dataclass(frozen=True)
class Prepared:
    """What is to be done to each repository, with the texts generated for it; nothing is yet.

    `upstream` says how the source of each repository asks for consent.
    """

    user: str
    changes: tuple[Change, ...]
    texts: Mapping[str, dict[str, str]]
    neighbours: Mapping[str, tuple[Variant, ...]]
    upstream: Mapping[str, Gating | None]


@dataclass(frozen=True)
class _Target:
    """A repository before anything is changed."""

    name: str
    variants: tuple[Variant, ...]
    remote: RemoteRepository | None
    present: tuple[RemoteVariant, ...]


def prepare(
    session: Session,
    variants: Sequence[Variant],
    wishes: Wishes,
    folder: Path,
    progress: Progress,
) -> Prepared:
    """Check reports, licences, the token, every repository and every file, and plan the commits.

    What other variants of a shared repository need for the card is fetched into `folder`. Changes
    nothing, here or there. Raises what `push` raises.
    """
    groups = group_by_repository(variants, wishes.namespace)
    for variant in variants:
        if wishes.validated:
            require_passed(variant)
        licence_of(variant)
        published_paths(variant, validated=wishes.validated)
    user = ""
    if session.token is None and wishes.dry_run:
        progress.note("No token: what only its owner may see or do was not looked at.")
    else:
        user = require_writer(session, wishes.namespace, groups, foreign=wishes.create_pr)
    targets = [_look(session, name, group, wishes, user) for name, group in groups.items()]
    texts, neighbours, changes = {}, {}, []
    for index, target in enumerate(targets):
        beside = neighbours[target.name] = _neighbours(session, target, folder / str(index))
        _, others = split_siblings(target.variants[0], variants)
        texts[target.name] = documents(
            (*target.variants, *beside),
            others=others,
            repository=target.name,
            validated=wishes.validated,
            endpoint=session.endpoint,
            existing=existing_readme(session, target.remote, target.variants[0], progress),
            published=True,
        )
        publication = assemble(
            target.name, target.variants, texts[target.name], validated=wishes.validated
        )
        refuse_oversized(publication)
        # What is somebody else's is never replaced by a pull request: it is only added to.
        present = () if wishes.create_pr else target.present
        changes.append(plan_change(publication, target.remote, present))
    _refuse_full_disk(sum(change.upload_bytes for change in changes))
    for change in changes:
        change.publication.check(progress)
    upstream = {target.name: _gating(target.variants[0]) for target in targets}
    return Prepared(user, tuple(changes), texts, neighbours, upstream)


def write_cards(
    ready: Prepared, variants: Sequence[Variant], wishes: Wishes, session: Session
) -> None:
    """Write the generated texts into the variants' own folders as well."""
    for change in ready.changes:
        name = change.publication.repository
        for variant in change.publication.variants:
            if shares_repository(variant):
                # Its folder is laid out otherwise than the repository, so its card is too.
                write_card(
                    variant,
                    siblings=[*variants, *ready.neighbours[name]],
                    repository=name,
                    validated=wishes.validated,
                    endpoint=session.endpoint,
                )
            else:
                write_documents(variant, ready.texts[name])


def _look(
    session: Session, name: str, variants: tuple[Variant, ...], wishes: Wishes, user: str
) -> _Target:
    remote = read_repository(session, name)
    if remote is None and wishes.create_pr:
        raise HubRefused(f"{name}: there is no such repository to propose anything to")
    present = remote_variants(session, remote) if remote else ()
    if remote and not wishes.create_pr:
        if user:
            with hub_errors(name):
                session.api.auth_check(name, write=True)
        if not wishes.replace:
            refuse_foreign(remote, present)
    return _Target(name, variants, remote, present)


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


def _gating(variant: Variant) -> Gating | None:
    """How the source of the variant asks for consent."""
    gated = licence_of(variant).gated
    return "manual" if str(gated) == "manual" else "auto" if gated else None


def _refuse_full_disk(nbytes: int) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_XET_CACHE)
    while not place.exists():
        place = place.parent
    needed = int(nbytes * _KEPT_PART) + _KEPT_LEAST
    if nbytes and shutil.disk_usage(place).free < needed:
        raise DiskFull(f"{place}: the upload needs {needed >> 20} MiB there; make room")
