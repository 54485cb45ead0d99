"""Collections: a titled list of models, each with a note.

One JSON file a collection; its 24-digit identifier never changes, the readable part of its slug
follows the title. Items whose model is gone or not visible are left out of every answer.
"""

from __future__ import annotations

import contextlib
import html
import re
import secrets
import time
import unicodedata
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.accounts import Identity, account_id
from fluxconv.hub.rehearsal.call import Call, can_see, require_namespace
from fluxconv.hub.rehearsal.disk import read_json
from fluxconv.hub.rehearsal.errors import (
    HubError,
    bad_request,
    conflict,
    repo_not_found,
)
from fluxconv.hub.rehearsal.names import is_object_id
from fluxconv.hub.rehearsal.paging import page
from fluxconv.hub.rehearsal.repos import summary
from fluxconv.hub.rehearsal.repository import Repository, hub_time

MAX_TITLE, MAX_DESCRIPTION, MAX_NOTE = 60, 150, 500
# A listing shows the beginning of each collection only, as on the Hub.
ITEMS_IN_LISTING = 4
_THEMES = ("orange", "blue", "green", "purple", "pink", "indigo")
_TYPES = ("model", "dataset", "space", "paper", "collection", "bucket")
_PAGE = 10


def create(call: Call) -> Response:
    """``POST /api/collections``."""
    user = call.identity.require_user()
    body = call.json()
    namespace = body.text("namespace") or user
    refusal = f'You don\'t have the rights to create a collection under "{namespace}"'
    require_namespace(call, namespace, refusal)
    title = body.required_text("title", limit=MAX_TITLE)
    collection: dict[str, Any] = {
        "_id": secrets.token_hex(12),
        "namespace": namespace,
        "title": title,
        "description": body.text("description", limit=MAX_DESCRIPTION),
        "private": bool(body.flag("private")),
        "theme": "orange",
        "position": 0,
        "items": [],
    }
    with call.store.collections_lock:
        for other in _all(call):
            if other["namespace"] == namespace and other["title"] == title:
                # The client follows this slug when it was told ``exists_ok``.
                message = "This collection already exists"
                raise conflict(message, slug=_slug(other))
        _save(call, collection)
    return JSONResponse(_describe(call, collection))


def show(call: Call) -> Response:
    """``GET /api/collections/NS/SLUG``."""
    return JSONResponse(_describe(call, _find(call)))


def list_all(call: Call) -> Response:
    """``GET /api/collections``, newest change first, four items of each."""
    owners, items = call.query.getlist("owner"), call.query.getlist("item")
    found = [
        collection
        for collection in _all(call)
        if _visible(call.identity, collection)
        and (not owners or collection["namespace"] in owners)
        and (not items or any(f"{i['type']}s/{i['id']}" in items for i in collection["items"]))
    ]
    found.sort(key=lambda c: str(c["lastUpdated"]), reverse=True)
    return page(call, found, lambda c: _listed(call, c), size=_PAGE, maximum=100)


def update(call: Call) -> Response:
    """``PATCH /api/collections/NS/SLUG``: title, description, visibility, theme, position."""
    body = call.json()
    changes = {
        "title": body.text("title", limit=MAX_TITLE),
        "description": body.text("description", limit=MAX_DESCRIPTION),
        "private": body.flag("private"),
        "theme": body.choice("theme", _THEMES),
        "position": body.number("position"),
    }
    if changes["title"] == "":
        raise bad_request('"title" is not allowed to be empty')
    with call.store.collections_lock:
        collection = _find_own(call)
        collection.update({k: v for k, v in changes.items() if v is not None})
        _save(call, collection)
    return JSONResponse({"success": True, "data": _describe(call, collection)})


def delete(call: Call) -> Response:
    """``DELETE /api/collections/NS/SLUG``."""
    with call.store.collections_lock:
        collection = _find_own(call)
        call.store.disk.delete(_path(call, collection["_id"]))
    return JSONResponse({"success": True})


def add_item(call: Call) -> Response:
    """``POST /api/collections/NS/SLUG/items``."""
    body = call.json()
    item = body.object("item")
    kind = item.choice("type", _TYPES) or "model"
    note = body.text("note", limit=MAX_NOTE)
    with call.store.collections_lock:
        collection = _find_own(call)
        repo = _model(call, item.required_text("id")) if kind == "model" else None
        if repo is None:
            raise repo_not_found(anonymous=False)
        if any((i["type"], i["id"]) == (kind, repo.id) for i in collection["items"]):
            raise conflict("This item is already in the collection")
        entry = {"_id": secrets.token_hex(12), "type": kind, "id": repo.id, "note": note}
        collection["items"].append(entry)
        _save(call, collection)
    return JSONResponse(_describe(call, collection))


def update_item(call: Call) -> Response:
    """``PATCH /api/collections/NS/SLUG/items/ID``: note and position."""
    body = call.json()
    note, position = body.text("note", limit=MAX_NOTE), body.number("position")
    with call.store.collections_lock:
        collection = _find_own(call)
        item = _item(call, collection)
        if note is not None:
            item["note"] = note
        if position is not None:
            collection["items"].remove(item)
            collection["items"].insert(position, item)
        _save(call, collection)
    return JSONResponse({"success": True})


def delete_item(call: Call) -> Response:
    """``DELETE /api/collections/NS/SLUG/items/ID``."""
    with call.store.collections_lock:
        collection = _find_own(call)
        collection["items"].remove(_item(call, collection))
        _save(call, collection)
    return JSONResponse({"success": True})


def _find(call: Call) -> dict[str, Any]:
    # The identifier decides: after a new title the old slug still leads here.
    identifier = call.parameter("slug").rpartition("-")[2]
    data = read_json(_path(call, identifier)) if is_object_id(identifier) else None
    if (
        data is None
        or data["namespace"] != call.parameter("namespace")
        or not _visible(call.identity, data)
    ):
        raise HubError(404, "Collection not found")
    return dict(data)


def _find_own(call: Call) -> dict[str, Any]:
    collection = _find(call)
    refusal = f"You don't have the rights to change {_slug(collection)}"
    call.identity.require_write(collection["namespace"], refusal)
    return collection


def _visible(identity: Identity, collection: dict[str, Any]) -> bool:
    return not collection["private"] or identity.belongs_to(collection["namespace"])


def _item(call: Call, collection: dict[str, Any]) -> dict[str, Any]:
    entries: list[dict[str, Any]] = collection["items"]
    for entry in entries:
        if entry["_id"] == call.parameter("item"):
            return entry
    raise HubError(404, "Item not found in the collection")


def _model(call: Call, repo_id: str) -> Repository | None:
    namespace, _, name = repo_id.partition("/")
    repo = call.store.repository(namespace, name)
    return repo if repo is not None and can_see(call.identity, repo) else None


def _all(call: Call) -> list[dict[str, Any]]:
    found = (read_json(path) for path in (call.store.directory / "collections").iterdir())
    return [dict(data) for data in found if data is not None]


def _path(call: Call, identifier: str) -> Path:
    return call.store.directory / "collections" / f"{identifier}.json"


def _save(call: Call, collection: dict[str, Any]) -> None:
    collection["lastUpdated"] = hub_time(time.time())
    call.store.disk.write_json(_path(call, collection["_id"]), collection)


def _slug(collection: dict[str, Any]) -> str:
    ascii_title = unicodedata.normalize("NFKD", collection["title"]).encode("ascii", "ignore")
    words = re.sub(r"[^a-z0-9]+", "-", ascii_title.decode().lower()).strip("-")
    readable = f"{words}-" if words else ""
    return f"{collection['namespace']}/{readable}{collection['_id']}"


def _describe(call: Call, collection: dict[str, Any]) -> dict[str, Any]:
    return {**_listed(call, collection, None), "position": collection["position"]}


def _listed(
    call: Call, collection: dict[str, Any], limit: int | None = ITEMS_IN_LISTING
) -> dict[str, Any]:
    # No position: in a listing the client counts for itself, and trips over a second one.
    items: list[dict[str, Any]] = []
    for entry in collection["items"]:
        # A model that is deleted at this moment is left out like one that is gone.
        with contextlib.suppress(HubError):
            repo = _model(call, entry["id"])
            if repo is not None:
                items.append({**summary(repo), **_placed(entry, len(items))})
    namespace = collection["namespace"]
    return {
        "slug": _slug(collection),
        "title": collection["title"],
        "description": collection["description"],
        "owner": {
            "_id": account_id(namespace),
            "name": namespace,
            "fullname": namespace,
            "avatarUrl": "",
            "type": "org" if call.store.accounts.is_organization(namespace) else "user",
        },
        "items": items[:limit],
        "lastUpdated": collection["lastUpdated"],
        "private": collection["private"],
        "theme": collection["theme"],
        "upvotes": 0,
        "isUpvotedByUser": False,
        "gating": False,
    }


def _placed(entry: dict[str, Any], position: int) -> dict[str, Any]:
    data = {"_id": entry["_id"], "position": position}
    if entry["note"]:
        data["note"] = {"text": entry["note"], "html": html.escape(entry["note"])}
    return data
