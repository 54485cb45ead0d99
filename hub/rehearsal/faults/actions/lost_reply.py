"""The request is carried out, and the client never learns of it."""

from __future__ import annotations

from typing import Literal

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class LostReply(Action):
    """Do what was asked, then close without a word: with RST, or with FIN if ``orderly``."""

    do: Literal["lost-reply"] = "lost-reply"
    orderly: bool = False

    async def perform(self, exchange: Exchange) -> None:
        """Only once everything is on disk is the line cut."""
        await exchange.carry_out_silently()
        await (exchange.connection.hang_up() if self.orderly else exchange.connection.reset())
