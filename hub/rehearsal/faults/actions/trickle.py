"""An answer that never stalls and never ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.types import Message

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class Trickle(Action):
    """Send the body one byte every ``seconds``: no wait between two bytes looks long."""

    do: Literal["trickle"] = "trickle"
    seconds: float = Field(1.0, gt=0)

    async def perform(self, exchange: Exchange) -> None:
        """Ends when the body does, or when the client gives up."""
        connection = exchange.connection

        async def drip(message: Message) -> None:
            body = message.get("body", b"")
            for position in range(len(body) - 1):
                await exchange.piece(body[position : position + 1])
                await connection.wait(self.seconds)
                if not connection.is_open:
                    raise ClientDisconnect
            await exchange.send({**message, "body": body[-1:]} if body else message)

        await exchange.carry_out(send=drip)
