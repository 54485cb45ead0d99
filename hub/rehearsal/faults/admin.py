"""Setting faults while the server runs, and asking what was requested.

``GET|POST|DELETE /_admin/faults`` and ``GET|DELETE /_admin/requests``, for the owner's token only.
No fault acts here, and nothing of it is on record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fluxconv.hub.rehearsal.errors import HubError, bad_request, forbidden
from fluxconv.hub.rehearsal.faults.injection import Faults
from fluxconv.hub.rehearsal.faults.script import Script, ScriptError
from fluxconv.hub.rehearsal.store import Store

_LIMIT = 1 << 20


def admin_app(store: Store, faults: Faults) -> Starlette:
    """The application behind ``/_admin/``."""

    async def show(request: Request) -> Response:
        return JSONResponse(faults.describe())

    async def add(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _LIMIT:
                raise HubError(413, "The script is too large")
        try:
            script = Script.parse(bytes(body))
        except ScriptError as error:
            raise bad_request(str(error)) from None
        return JSONResponse(faults.add(script.faults))

    async def remove(request: Request) -> Response:
        ids = request.query_params.getlist("id")
        if not all(text.isascii() and text.isdigit() for text in ids):
            raise bad_request('"id" must be a whole number')
        faults.remove([int(text) for text in ids] or None)
        return JSONResponse({})

    async def requests(request: Request) -> Response:
        return JSONResponse([asdict(record) for record in faults.records])

    async def forget(request: Request) -> Response:
        faults.records.clear()
        return JSONResponse({})

    table = (
        ("GET", "/_admin/faults", show),
        ("POST", "/_admin/faults", add),
        ("DELETE", "/_admin/faults", remove),
        ("GET", "/_admin/requests", requests),
        ("DELETE", "/_admin/requests", forget),
    )
    return Starlette(
        routes=[
            Route(path, _for_owner(store, handler), methods=[method])
            for method, path, handler in table
        ]
    )


def _for_owner(
    store: Store, handler: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            accounts = store.accounts
            identity = accounts.identify(request.headers.get("authorization"))
            if identity.require_user() != accounts.owner() or identity.role != "write":
                raise forbidden("Faults are the owner's: send the owner's token with write role")
            return await handler(request)
        except HubError as error:
            return error.response()

    return guarded
