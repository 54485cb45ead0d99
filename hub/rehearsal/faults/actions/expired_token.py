"""A token that is not accepted any more."""

from __future__ import annotations

from typing import Literal

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class ExpiredToken(Action):
    """From this request on its token is refused (401), whatever is asked for.

    Signed upload addresses carry no token and go on working, as on the Hub. Removing the fault
    makes the token good again.
    """

    do: Literal["expired-token"] = "expired-token"

    async def perform(self, exchange: Exchange) -> None:
        """A request without a token is let through."""
        token = exchange.headers.get("authorization")
        if token is None:
            await exchange.carry_out()
        else:
            exchange.faults.expire(token)
            await exchange.faults.refuse_expired(exchange)
