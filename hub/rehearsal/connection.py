"""The TCP connection behind a request: what a fault on the wire needs, and ASGI hides."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_KEY = "connection"
# Seconds that a client may take to read what is still on its way when we hang up.
_FLUSH = 5.0
# Linger on, for no time: closing then sends RST and forgets what is unsent.
_RESET = struct.pack("ii", 1, 0)


class Connection:
    """One connection; it may carry several requests."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.closed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether neither side has hung up, as far as we know."""
        return not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send raw bytes past the HTTP implementation; the connection is of no use afterwards."""
        self._transport.write(data)

    async def hang_up(self) -> None:
        """Send what is on its way, then close in an orderly manner (FIN)."""
        self._transport.close()
        try:
            await asyncio.wait_for(self.closed.wait(), _FLUSH)
        except TimeoutError:
            await self.reset()

    async def reset(self) -> None:
        """Close as a broken line does (RST): what is on its way is lost, for both sides."""
        if self.closed.is_set():
            return  # the client was first, and asyncio has closed the socket
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, _RESET
        )
        self._transport.abort()
        await self.closed.wait()

    async def wait(self, seconds: float) -> None:
        """Wait so long, or until the connection is closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.closed.wait(), seconds)


class Protocol(H11Protocol):
    """uvicorn's protocol, with the connection handed on in each request's ``scope``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection: uvicorn copies ``app_state`` into each scope."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, _KEY: Connection(transport)}

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits for the end."""
        super().connection_lost(exc)
        self.app_state[_KEY].closed.set()


def connection_of(scope: Scope) -> Connection:
    """The connection that a request came by; only requests to a real server have one."""
    found: Connection = scope["state"][_KEY]
    return found
