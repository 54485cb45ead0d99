"""A line that breaks while the client sends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.actions.upload import read_bytes
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class ResetUpload(Action):
    """Read some bytes of the request's body, then reset the connection (RST)."""

    do: Literal["reset-upload"] = "reset-upload"
    after_bytes: int = Field(1 << 16, ge=0)

    async def perform(self, exchange: Exchange) -> None:
        """Nothing of what was sent is kept."""
        await read_bytes(exchange, self.after_bytes)
        await exchange.connection.reset()
