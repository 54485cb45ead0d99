"""Taking in a large body: piece by piece onto the disk, never as a whole in memory."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from fluxconv.hub.rehearsal.blobs import CHUNK, BlobWriter
from fluxconv.hub.rehearsal.errors import bad_request


async def receive(request: Request, writer: BlobWriter, size: int) -> None:
    """Write the request's body, which must have exactly this size; else 400."""
    pieces, waiting = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        waiting += len(piece)
        if writer.size + waiting > size:
            raise bad_request(f"Expected {size} bytes, got more")
        # The server hands over 64 KiB at a time: a worker thread for each would cost more than
        # hashing and writing does.
        if waiting >= CHUNK:
            await run_in_threadpool(writer.write, b"".join(pieces))
            pieces, waiting = [], 0
    await run_in_threadpool(writer.write, b"".join(pieces))
    if writer.size != size:
        raise bad_request(f"Expected {size} bytes, got {writer.size}")
