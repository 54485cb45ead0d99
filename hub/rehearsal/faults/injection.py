"""The faults at work: they see every request first, and every request is put on record."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluxconv.hub.rehearsal.accounts import token_in
from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.faults.actions import ExpiredToken
from fluxconv.hub.rehearsal.faults.exchange import Exchange, hub_reply, plain_reply
from fluxconv.hub.rehearsal.faults.script import Fault
from fluxconv.hub.rehearsal.store import Store

_LOG = logging.getLogger("fluxconv.hub.rehearsal")

# Requests on record; older ones are forgotten.
_RECORDS = 20_000
#: Where requests land that followed a redirect to "another host".
ELSEWHERE = "/_elsewhere"


@dataclass
class Rule:
    """A fault and how often it was met."""

    id: int
    fault: Fault
    seen: int = 0
    hits: int = 0


@dataclass
class Record:
    """One request; no token is in it, only whether one came and what it is called.

    ``received`` counts the bytes of its body; ``status`` is None if no answer was begun.
    """

    method: str
    target: str
    host: str
    authorized: bool
    token: str | None
    received: int = 0
    status: int | None = None
    fault: str | None = None


@dataclass
class Faults:
    """All faults in force, the record of requests, and the tokens that have expired.

    Used in the server's event loop only, so it needs no lock.
    """

    rules: list[Rule] = field(default_factory=list)
    records: deque[Record] = field(default_factory=lambda: deque(maxlen=_RECORDS))
    _expired: set[str] = field(default_factory=set)
    _last_id: int = 0

    def add(self, faults: Iterable[Fault]) -> list[int]:
        """Put faults in force, after those already there; returns their ids."""
        rules = [Rule(self._last_id + n, fault) for n, fault in enumerate(faults, 1)]
        self._last_id += len(rules)
        self.rules += rules
        return [rule.id for rule in rules]

    def remove(self, ids: Sequence[int] | None) -> None:
        """Lift these faults, or all."""
        self.rules = [r for r in self.rules if ids is not None and r.id not in ids]
        if not any(isinstance(rule.fault.action, ExpiredToken) for rule in self.rules):
            self._expired.clear()

    def choose(self, method: str, path: str, query: str) -> Rule | None:
        """The fault that this request meets; it is counted."""
        chosen = None
        for rule in self.rules:
            if rule.fault.matches(method, path, query):
                rule.seen += 1
                if chosen is None and rule.fault.is_turn(rule.seen):
                    chosen = rule
                    rule.hits += 1
        return chosen

    def describe(self) -> list[dict[str, Any]]:
        """Every fault with its counts, as JSON."""
        return [{**asdict(r), "fault": r.fault.model_dump(mode="json")} for r in self.rules]

    def expire(self, authorization: str) -> None:
        """Refuse this token from now on."""
        self._expired.add(token_in(authorization))

    def is_expired(self, authorization: str | None) -> bool:
        """Whether this token was made to expire."""
        return authorization is not None and token_in(authorization) in self._expired

    async def refuse_expired(self, exchange: Exchange) -> None:
        """The Hub's answer to a token that has expired."""
        await exchange.read_request()
        await exchange.answer(hub_reply(HubError(401, "User Access Token is expired")))


class Injection:
    """ASGI middleware: each request goes to its fault, or on to the application."""

    def __init__(self, app: ASGIApp, store: Store, faults: Faults, admin: ASGIApp) -> None:
        self._app = app
        self._store = store
        self._faults = faults
        self._admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = scope["raw_path"].decode("latin-1")
        if path.startswith("/_admin/"):
            await self._admin(scope, receive, send)
            return
        record = self._record(scope, path)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        async def counted() -> Message:
            message = await receive()
            record.received += len(message.get("body", b""))
            return message

        exchange = Exchange(self._app, scope, counted, noted, self._store, self._faults)
        query = scope["query_string"].decode("latin-1")
        rule = self._faults.choose(scope["method"], path, query)
        if path.startswith(ELSEWHERE):
            await exchange.answer(plain_reply(200, b"{}", {"content-type": "application/json"}))
        elif rule is not None:
            record.fault = rule.fault.action.do
            await _perform(rule, exchange)
        elif self._faults.is_expired(exchange.headers.get("authorization")):
            await self._faults.refuse_expired(exchange)
        else:
            await exchange.carry_out()

    def _record(self, scope: Scope, path: str) -> Record:
        headers = Headers(scope=scope)
        authorization = headers.get("authorization")
        query = scope["query_string"].decode("latin-1")
        record = Record(
            method=scope["method"],
            target=f"{path}?{query}" if query else path,
            host=headers.get("host", ""),
            authorized=authorization is not None,
            token=authorization and self._store.accounts.token_name(authorization),
        )
        self._faults.records.append(record)
        return record


async def _perform(rule: Rule, exchange: Exchange) -> None:
    try:
        await rule.fault.action.perform(exchange)
    except ClientDisconnect:
        pass  # the action itself, or the client, hung up
    except LookupError as error:
        _LOG.warning("%s: %s", rule.fault.match, error)
        message = f"The fault {rule.fault.action.do} does not fit this request: {error}"
        await exchange.answer(hub_reply(HubError(500, message)))
