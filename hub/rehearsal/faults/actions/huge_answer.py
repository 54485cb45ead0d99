"""An answer larger than any memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.exchange import Exchange

_ENTRY = b'{"type": "file", "path": "%s", "size": 1}, ' % (b"x" * 80)
_PIECE = _ENTRY * ((1 << 20) // len(_ENTRY))
# The argument by which zlib writes gzip.
_GZIP = 16 + zlib.MAX_WBITS


class HugeAnswer(Action):
    """Answer with a JSON array of ``size`` bytes, made while it is sent.

    With ``announced`` its length is in the headers; without, it comes in chunks. With ``gzip`` it
    takes some thousandths of that on the wire, and all of it once it is unpacked.
    """

    do: Literal["huge-answer"] = "huge-answer"
    size: int = Field(10_000_000_000, gt=2)
    announced: bool = False
    gzip: bool = False

    async def perform(self, exchange: Exchange) -> None:
        """Ends when the client gives up; nothing is carried out."""
        await exchange.read_request()
        headers = [(b"content-type", b"application/json")]
        if self.gzip:
            headers.append((b"content-encoding", b"gzip"))
        elif self.announced:
            headers.append((b"content-length", b"%d" % self.size))
        await exchange.start(200, tuple(headers))
        packer = zlib.compressobj(wbits=_GZIP) if self.gzip else None
        for piece in _pieces(self.size):
            if not exchange.connection.is_open:
                return
            await exchange.piece(packer.compress(piece) if packer else piece)
        await exchange.send(
            {"type": "http.response.body", "body": packer.flush() if packer else b""}
        )


def _pieces(size: int) -> Iterator[bytes]:
    yield b"["
    left = size - 2
    while left > len(_PIECE):
        left -= len(_PIECE)
        yield _PIECE
    # Spaces at the end keep the JSON whole, whatever the size.
    yield (b"null" if left >= 4 else b"").ljust(left)
    yield b"]"
