"""An answer larger than any memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange

_ENTRY = b'{"type": "file", "path": "%s", "size": 1}, ' % (b"x" * 80)
_PIECE = _ENTRY * ((1 << 20) // len(_ENTRY))


class HugeAnswer(Action):
    """Answer with a JSON array of ``size`` bytes, made while it is sent.

    With ``announced`` its length is in the headers; without, it comes in chunks.
    """

    do: Literal["huge-answer"] = "huge-answer"
    size: int = Field(10_000_000_000, gt=0)
    announced: bool = False

    async def perform(self, exchange: Exchange) -> None:
        """Ends when the client gives up; nothing is carried out."""
        await exchange.read_request()
        length = ((b"content-length", b"%d" % self.size),) if self.announced else ()
        await exchange.start(200, ((b"content-type", b"application/json"), *length))
        await exchange.piece(b"[")
        left = self.size - 2
        while left > 0 and exchange.connection.is_open:
            # Spaces at the end keep the JSON whole, whatever the size.
            piece = _PIECE if left > len(_PIECE) else b"null".ljust(left)
            left -= len(piece)
            await exchange.piece(piece)
        await exchange.send({"type": "http.response.body", "body": b"]"})
