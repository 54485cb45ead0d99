"""What a push did, or would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fluxconv.hub.collection import PublishedCollection
from fluxconv.hub.finishing import Ending
from fluxconv.hub.repositories import Change
from fluxconv.hub.session import Session


@dataclass(frozen=True)
class PushedFile:
    """A file of a repository: `send` it, or the Hub has it (`there`), or has its content under
    another name (`known`), or `delete` what an older push of ours left."""

    path: str
    size: int
    action: Literal["send", "there", "known", "delete"]


@dataclass(frozen=True)
class PushedRepository:
    """One repository; without a commit nothing was done (a dry run, a pull request). Paths are in
    the repository.

    `is_new` says that the push created it (or would); `private`, `gated` and `tag` are how it ends.
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
    files: tuple[PushedFile, ...]
    private: bool
    gated: str | None
    tag: str | None
    pull_request: str | None = None


@dataclass(frozen=True)
class PushResult:
    """What a push did, or would do."""

    endpoint: str
    repositories: tuple[PushedRepository, ...]
    collection: PublishedCollection | None
    dry_run: bool


@dataclass(frozen=True)
class Step:
    """Something that is done: `create`, `commit`, `verify`, `settings`, `tag`, `collection`, `pull
    request`; where; and what came of it."""

    step: str
    place: str
    detail: str


def pushed(
    session: Session,
    change: Change,
    ending: Ending,
    *,
    is_proposal: bool = False,
    commit: str | None = None,
    address: str | None = None,
) -> PushedRepository:
    """What the change did, or would do, to its repository; a proposal leaves its settings alone."""
    publication, remote = change.publication, change.remote
    sent = {file.path for file in change.upload}
    files = [
        PushedFile(
            path,
            file.record.size,
            "known" if path in change.known else "send" if path in sent else "there",
        )
        for path, file in publication.files.items()
    ]
    gone = [
        PushedFile(path, remote.files[path].size if remote else 0, "delete")
        for path in change.delete
    ]
    return PushedRepository(
        publication.repository,
        f"{session.endpoint}/{publication.repository}",
        tuple(variant.name for variant in publication.variants),
        commit,
        remote is None,
        tuple(file.path for file in change.upload),
        change.upload_bytes,
        change.skip,
        change.delete,
        (*files, *gone),
        bool(remote and remote.private) if is_proposal else ending.private,
        (remote.gated if remote else None) if is_proposal else ending.gating,
        None if is_proposal else ending.tag,
        address,
    )
