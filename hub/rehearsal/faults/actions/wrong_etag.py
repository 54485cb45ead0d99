"""An ETag that does not belong to the content."""

from __future__ import annotations

from typing import Literal

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class WrongEtag(Action):
    """Carry the request out and answer with this ETag instead of the right one."""

    do: Literal["wrong-etag"] = "wrong-etag"
    etag: str = '"00000000000000000000000000000000"'

    async def perform(self, exchange: Exchange) -> None:
        """Both names by which the Hub sends it are replaced."""
        reply = await exchange.carry_out_silently()
        for name in ("etag", "x-linked-etag"):
            if any(key.lower() == name.encode() for key, _ in reply.headers):
                reply = reply.with_header(name, self.etag)
        await exchange.answer(reply)
