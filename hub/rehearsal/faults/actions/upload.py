"""What the faults in the middle of a request's body have in common."""

from __future__ import annotations

from fluxconv.hub.rehearsal.faults.exchange import Exchange


async def read_bytes(exchange: Exchange, count: int) -> None:
    """Take in ``count`` bytes of what the client sends (or all, if it is less)."""
    more = True
    while more and count > 0:
        message = await exchange.receive()
        count -= len(message.get("body", b""))
        more = message.get("more_body", False)
