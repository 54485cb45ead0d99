"""The table of pages, and what is the same for all of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.pages.access import Access
from fluxconv.hub.rehearsal.store import Store

#: A run as it stands, as `fluxconv status --json` prints it.
Look = Callable[[], Mapping[str, Any]]

_LOG = logging.getLogger("fluxconv.hub.rehearsal")
# A form of ours holds a token and an address.
_FORM_LIMIT = 1 << 13
_TYPES = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


class Page(NamedTuple):
    """One row of the table; `view` is a name in `views.py`."""

    method: str
    path: str
    view: str


_REPO = "/{namespace}/{name}"
# No account is called `-`, so what stands below it can be no repository.
_OURS = "/-"

PAGES = (
    Page("GET", "/", "index"),
    Page("POST", _OURS + "/sign-in", "sign_in"),
    Page("POST", _OURS + "/look", "look_as"),
    Page("GET", _OURS + "/run", "run"),
    Page("GET", _OURS + "/file" + _REPO + "/{revision}/{path:path}", "content"),
    Page("GET", "/collections" + _REPO, "collection"),
    Page("GET", _REPO + "/tree/{revision}", "files"),
    Page("GET", _REPO + "/tree/{revision}/{path:path}", "files"),
    Page("GET", _REPO + "/blob/{revision}/{path:path}", "file"),
    Page("GET", _REPO + "/commits/{revision}", "commits"),
    Page("GET", _REPO + "/commit/{revision}", "commit"),
    Page("GET", _REPO + "/discussions", "conversations"),
    Page("GET", _REPO + "/discussions/{number}", "conversation"),
    Page("POST", _OURS + "/ask" + _REPO, "ask_access"),
    Page("GET", "/{namespace}", "account"),
    Page("GET", _REPO, "repository"),
)


def routes(store: Store, run: Look | None = None) -> list[Route]:
    """The routes of all pages; they come after those of the API. `run` looks at the run of a
    recipe that one of them shows."""
    access = Access(store.accounts, store.secret)
    static = Route(_OURS + "/styles/{file}", _static, methods=["GET"])
    return [
        static,
        *(_PageRoute(p.path, _view(store, access, p.view, run), p.method) for p in PAGES),
    ]


class _PageRoute(Route):
    """A route that leaves alone what is the API's to answer, or to refuse."""

    def __init__(
        self, path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str
    ) -> None:
        super().__init__(path, endpoint, methods=[method])

    def matches(self, scope: Any) -> tuple[Match, Any]:
        match, child = super().matches(scope)
        # A page's address with another method would else answer 405 in place of the API's 404.
        if match is not Match.FULL or scope["path"].startswith(("/api/", "/_")):
            return Match.NONE, {}
        return match, child


def _view(
    store: Store, access: Access, name: str, run: Look | None
) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            body = await _form(request)
        except ClientDisconnect:
            return Response(status_code=499)
        return await run_in_threadpool(_answer, store, request, body, access, name, run)

    return handle


async def _form(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _FORM_LIMIT:
            return b""
    return body


def _answer(
    store: Store, request: Request, body: bytes, access: Access, name: str, run: Look | None
) -> Response:
    # Templates, Markdown and highlighting are loaded when somebody looks: the server starts at
    # once, and a push needs none of them.
    from fluxconv.hub.rehearsal.pages.views import VIEWS
    from fluxconv.hub.rehearsal.pages.visit import Visit

    visit = Visit(store, request, body, access, run)
    try:
        return VIEWS[name](visit)
    except HubError as error:
        return visit.page("error", status=_status(error), error=error)
    except Exception:  # noqa: BLE001 - the last line of defence
        _LOG.exception("%s %s", request.method, request.url.path)
        broken = HubError(500, "The rehearsal Hub failed to make this page; its output says why")
        return visit.page("error", status=500, error=broken)


def _status(error: HubError) -> int:
    # A 401 is for clients with tokens; a page that is not there for you is not there.
    return 404 if error.status == 401 and error.code != "GatedRepo" else error.status


async def _static(request: Request) -> Response:
    content = _styles().get(request.path_params["file"])
    if content is None:
        return HubError(404, "No such file").response()
    media_type, data = content
    return Response(data, media_type=media_type, headers={"X-Content-Type-Options": "nosniff"})


def _styles() -> Mapping[str, tuple[str, bytes]]:
    """Everything in `styles/`, by name; a name that is not there leads nowhere."""
    folder = Path(__file__).parent / "styles"
    return {
        path.name: (_TYPES[path.suffix], path.read_bytes())
        for path in folder.iterdir()
        if path.suffix in _TYPES
    }
