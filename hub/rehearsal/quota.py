"""How much a namespace may store."""

from __future__ import annotations

from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.repository import Repository
from fluxconv.hub.rehearsal.store import Store


def check(store: Store, repo: Repository, more: int) -> None:
    """402 if so many more bytes of large files would be too many for the repository's owner."""
    limit = store.limits.quota
    if limit is None or more == 0:
        return
    used = sum(
        store.blobs.size(sha256) or 0
        for each in store.repositories()
        if each.namespace == repo.namespace
        for sha256 in each.objects()
    )
    if used + more > limit:
        raise HubError(
            402,
            f"Storage limit reached: {repo.namespace} uses {used} of {limit} bytes and this needs"
            f" {more} more. Please upgrade your plan or make room.",
        )
