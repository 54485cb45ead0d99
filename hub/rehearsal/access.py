"""Gated repositories: who asked for access, and who got it.

``access.json`` in the repository's folder: by user, the request's id, its state and its time.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError, bad_request
from fluxconv.hub.rehearsal.paging import page
from fluxconv.hub.rehearsal.records import ACCEPTED, access_requests, set_access
from fluxconv.hub.rehearsal.repository import Repository, hub_time

PENDING, REJECTED = "pending", "rejected"
_STATES = (PENDING, ACCEPTED, REJECTED)
_PAGE = 100


def ask(call: Call) -> Response:
    """``POST /NS/NAME/ask-access``: the button on a gated repository's page."""
    repo = call.repository()
    user = call.identity.require_user()
    gated = _require_gated(repo)
    with repo.lock:
        if user not in access_requests(repo):
            _put(repo, user, ACCEPTED if gated == "auto" else PENDING)
    return JSONResponse({"status": access_requests(repo)[user]["status"]})


def list_requests(call: Call) -> Response:
    """``GET /api/models/NS/NAME/user-access-request/STATUS``."""
    repo = call.writable_repository()
    _require_gated(repo)
    status = call.parameter("status")
    found = [
        (user, each) for user, each in access_requests(repo).items() if each["status"] == status
    ]
    return page(call, found, _describe, size=_PAGE)


def handle(call: Call) -> Response:
    """``POST .../user-access-request/handle``: accept, reject, or back to the waiting ones."""
    repo = call.writable_repository()
    _require_gated(repo)
    body = call.json()
    status = body.choice("status", _STATES)
    if status is None:
        raise bad_request('"status" is required')
    body.text("rejectionReason", limit=200)
    with repo.lock:
        requests = access_requests(repo)
        wanted = body.text("user"), body.text("requestId")
        user = next(
            (u for u, r in requests.items() if u == wanted[0] or r["requestId"] == wanted[1]), None
        )
        if user is None:
            raise HubError(404, "No access request of this user")
        if requests[user]["status"] == status:
            raise HubError(404, f"The access request is already in the {status} list")
        _put(repo, user, status)
    return JSONResponse({"success": True})


def grant(call: Call) -> Response:
    """``POST .../user-access-request/grant``: access without a request."""
    repo = call.writable_repository()
    _require_gated(repo)
    user = call.json().required_text("user")
    if not call.store.accounts.exists(user):
        raise HubError(404, "User not found")
    with repo.lock:
        if access_requests(repo).get(user, {}).get("status") == ACCEPTED:
            raise bad_request("The user already has access")
        _put(repo, user, ACCEPTED)
    return JSONResponse({"success": True})


def _require_gated(repo: Repository) -> str:
    gated = repo.settings()["gated"]
    if not gated:
        raise bad_request("The repository is not gated")
    return str(gated)


def _put(repo: Repository, user: str, status: str) -> None:
    requests = access_requests(repo)
    known = requests.get(user) or {
        "requestId": secrets.token_hex(12),
        "timestamp": hub_time(time.time()),
    }
    set_access(repo, {**requests, user: {**known, "status": status}})


def _describe(entry: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    user, request = entry
    return {**request, "user": {"user": user, "fullname": user}}
