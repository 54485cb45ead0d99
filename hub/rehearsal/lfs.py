"""Large files over HTTP: the LFS batch endpoint and the upload it leads to.

The client asks for instructions (``batch``), sends each content to the address it was given, and
has it verified. That address carries no token, as on the Hub, where it leads to a storage
provider; it is signed instead, names one content of one repository, and expires.

A further way of transferring is one more entry in ``TRANSFERS``: its name and what the ``upload``
action then says.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.blobs import CHUNK, BlobWriter
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError, bad_request, forbidden
from fluxconv.hub.rehearsal.names import is_sha256
from fluxconv.hub.rehearsal.repository import Repository
from fluxconv.hub.rehearsal.store import Store

_MEDIA_TYPE = "application/vnd.git-lfs+json"
_LIFETIME = 6 * 3600
_MAX_OBJECTS = 1000


def batch(call: Call) -> Response:
    """``POST /NS/NAME.git/info/lfs/objects/batch``: how to upload each content."""
    repo = call.writable_repository()
    body = call.json()
    if body.text("operation") != "upload":
        raise HubError(422, "Only the LFS operation 'upload' is supported; download by URL")
    if body.text("hash_algo") not in (None, "sha256"):
        raise HubError(409, "Only sha256 is supported")
    offered = body.data.get("transfers") or ["basic"]
    transfer = next((name for name in TRANSFERS if name in offered), None)
    if transfer is None:
        raise HubError(422, f"None of the transfers is supported: use one of {[*TRANSFERS]}")
    objects = []
    for item in body.objects("objects", limit=_MAX_OBJECTS):
        oid, size = _content(item.text("oid"), item.number("size"))
        answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        if not has_content(call.store, repo, oid, size):
            verify = f"{call.base_url}/{repo.id}.git/info/lfs/objects/verify"
            answer["actions"] = {
                "upload": TRANSFERS[transfer](call, repo, oid, size),
                "verify": {"href": verify, "header": {}},
            }
        objects.append(answer)
    return JSONResponse({"transfer": transfer, "objects": objects}, media_type=_MEDIA_TYPE)


def verify(call: Call) -> Response:
    """``POST /NS/NAME.git/info/lfs/objects/verify``: did the content arrive?"""
    repo = call.writable_repository()
    body = call.json()
    oid, size = _content(body.text("oid"), body.number("size"))
    if not has_content(call.store, repo, oid, size):
        raise HubError(404, f"Object {oid} of {size} bytes was not uploaded")
    return JSONResponse({}, media_type=_MEDIA_TYPE)


async def upload(store: Store, request: Request) -> Response:
    """``PUT`` to a signed address: take the content in only if it is what was announced."""
    repo, oid, size = await run_in_threadpool(_check_address, store, request)
    with store.blobs.writer() as writer:
        await _receive(request, writer, size)
        if writer.size != size:
            raise bad_request(f"Expected {size} bytes, got {writer.size}")
        if writer.sha256 != oid:
            raise bad_request(f"The content's sha256 is {writer.sha256}, not {oid}")
        await run_in_threadpool(writer.keep)
    await run_in_threadpool(repo.grant_object, oid)
    return Response(status_code=200, headers={"ETag": f'"{oid}"'})


def has_content(store: Store, repo: Repository, oid: str, size: int) -> bool:
    """Whether the repository was given this content, in this size."""
    return repo.has_object(oid) and store.blobs.size(oid) == size


def _basic(call: Call, repo: Repository, oid: str, size: int) -> dict[str, Any]:
    expires = int(time.time()) + _LIFETIME
    signature = _sign(call.store, repo.id, oid, size, expires)
    query = urlencode({"size": size, "expires": expires, "signature": signature})
    return {"href": f"{call.base_url}/_lfs/{repo.id}/{oid}?{query}", "header": {}}


# What the client asks for, in our order of preference -> what the `upload` action says.
TRANSFERS: dict[str, Callable[[Call, Repository, str, int], dict[str, Any]]] = {"basic": _basic}


def _content(oid: str | None, size: int | None) -> tuple[str, int]:
    if oid is None or not is_sha256(oid) or size is None:
        raise HubError(422, "Each object needs an 'oid' (sha256) and a 'size'")
    return oid, size


def _check_address(store: Store, request: Request) -> tuple[Repository, str, int]:
    namespace, name, oid = (str(request.path_params[k]) for k in ("namespace", "name", "oid"))
    query = request.query_params
    try:
        size, expires = int(query.get("size", "")), int(query.get("expires", ""))
    except ValueError:
        raise forbidden("This upload address is incomplete") from None
    expected = _sign(store, f"{namespace}/{name}", oid, size, expires)
    if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
        raise forbidden("This upload address is not signed by this server")
    if expires < time.time():
        raise forbidden("This upload address has expired")
    repo = store.repository(namespace, name)
    if repo is None:
        raise HubError(404, "Repository not found", code="RepoNotFound")
    return repo, oid, size


async def _receive(request: Request, writer: BlobWriter, size: int) -> None:
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


def _sign(store: Store, repo_id: str, oid: str, size: int, expires: int) -> str:
    message = f"{repo_id}\n{oid}\n{size}\n{expires}".encode()
    return hmac.new(store.secret, message, hashlib.sha256).hexdigest()
