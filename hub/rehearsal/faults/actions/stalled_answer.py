"""Silence where an answer should be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class StalledAnswer(Action):
    """Take the request and stay silent for ``seconds``, then close.

    With ``applied`` it is carried out first.
    """

    do: Literal["stalled-answer"] = "stalled-answer"
    seconds: float = Field(3600, gt=0)
    applied: bool = False

    async def perform(self, exchange: Exchange) -> None:
        """Ends at once when the client gives up."""
        await (exchange.carry_out_silently() if self.applied else exchange.read_request())
        await exchange.connection.wait(self.seconds)
        await exchange.connection.hang_up()
