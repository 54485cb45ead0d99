"""An answer that breaks off."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.actions.body import after_bytes
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class CutBody(Action):
    """Send some bytes of the body, then close the connection before its end."""

    do: Literal["cut-body"] = "cut-body"
    after_bytes: int = Field(10, ge=0)

    async def perform(self, exchange: Exchange) -> None:
        """What was sent arrives: the close is an orderly one."""
        cut = after_bytes(exchange, self.after_bytes, exchange.connection.hang_up)
        await exchange.carry_out(send=cut)
