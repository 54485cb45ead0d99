"""An answer that stops in the middle and does not go on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.actions.body import after_bytes
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class StalledBody(Action):
    """Send the headers and some bytes of the body, then nothing for ``seconds``, then close."""

    do: Literal["stalled-body"] = "stalled-body"
    after_bytes: int = Field(10, ge=0)
    seconds: float = Field(3600, gt=0)

    async def perform(self, exchange: Exchange) -> None:
        """Ends at once when the client gives up."""

        async def stall() -> None:
            await exchange.connection.wait(self.seconds)
            await exchange.connection.hang_up()

        await exchange.carry_out(send=after_bytes(exchange, self.after_bytes, stall))
