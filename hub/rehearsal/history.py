"""The past of a repository and the names in it: commits, branches, tags."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError, bad_request, conflict, revision_not_found
from fluxconv.hub.rehearsal.names import check_ref_name
from fluxconv.hub.rehearsal.paging import page
from fluxconv.hub.rehearsal.repository import (
    DEFAULT_BRANCH,
    HEADS,
    PULLS,
    TAGS,
    Commit,
    Repository,
)

_PAGE = 50


def list_commits(call: Call) -> Response:
    """``GET /api/models/NS/NAME/commits/REV``, newest first."""
    repo = call.repository()
    formatted = "formatted" in call.query.getlist("expand[]")
    commits = repo.history(call.commit(repo))
    return page(call, commits, lambda c: _describe(c, formatted), size=_PAGE, maximum=1000)


def list_refs(call: Call) -> Response:
    """``GET /api/models/NS/NAME/refs``."""
    repo = call.repository()
    answer: dict[str, Any] = {
        "branches": _describe_refs(repo, HEADS),
        "tags": _describe_refs(repo, TAGS),
        "converts": [],
    }
    if call.query.get("include_prs") is not None:
        answer["pullRequests"] = _describe_refs(repo, PULLS)
    return JSONResponse(answer)


def create_branch(call: Call) -> Response:
    """``POST /api/models/NS/NAME/branch/BRANCH``."""
    repo = call.writable_repository()
    branch = check_ref_name(call.parameter("ref"))
    start = call.json().text("startingPoint") or DEFAULT_BRANCH
    return _create(repo, HEADS, branch, start, "")


def create_tag(call: Call) -> Response:
    """``POST /api/models/NS/NAME/tag/REV``: the revision in the path, the tag in the body."""
    repo = call.writable_repository()
    body = call.json()
    tag = check_ref_name(body.required_text("tag"))
    return _create(repo, TAGS, tag, call.parameter("ref"), body.text("message") or "")


def delete_branch(call: Call) -> Response:
    """``DELETE /api/models/NS/NAME/branch/BRANCH``."""
    repo = call.writable_repository()
    branch = call.parameter("ref")
    if branch == DEFAULT_BRANCH:
        raise HubError(403, f"The branch {DEFAULT_BRANCH!r} cannot be deleted")
    return _delete(repo, HEADS, branch)


def delete_tag(call: Call) -> Response:
    """``DELETE /api/models/NS/NAME/tag/TAG``."""
    return _delete(call.writable_repository(), TAGS, call.parameter("ref"))


def _create(repo: Repository, kind: str, name: str, revision: str, message: str) -> Response:
    with repo.lock:
        target = repo.resolve(revision)
        if repo.ref(kind, name) is not None:
            raise conflict(f"Reference already exists: refs/{kind}/{name}")
        # A name that is both would make a revision ambiguous.
        if repo.ref(TAGS if kind == HEADS else HEADS, name) is not None:
            raise bad_request(f"{name!r} is already the name of a branch or a tag")
        repo.set_ref(kind, name, target.sha, message)
    return JSONResponse({"success": True, "ref": f"refs/{kind}/{name}"})


def _delete(repo: Repository, kind: str, name: str) -> Response:
    with repo.lock:
        if repo.ref(kind, name) is None:
            raise revision_not_found(name)
        repo.delete_ref(kind, name)
    return JSONResponse({"success": True})


def _describe_refs(repo: Repository, kind: str) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}
        for name, sha in repo.refs(kind).items()
    ]


def _describe(commit: Commit, formatted: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": commit.sha,
        "title": commit.title,
        "message": commit.description,
        "authors": [{"user": commit.author, "avatar": ""}],
        "date": commit.date,
        "parents": [*commit.parents],
    }
    if formatted:
        data["formatted"] = {"title": commit.title, "message": commit.description}
    return data
