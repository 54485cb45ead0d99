"""Addresses that need no token: signed, for one purpose, and they expire.

On the Hub they lead to a storage provider, which knows no Hub tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from fluxconv.hub.rehearsal.errors import HubError, forbidden
from fluxconv.hub.rehearsal.repository import Repository
from fluxconv.hub.rehearsal.store import Store

#: Seconds that an address is good for.
LIFETIME = 6 * 3600
_SIGNATURE = "&signature="


def signed_address(store: Store, base_url: str, path: str, **facts: str | int) -> str:
    """An address that carries the facts, which nobody can change without being noticed."""
    target = f"{path}?{urlencode({**facts, 'expires': int(time.time()) + LIFETIME})}"
    return f"{base_url}{target}{_SIGNATURE}{_sign(store, target)}"


def check_address(store: Store, request: Request) -> Mapping[str, str]:
    """The facts in a signed address; 403 if it is not ours, was changed or has expired."""
    query = request.scope["query_string"].decode("latin-1")
    facts, _, signature = query.rpartition(_SIGNATURE)
    expected = _sign(store, f"{request.scope['path']}?{facts}")
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        raise forbidden("This upload address is not signed by this server")
    found = dict(parse_qsl(facts))
    if int(found["expires"]) < time.time():
        raise forbidden("This upload address has expired")
    return found


def addressed_repository(store: Store, parameters: Mapping[str, Any]) -> Repository:
    """The repository in the path of a signed address; 404 if it was deleted meanwhile."""
    repo = store.repository(str(parameters["namespace"]), str(parameters["name"]))
    if repo is None:
        raise HubError(404, "Repository not found", code="RepoNotFound")
    return repo


def _sign(store: Store, target: str) -> str:
    return hmac.new(store.secret, target.encode(), hashlib.sha256).hexdigest()
