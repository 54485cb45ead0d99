"""What the faults in the middle of an answer's body have in common: a counting `send`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from fluxconv.hub.rehearsal.faults.exchange import Exchange


def after_bytes(exchange: Exchange, count: int, then: Callable[[], Awaitable[None]]) -> Send:
    """Pass the answer on until ``count`` bytes of its body are sent, then do ``then``.

    An answer that is shorter stops before its last byte. Ends by raising `ClientDisconnect`, by
    which the application stops producing the rest.
    """
    sent = 0

    async def send(message: Message) -> None:
        nonlocal sent
        body = message.get("body", b"")
        last = message["type"] == "http.response.body" and not message.get("more_body")
        if message["type"] == "http.response.start" or (sent + len(body) <= count and not last):
            sent += len(body)
            await exchange.send(message)
            return
        passed = body[: min(count - sent, max(len(body) - 1, 0))]
        if passed:
            await exchange.piece(passed)
        await then()
        raise ClientDisconnect

    return send
