"""A server that stops taking what the client sends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.actions.upload import read_bytes
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class StalledUpload(Action):
    """Read some bytes of the request's body, then no more for ``seconds``, then close.

    While it lasts the client stands in the middle of its upload.
    """

    do: Literal["stalled-upload"] = "stalled-upload"
    after_bytes: int = Field(1 << 16, ge=0)
    # Whoever does not read cannot see that the other side has gone: not for ever by default.
    seconds: float = Field(300, gt=0)

    async def perform(self, exchange: Exchange) -> None:
        """Nothing of what was sent is kept."""
        await read_bytes(exchange, self.after_bytes)
        await exchange.connection.wait(self.seconds)
        await exchange.connection.reset()
