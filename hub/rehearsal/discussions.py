"""Discussions of a repository, of which pull requests are one kind.

One is kept as ``discussions/<number>.json`` in the repository's folder, much as the Hub answers
it; a pull request also has the branch ``refs/pr/<number>``.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal import pulls
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError, bad_request, forbidden
from fluxconv.hub.rehearsal.events import (
    CLOSED,
    DRAFT,
    MERGED,
    OPEN,
    comment_event,
    event_of,
    opened,
)
from fluxconv.hub.rehearsal.names import is_number
from fluxconv.hub.rehearsal.records import all_discussions, discussion, set_discussion
from fluxconv.hub.rehearsal.repository import DEFAULT_BRANCH, Repository

_PAGE = 50
_MAX_TEXT = 65_536


def list_all(call: Call) -> Response:
    """``GET /api/models/NS/NAME/discussions``, newest first."""
    repo = call.repository()
    kind, status, author = (call.query.get(name, "all") for name in ("type", "status", "author"))
    found = [
        data
        for data in all_discussions(repo)
        if kind in ("all", "pull_request" if data["isPullRequest"] else "discussion")
        and status in ("all", OPEN if data["status"] == DRAFT else data["status"])
        and author in ("all", data["author"]["name"])
    ]
    text = call.query.get("p", "0")
    start = _PAGE * (int(text) if is_number(text) else 0)
    shown = [_summary(repo, data) for data in found[::-1][start : start + _PAGE]]
    return JSONResponse({"discussions": shown, "count": len(found), "start": start})


def create(call: Call) -> Response:
    """``POST /api/models/NS/NAME/discussions``; a pull request starts as an empty draft."""
    repo = call.contributable_repository()
    body = call.json()
    title = body.required_text("title", limit=200)
    if len(title) < 3:
        raise bad_request('"title" length must be at least 3 characters long')
    description = body.text("description", limit=_MAX_TEXT) or ""
    author = call.identity.require_user()
    with repo.lock:
        if body.flag("pullRequest"):
            head = repo.resolve(DEFAULT_BRANCH)
            data = pulls.opened(repo, title, description, author, DEFAULT_BRANCH, head, DRAFT)
        else:
            data = opened(repo, title, description, author)
        set_discussion(repo, data)
    return JSONResponse({"num": data["num"], "pullRequest": data["isPullRequest"]})


def show(call: Call) -> Response:
    """``GET /api/models/NS/NAME/discussions/N``."""
    repo = call.repository()
    data = find(call, repo)
    answer = {**_summary(repo, data), "events": data["events"]}
    if data["isPullRequest"]:
        answer |= pulls.details(call.store, repo, data, with_diff=call.query.get("diff") == "1")
    return JSONResponse(answer)


def comment(call: Call) -> Response:
    """``POST .../discussions/N/comment``."""
    repo = call.contributable_repository()
    text = call.json().required_text("comment", limit=_MAX_TEXT)
    with repo.lock:
        data = find(call, repo)
        event = comment_event(call.identity.require_user(), text)
        set_discussion(repo, {**data, "events": [*data["events"], event]})
    return JSONResponse({"newMessage": event})


def rename(call: Call) -> Response:
    """``POST .../discussions/N/title``."""
    repo = call.contributable_repository()
    title = call.json().required_text("title", limit=200)
    with repo.lock:
        data = _changeable(call, repo)
        facts = {"from": data["title"], "to": title}
        event = event_of("title-change", call.identity.require_user(), facts)
        set_discussion(repo, {**data, "title": title, "events": [*data["events"], event]})
    return JSONResponse({"newTitle": event})


def change_status(call: Call) -> Response:
    """``POST .../discussions/N/status``: close it, or open it (also a draft)."""
    repo = call.contributable_repository()
    body = call.json()
    status = body.choice("status", (OPEN, CLOSED))
    with repo.lock:
        data = _changeable(call, repo)
        if status is None or data["status"] in (status, MERGED):
            raise bad_request(f"The discussion is {data['status']} already")
        author = call.identity.require_user()
        event = event_of("status-change", author, {"status": status})
        said = body.text("comment", limit=_MAX_TEXT)
        events = [*data["events"], *([comment_event(author, said)] if said else []), event]
        set_discussion(repo, {**data, "status": status, "events": events})
    return JSONResponse({"newStatus": event})


def merge(call: Call) -> Response:
    """``POST .../discussions/N/merge``."""
    repo = call.writable_repository()
    with repo.lock:
        data = find(call, repo)
        if not data["isPullRequest"] or data["status"] != OPEN:
            raise bad_request(f"Only an open pull request can be merged; this is {data['status']}")
        commit = pulls.merged(repo, data)
        event = event_of("status-change", call.identity.require_user(), {"status": MERGED})
        changes = {"status": MERGED, "mergeCommitId": commit.sha}
        set_discussion(repo, {**data, **changes, "events": [*data["events"], event]})
    return JSONResponse({"success": True})


def find(call: Call, repo: Repository) -> dict[str, Any]:
    """The discussion in the path, or 404."""
    number = call.parameter("number")
    data = discussion(repo, int(number)) if is_number(number) else None
    if data is None:
        raise HubError(404, f"Discussion {number} not found")
    return data


def _changeable(call: Call, repo: Repository) -> dict[str, Any]:
    data = find(call, repo)
    author = data["author"]["name"]
    if call.identity.user != author and not call.identity.may_write(repo.namespace):
        raise forbidden(f"Forbidden: only {author} and the owners of {repo.id} may do this")
    return data


def _summary(repo: Repository, data: dict[str, Any]) -> dict[str, Any]:
    names = ("num", "title", "author", "createdAt", "status", "isPullRequest")
    return {**{name: data[name] for name in names}, "repo": {"name": repo.id, "type": "model"}}
