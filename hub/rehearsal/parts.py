"""A large content in parts: one address for each, and one that puts them together.

The answer to the batch request holds ``chunk_size`` and the parts' addresses by number among the
``header`` of the upload; the client sends the parts in order, collects their ETags, and posts both
to ``href``. A part lies in ``uploads/NS/NAME/<upload>/`` under its number and its ETag, so one
that is sent twice, even at the same time, harms nothing.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.addresses import (
    LIFETIME,
    addressed_repository,
    check_address,
    signed_address,
)
from fluxconv.hub.rehearsal.blobs import CHUNK, BlobWriter
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import bad_request
from fluxconv.hub.rehearsal.names import is_sha256
from fluxconv.hub.rehearsal.receiving import receive
from fluxconv.hub.rehearsal.repository import Repository
from fluxconv.hub.rehearsal.store import Store

_MAX_PARTS = 10_000


def instructions(call: Call, repo: Repository, oid: str, size: int) -> dict[str, Any]:
    """The ``upload`` action for a content of this size."""
    part_size = max(call.store.limits.part_size, -(-size // _MAX_PARTS))
    count = -(-size // part_size)
    identifier = secrets.token_hex(16)
    path = f"/_lfs/{repo.id}/{oid}"

    def address(name: str, **facts: int) -> str:
        where = f"{path}/{name}"
        return signed_address(call.store, call.base_url, where, upload=identifier, **facts)

    header = {"chunk_size": str(part_size)}
    for number in range(1, count + 1):
        length = min(part_size, size - (number - 1) * part_size)
        header[f"{number:05}"] = address(f"part/{number}", size=length)
    return {"href": address("complete", size=size, count=count), "header": header}


async def upload(store: Store, request: Request) -> Response:
    """``PUT /_lfs/NS/NAME/OID/part/N``: keep a part; its ETag proves it at the end."""
    facts = await run_in_threadpool(check_address, store, request)
    repo = await run_in_threadpool(addressed_repository, store, request.path_params)
    number = int(request.path_params["number"])
    with store.blobs.writer() as writer:
        await receive(request, writer, int(facts["size"]))
        etag = writer.sha256
        place = _part(store.uploads_folder(repo) / facts["upload"], number, etag)
        # The whole is hashed at the end, so a part that a crash damaged is noticed there.
        await run_in_threadpool(writer.keep_at, place, durable=False)
    return Response(status_code=200, headers={"ETag": f'"{etag}"'})


def complete(call: Call) -> Response:
    """``POST /_lfs/NS/NAME/OID/complete``: the parts become the content."""
    facts = check_address(call.store, call.request)
    repo = addressed_repository(call.store, call.request.path_params)
    oid, size = str(call.request.path_params["oid"]), int(facts["size"])
    if repo.has_object(oid) and call.store.blobs.size(oid) == size:
        return JSONResponse({})  # asked again: the reply to the first time was lost
    folder = call.store.uploads_folder(repo) / facts["upload"]
    paths = _announced(call, folder, int(facts["count"]))
    with call.store.blobs.writer() as writer:
        for path in paths:
            _append(writer, path)
        if (writer.sha256, writer.size) != (oid, size):
            raise bad_request(f"The parts' sha256 is {writer.sha256}, not {oid}")
        writer.keep()
    repo.grant_object(oid)
    call.store.disk.delete(folder)
    return JSONResponse({})


def sweep(store: Store, repo: Repository) -> None:
    """Forget uploads whose addresses have expired."""
    folder = store.uploads_folder(repo)
    for path in [*folder.iterdir()] if folder.is_dir() else []:
        if path.stat().st_mtime < time.time() - LIFETIME:
            store.disk.delete(path)


def _announced(call: Call, folder: Path, count: int) -> list[Path]:
    listed = call.json().objects("parts", limit=_MAX_PARTS)
    if [item.number("partNumber") for item in listed] != [*range(1, count + 1)]:
        raise bad_request(f"InvalidPartOrder: list the parts 1 to {count}, each once")
    paths = []
    for number, item in enumerate(listed, 1):
        etag = item.required_text("etag").strip('"')
        path = _part(folder, number, etag)
        if not is_sha256(etag) or not path.is_file():
            raise bad_request(f"InvalidPart: part {number} was not uploaded with this ETag")
        paths.append(path)
    return paths


def _append(writer: BlobWriter, path: Path) -> None:
    with path.open("rb") as part:
        while piece := part.read(CHUNK):
            writer.write(piece)


def _part(folder: Path, number: int, etag: str) -> Path:
    return folder / f"{number:05}.{etag}"
