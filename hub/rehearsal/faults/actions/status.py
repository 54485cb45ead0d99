"""An answer with another status: refusals, overload, quota."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange, hub_reply, plain_reply


class Status(Action):
    """Answer with this status instead of doing what was asked.

    With ``applied`` it is done nevertheless, as behind a gateway that gave up waiting. ``body``
    replaces the Hub's JSON, as from a proxy in between.
    """

    do: Literal["status"] = "status"
    status: int = Field(ge=200, le=599)
    message: str | None = None
    code: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None
    applied: bool = False

    async def perform(self, exchange: Exchange) -> None:
        """Read the request to its end, as servers do, then refuse it."""
        await (exchange.carry_out_silently() if self.applied else exchange.read_request())
        if self.body is None:
            message = self.message or HTTPStatus(self.status).phrase
            reply = hub_reply(HubError(self.status, message, code=self.code), self.headers)
        else:
            kind = {"content-type": "text/html; charset=utf-8"}
            reply = plain_reply(self.status, self.body.encode(), kind | self.headers)
        await exchange.answer(reply)
