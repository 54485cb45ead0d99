"""Headers that never end."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange

_BEGINNING = b"HTTP/1.1 200 OK\r\nX-Slow: "


class SlowHeaders(Action):
    """Send the headers of an answer, one byte every ``seconds``, without an end."""

    do: Literal["slow-headers"] = "slow-headers"
    seconds: float = Field(1.0, gt=0)

    async def perform(self, exchange: Exchange) -> None:
        """Ends when the client gives up; nothing is carried out."""
        await exchange.read_request()
        connection = exchange.connection
        for byte in itertools.chain(_BEGINNING, itertools.repeat(ord("x"))):
            if not connection.is_open:
                break
            connection.write(bytes([byte]))
            await connection.wait(self.seconds)
        await connection.closed.wait()
