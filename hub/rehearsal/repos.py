"""Repositories as a whole: create, delete, describe, list, settings."""

from __future__ import annotations

import contextlib
from typing import Any

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.accounts import account_id
from fluxconv.hub.rehearsal.call import Call, can_see, require_namespace
from fluxconv.hub.rehearsal.errors import HubError, bad_request, conflict, repo_not_found
from fluxconv.hub.rehearsal.fields import Fields
from fluxconv.hub.rehearsal.metadata import MetadataError, read_metadata, tags_of
from fluxconv.hub.rehearsal.names import check_repo_name
from fluxconv.hub.rehearsal.paging import asked, page
from fluxconv.hub.rehearsal.repository import DEFAULT_BRANCH, Commit, Repository

_GATED = ("auto", "manual")
_MAX_README = 1 << 20
_PAGE = 100


def whoami(call: Call) -> Response:
    """``GET /api/whoami-v2``."""
    return JSONResponse(call.store.accounts.describe(call.identity))


def create(call: Call) -> Response:
    """``POST /api/repos/create``."""
    user = call.identity.require_user()
    body = call.json()
    if body.text("type") not in (None, "model"):
        raise bad_request("The rehearsal Hub holds model repositories only")
    name = check_repo_name(body.required_text("name"))
    namespace = body.text("organization") or user
    refusal = f'You don\'t have the rights to create a model under the namespace "{namespace}"'
    require_namespace(call, namespace, refusal)
    url = f"{call.base_url}/{namespace}/{name}"
    private = bool(_private(body))
    repo = call.store.create_repository(namespace, name, private=private, author=user)
    if repo is None:
        # The client reads the address out of the refusal when it was told ``exist_ok``.
        identifier = f"{namespace}/{name}"
        message = "You already created this model repo"
        raise conflict(message, url=url, name=identifier, id=identifier)
    return JSONResponse({"url": url, "name": repo.id, "id": repo.settings()["_id"]})


def delete(call: Call) -> Response:
    """``DELETE /api/repos/delete``."""
    user = call.identity.require_user()
    body = call.json()
    if body.text("type") not in (None, "model"):
        raise repo_not_found(anonymous=False)
    namespace = body.text("organization") or user
    repo = call.store.repository(namespace, body.required_text("name"))
    if repo is None or not can_see(call.identity, repo):
        raise repo_not_found(anonymous=False)
    call.identity.require_write(namespace, f"You don't have the rights to delete {repo.id}")
    call.store.delete_repository(repo)
    return JSONResponse({"success": True})


def settings(call: Call) -> Response:
    """``PUT /api/models/NS/NAME/settings``: visibility and gating."""
    repo = call.writable_repository()
    body = call.json()
    changes: dict[str, Any] = {}
    private = _private(body)
    if private is not None:
        changes["private"] = private
    if body.data.get("gated") is False:
        changes["gated"] = False
    elif (gated := body.choice("gated", _GATED)) is not None:
        changes["gated"] = gated
    current = repo.change_settings(**changes)
    return JSONResponse({"private": current["private"], "gated": current["gated"]})


def auth_check(call: Call) -> Response:
    """``GET /api/models/NS/NAME/auth-check``."""
    call.readable_repository()
    return JSONResponse({})


def auth_check_write(call: Call) -> Response:
    """``GET /api/models/NS/NAME/auth-check/write``."""
    call.writable_repository()
    return JSONResponse({})


def info(call: Call) -> Response:
    """``GET /api/models/NS/NAME`` and ``.../revision/REV``."""
    repo = call.repository()
    named = "revision" in call.request.path_params
    commit = call.commit(repo) if named else repo.resolve(DEFAULT_BRANCH)
    data = describe(call, repo, commit, with_files=True, with_blobs=asked(call, "blobs"))
    if asked(call, "securityStatus"):
        data["securityRepoStatus"] = {"scansDone": False, "filesWithIssues": []}
    return JSONResponse(_expanded(call, data))


def list_models(call: Call) -> Response:
    """``GET /api/models``, newest change first."""
    author, search = call.query.get("author"), call.query.get("search", "").lower()
    filters = {*call.query.getlist("filter")}
    found = []
    for repo in call.store.repositories():
        if author not in (None, repo.namespace) or search not in repo.id.lower():
            continue
        # Deleted while we go through the list: as if it had been deleted before.
        with contextlib.suppress(HubError):
            if can_see(call.identity, repo):
                head = repo.resolve(DEFAULT_BRANCH)
                data = describe(call, repo, head, with_files=asked(call, "full"), with_blobs=False)
                if filters <= {*data["tags"]}:
                    found.append(data)
    found.sort(key=lambda data: data["lastModified"], reverse=True)
    return page(call, found, lambda data: _expanded(call, data), size=_PAGE, maximum=1000)


def describe(
    call: Call, repo: Repository, commit: Commit, *, with_files: bool, with_blobs: bool
) -> dict[str, Any]:
    """Everything the Hub says about a model at a commit."""
    current = repo.settings()
    card = _card(call, commit)
    data: dict[str, Any] = {
        "_id": current["_id"],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.namespace,
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": current["createdAt"],
        "private": current["private"],
        "gated": current["gated"],
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags_of(card or {}, commit.files),
    }
    for key in ("library_name", "pipeline_tag"):
        if card and isinstance(card.get(key), str):
            data[key] = card[key]
    if card is not None:
        data["cardData"] = card
    if with_files:
        data["siblings"] = [_sibling(commit, path, with_blobs) for path in sorted(commit.files)]
        data["spaces"] = []
        data["usedStorage"] = sum({f.sha256: f.size for f in commit.files.values()}.values())
    return data


def summary(repo: Repository) -> dict[str, Any]:
    """The few facts shown for a model inside a collection."""
    current = repo.settings()
    commit = repo.resolve(DEFAULT_BRANCH)
    return {
        "id": repo.id,
        "author": repo.namespace,
        "authorData": {"_id": account_id(repo.namespace), "name": repo.namespace},
        "downloads": 0,
        "likes": 0,
        "gated": current["gated"],
        "private": current["private"],
        "lastModified": commit.date,
        "repoType": "model",
        "type": "model",
    }


def _private(body: Fields) -> bool | None:
    visibility = body.choice("visibility", ("public", "private"))
    return visibility == "private" if visibility is not None else body.flag("private")


def _sibling(commit: Commit, path: str, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": path}
    file = commit.files[path]
    data: dict[str, Any] = {"rfilename": path, "size": file.size, "blobId": file.oid}
    if file.lfs:
        data["lfs"] = {
            "sha256": file.sha256,
            "size": file.size,
            "pointerSize": len(file.pointer),
        }
    return data


def _card(call: Call, commit: Commit) -> dict[str, Any] | None:
    readme = commit.files.get("README.md")
    if readme is None or readme.size > _MAX_README:
        return None
    try:
        content = call.store.blobs.get(readme.sha256)
        return read_metadata(content.decode("utf-8", "replace"))
    except MetadataError:
        return None


def _expanded(call: Call, data: dict[str, Any]) -> dict[str, Any]:
    """Only what was asked for, when something was."""
    wanted = [*call.query.getlist("expand"), *call.query.getlist("expand[]")]
    if not wanted:
        return data
    return {key: value for key, value in data.items() if key in {"_id", "id", *wanted}}
