"""One request in the hands of a fault: what a fault can do with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluxconv.hub.rehearsal.connection import Connection, connection_of
from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.repository import Repository
from fluxconv.hub.rehearsal.store import Store

if TYPE_CHECKING:
    from fluxconv.hub.rehearsal.faults.injection import Faults

_REPOSITORY = re.compile(r"(?:/api/models|/_lfs)?/([^/]+)/([^/]+?)(?:\.git)?(?:/|$)")
# Of an answer that is to be changed, more than this is not held in memory.
_KEPT = 32 << 20


@dataclass(frozen=True)
class Reply:
    """A whole answer, held back."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def with_header(self, name: str, value: str) -> Reply:
        """The same with one header set."""
        key = name.lower().encode("latin-1")
        others = tuple(item for item in self.headers if item[0].lower() != key)
        return replace(self, headers=(*others, (key, value.encode("latin-1"))))

    def with_body(self, body: bytes) -> Reply:
        """The same with another body."""
        return replace(self.with_header("content-length", str(len(body))), body=body)


@dataclass(frozen=True)
class Exchange:
    """A request, the application that would answer it, and the connection below."""

    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send
    store: Store
    faults: Faults

    @property
    def connection(self) -> Connection:
        """Where the request came from."""
        return connection_of(self.scope)

    @property
    def path(self) -> str:
        """The path as it was sent."""
        return str(self.scope["raw_path"].decode("latin-1"))

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        return Headers(scope=self.scope)

    def repository(self) -> Repository:
        """The repository that the path names; a `LookupError` if there is none."""
        found = _REPOSITORY.match(self.path)
        names = [unquote(part) for part in found.groups()] if found else ["", ""]
        repo = self.store.repository(*names)
        if repo is None:
            raise LookupError(f"{self.path} names no repository")
        return repo

    # Letting the request through ----------------------------------------------------------------

    async def carry_out(self, *, receive: Receive | None = None, send: Send | None = None) -> None:
        """Do what the request asks for, and answer it."""
        await self.app(self.scope, receive or self.receive, send or self.send)

    async def carry_out_silently(self) -> Reply:
        """Do what the request asks for; nothing is sent yet. A long body is cut."""
        status, headers, body = 500, (), bytearray()

        async def hold(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], tuple(message["headers"])
            elif len(body) < _KEPT:
                body.extend(message.get("body", b""))

        await self.app(self.scope, self.receive, hold)
        return Reply(status, headers, bytes(body))

    async def read_request(self) -> None:
        """Take in what the client sends, and forget it."""
        while (await self.receive()).get("more_body"):
            pass

    # Answering ----------------------------------------------------------------------------------

    async def answer(self, reply: Reply) -> None:
        """Send a whole answer."""
        await self.start(reply.status, reply.headers)
        await self.send({"type": "http.response.body", "body": reply.body})

    async def start(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """Send the status and the headers of an answer."""
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers]})

    async def piece(self, body: bytes) -> None:
        """Send a part of the body; more follows."""
        await self.send({"type": "http.response.body", "body": body, "more_body": True})


def plain_reply(status: int, body: bytes, headers: Mapping[str, str]) -> Reply:
    """An answer of our own making."""
    pairs = tuple((k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items())
    return Reply(status, pairs, b"").with_body(body)


def hub_reply(error: HubError, headers: Mapping[str, str] | None = None) -> Reply:
    """A refusal in the Hub's own form."""
    response = error.response()
    reply = Reply(response.status_code, tuple(response.raw_headers), bytes(response.body))
    for name, value in (headers or {}).items():
        reply = reply.with_header(name, value)
    return reply
