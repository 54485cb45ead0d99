"""Sending the client elsewhere, to see what it takes along."""

from __future__ import annotations

from typing import Literal

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange, plain_reply


class Redirect(Action):
    """Redirect to ``to``; without it, to this server under its other name.

    ``localhost`` and ``127.0.0.1`` are different hosts to a client, and the same server answers
    at both: its record of requests then shows whether the token came along.
    """

    do: Literal["redirect"] = "redirect"
    to: str | None = None
    status: Literal[301, 302, 303, 307, 308] = 302

    async def perform(self, exchange: Exchange) -> None:
        """Nothing is carried out."""
        await exchange.read_request()
        await exchange.answer(
            plain_reply(self.status, b"", {"location": self.to or _other_name(exchange)})
        )


def _other_name(exchange: Exchange) -> str:
    name, _, port = exchange.headers.get("host", "").rpartition(":")
    other = "127.0.0.1" if name == "localhost" else "localhost"
    return f"http://{other}:{port}/_elsewhere{exchange.path}"
