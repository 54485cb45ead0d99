"""The rehearsal Hub as an ASGI application: a table of routes around a ``Store``.

The seam for faults is ``middleware``: what is passed there sees every request first and every
response last, in the undecoded form in which the client sent it, and may delay, cut, replace or
refuse it without any endpoint knowing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluxconv.hub.rehearsal import (
    access,
    collections,
    commits,
    discussions,
    history,
    lfs,
    metadata,
    pages,
    parts,
    repos,
    resolve,
    tree,
    xet,
)
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError, repo_not_found
from fluxconv.hub.rehearsal.store import Store

_LOG = logging.getLogger("fluxconv.hub.rehearsal")

Handler = Callable[[Call], Response]

# Repositories of other kinds, and those of the old times that have no namespace.
_ELSEWHERE = re.compile(
    r"/api/(?:datasets|spaces|kernels)/|/api/models/[^/]+$"
    r"|/(?:datasets|spaces|kernels)/.+/resolve/|/[^/]+/resolve/"
)

# Bodies below this stay in memory.
_SPOOL = 1 << 20
_JSON_LIMIT = 32 << 20
# A commit carries its small files; the client splits above 100 MiB of them.
_COMMIT_LIMIT = 1 << 30


class Endpoint(NamedTuple):
    """One row of the table."""

    method: str
    path: str
    handler: Handler
    body_limit: int = _JSON_LIMIT


_MODEL = "/api/models/{namespace}/{name}"
_DISCUSSION = _MODEL + "/discussions/{number}"
_ACCESS = _MODEL + "/user-access-request"
_REPO = "/{namespace}/{name}"
_LFS = _REPO + ".git/info/lfs/objects"
_CONTENT = "/_lfs/{namespace}/{name}/{oid}"
_COLLECTION = "/api/collections/{namespace}/{slug}"

ENDPOINTS = (
    Endpoint("GET", "/api/whoami-v2", repos.whoami),
    Endpoint("POST", "/api/validate-yaml", metadata.validate_yaml),
    Endpoint("POST", "/api/repos/create", repos.create),
    Endpoint("DELETE", "/api/repos/delete", repos.delete),
    Endpoint("GET", "/api/models", repos.list_models),
    Endpoint("GET", _MODEL, repos.info),
    Endpoint("GET", _MODEL + "/revision/{revision}", repos.info),
    Endpoint("PUT", _MODEL + "/settings", repos.settings),
    Endpoint("GET", _MODEL + "/auth-check", repos.auth_check),
    Endpoint("GET", _MODEL + "/auth-check/write", repos.auth_check_write),
    Endpoint("POST", _MODEL + "/preupload/{revision}", commits.preupload),
    Endpoint("POST", _MODEL + "/commit/{revision}", commits.create, _COMMIT_LIMIT),
    Endpoint("GET", _MODEL + "/xet-write-token/{revision}", xet.write_token),
    Endpoint("GET", _MODEL + "/commits/{revision}", history.list_commits),
    Endpoint("GET", _MODEL + "/refs", history.list_refs),
    Endpoint("POST", _MODEL + "/branch/{ref}", history.create_branch),
    Endpoint("DELETE", _MODEL + "/branch/{ref}", history.delete_branch),
    Endpoint("POST", _MODEL + "/tag/{ref}", history.create_tag),
    Endpoint("DELETE", _MODEL + "/tag/{ref}", history.delete_tag),
    Endpoint("GET", _MODEL + "/tree/{revision}", tree.list_tree),
    Endpoint("GET", _MODEL + "/tree/{revision}/{path:path}", tree.list_tree),
    Endpoint("POST", _MODEL + "/paths-info/{revision}", tree.paths_info),
    Endpoint("GET", _MODEL + "/discussions", discussions.list_all),
    Endpoint("POST", _MODEL + "/discussions", discussions.create),
    Endpoint("GET", _DISCUSSION, discussions.show),
    Endpoint("POST", _DISCUSSION + "/comment", discussions.comment),
    Endpoint("POST", _DISCUSSION + "/title", discussions.rename),
    Endpoint("POST", _DISCUSSION + "/status", discussions.change_status),
    Endpoint("POST", _DISCUSSION + "/merge", discussions.merge),
    Endpoint("GET", _ACCESS + "/{status}", access.list_requests),
    Endpoint("POST", _ACCESS + "/handle", access.handle),
    Endpoint("POST", _ACCESS + "/grant", access.grant),
    Endpoint("POST", _REPO + "/ask-access", access.ask),
    Endpoint("GET", "/api/collections", collections.list_all),
    Endpoint("POST", "/api/collections", collections.create),
    Endpoint("GET", _COLLECTION, collections.show),
    Endpoint("PATCH", _COLLECTION, collections.update),
    Endpoint("DELETE", _COLLECTION, collections.delete),
    Endpoint("POST", _COLLECTION + "/items", collections.add_item),
    Endpoint("PATCH", _COLLECTION + "/items/{item}", collections.update_item),
    Endpoint("DELETE", _COLLECTION + "/items/{item}", collections.delete_item),
    Endpoint("POST", _LFS + "/batch", lfs.batch),
    Endpoint("POST", _LFS + "/verify", lfs.verify),
    Endpoint("POST", _CONTENT + "/complete", parts.complete),
    Endpoint("GET", _REPO + "/resolve/{revision}/{path:path}", resolve.resolve),
    Endpoint("GET", _REPO + "/raw/{revision}/{path:path}", resolve.raw),
)


def create_app(
    directory: Path | Store,
    *,
    middleware: Sequence[Middleware] = (),
    run: Callable[[], Mapping[str, Any]] | None = None,
) -> Starlette:
    """The application for a folder (opened here) or for a store that is already open. `run` looks
    at the run of a recipe that a page shows."""
    store = directory if isinstance(directory, Store) else Store(directory)
    for repo in store.repositories():
        xet.sweep(store, repo)
        parts.sweep(store, repo)

    async def upload(request: Request) -> Response:
        return await _answer(request, lambda: lfs.upload(store, request))

    async def upload_part(request: Request) -> Response:
        return await _answer(request, lambda: parts.upload(store, request))

    routes = [Route(e.path, _route(store, e), methods=[e.method]) for e in ENDPOINTS]
    routes.append(Route(_CONTENT, upload, methods=["PUT"]))
    routes.append(Route(_CONTENT + "/part/{number:int}", upload_part, methods=["PUT"]))
    routes += pages.routes(store, run)
    app = Starlette(
        routes=routes,
        middleware=[*middleware, Middleware(_UndecodedPath), Middleware(_RequestId)],
        exception_handlers={HTTPException: _no_such_page},
    )
    # A redirect to the same path with or without a slash is not the Hub's way.
    app.router.redirect_slashes = False
    app.state.store = store
    return app


def _route(store: Store, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        async def work() -> Response:
            # Unlinked while open: a crash leaves nothing behind.
            with tempfile.SpooledTemporaryFile(_SPOOL, dir=str(store.disk.tmp)) as body:
                size = 0
                async for piece in request.stream():
                    size += len(piece)
                    if size > endpoint.body_limit:
                        raise HubError(413, "The request body is too large")
                    body.write(piece)
                body.seek(0)
                return await run_in_threadpool(endpoint.handler, Call(store, request, body))

        return await _answer(request, work)

    return handle


async def _answer(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """Run an endpoint; whatever goes wrong, the client gets an answer in the Hub's form."""
    try:
        return await work()
    except HubError as error:
        return error.response()
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads this; nginx logs the same
    except OSError as error:
        _LOG.exception("%s %s", request.method, request.url.path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return HubError(507, "No space is left where the rehearsal Hub keeps files").response()
        return HubError(500, "Internal error of the rehearsal Hub").response()
    except Exception:  # noqa: BLE001 - the last line of defence
        _LOG.exception("%s %s", request.method, request.url.path)
        return HubError(500, "Internal error of the rehearsal Hub").response()


def _no_such_page(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return HubError(405, "Method not allowed").response()
    if _ELSEWHERE.match(request.scope["path"]):
        return repo_not_found(anonymous=False).response()
    return HubError(404, "Sorry, the rehearsal Hub does not have this page").response()


class _UndecodedPath:
    """Match routes on the path as it was sent: ``feature%2Fx`` is one name, not two segments."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["raw_path"].decode("latin-1")
        await self.app(scope, receive, send)


class _RequestId:
    """Name every answer, as the Hub does: the client shows the name in its errors."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = secrets.token_hex(8)
            await send(message)

        with contextlib.suppress(ClientDisconnect):
            await self.app(scope, receive, named)
