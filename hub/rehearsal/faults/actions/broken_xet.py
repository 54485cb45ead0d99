"""A content store that cannot be written: how a Xet upload fails."""

from __future__ import annotations

import json
from typing import Literal

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange


class BrokenXet(Action):
    """Answer a request for a Xet token with a store in which nothing can be written."""

    do: Literal["broken-xet"] = "broken-xet"

    async def perform(self, exchange: Exchange) -> None:
        """The store would have to be inside a file, which nobody can make."""
        reply = await exchange.carry_out_silently()
        address = f"local://{exchange.store.directory}/hub.lock/store"
        data = {**json.loads(reply.body), "casUrl": address}
        changed = reply.with_body(json.dumps(data).encode())
        await exchange.answer(changed.with_header("x-xet-cas-url", address))
