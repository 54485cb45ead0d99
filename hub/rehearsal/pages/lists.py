"""Pages that list: the start, an account, a collection."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import RedirectResponse, Response

from fluxconv.hub.rehearsal import collections
from fluxconv.hub.rehearsal.call import can_see
from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.pages.opened import Opened
from fluxconv.hub.rehearsal.pages.visit import Visit
from fluxconv.hub.rehearsal.repository import DEFAULT_BRANCH, Repository

# As many collections as the API lists at once.
_MOST = 100


@dataclass(frozen=True)
class Row:
    """A repository in a list; `note` is a collection's."""

    opened: Opened
    note: str = ""


def index(visit: Visit) -> Response:
    """``GET /``: everything there is; with a key, sign in first."""
    key = visit.request.query_params.get("key")
    if key is not None:
        # Out of the address at once, so that it stays in no history.
        response = RedirectResponse("/", status_code=303)
        if visit.access.owner(key) is not None:
            visit.access.remember(response, key)
        return response
    rows, listed = _rows(visit, visit.store.repositories()), _collections(visit)
    counts = Counter(row.opened.repo.namespace for row in rows)
    counts.update({each["owner"]["name"]: 0 for each in listed})
    return visit.page(
        "index",
        rows=rows,
        collections=listed,
        accounts=sorted(counts.items()),
        endpoint=visit.call.base_url,
    )


def account(visit: Visit) -> Response:
    """``GET /NS``: what one account published."""
    name = visit.call.parameter("namespace")
    if not visit.store.accounts.exists(name):
        raise HubError(404, f"Nobody here is called {name}")
    own = [repo for repo in visit.store.repositories() if repo.namespace == name]
    return visit.page(
        "account",
        name=name,
        kind="Organisation" if visit.store.accounts.is_organization(name) else "User",
        rows=_rows(visit, own),
        collections=_collections(visit, owner=name),
    )


def collection(visit: Visit) -> Response:
    """``GET /collections/NS/SLUG``: its items in their order, with their notes."""
    path = {name: visit.call.parameter(name) for name in ("namespace", "name")}
    found = visit.ask(collections.show, {**path, "slug": path["name"]})
    rows = []
    for item in found["items"]:
        namespace, _, name = item["id"].partition("/")
        repo = visit.store.repository(namespace, name)
        note = item.get("note", {}).get("text", "")
        rows += [Row(row.opened, note) for row in _rows(visit, [repo] if repo else [])]
    return visit.page("collection", collection=found, rows=rows)


def _collections(visit: Visit, **query: str) -> list[dict[str, Any]]:
    return list(visit.ask(collections.list_all, query={"limit": str(_MOST), **query}))


def _rows(visit: Visit, repositories: Sequence[Repository]) -> list[Row]:
    """Those that whoever looks may see, newest change first."""
    rows = []
    for repo in repositories:
        # Deleted while we go through the list: as if it had been deleted before.
        with contextlib.suppress(HubError):
            if can_see(visit.looker.identity, repo):
                head = repo.resolve(DEFAULT_BRANCH)
                rows.append(Row(Opened(visit, repo, DEFAULT_BRANCH, head)))
    return sorted(rows, key=lambda row: row.opened.commit.timestamp, reverse=True)
