"""Large files over HTTP: the LFS batch endpoint and what it leads to.

The client asks for instructions (``batch``), sends each content to the address it was given, as a
whole (``upload``) or in parts (``parts.py``), and has it verified.
"""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal import parts, quota
from fluxconv.hub.rehearsal.addresses import addressed_repository, check_address, signed_address
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError, bad_request
from fluxconv.hub.rehearsal.names import is_sha256
from fluxconv.hub.rehearsal.receiving import receive
from fluxconv.hub.rehearsal.repository import Repository
from fluxconv.hub.rehearsal.store import Store

_MEDIA_TYPE = "application/vnd.git-lfs+json"
_MAX_OBJECTS = 1000
BASIC, MULTIPART = "basic", "multipart"


def batch(call: Call) -> Response:
    """``POST /NS/NAME.git/info/lfs/objects/batch``: how to upload each content."""
    repo = call.contributable_repository()
    body = call.json()
    if body.text("operation") != "upload":
        raise HubError(422, "Only the LFS operation 'upload' is supported; download by URL")
    if body.text("hash_algo") not in (None, "sha256"):
        raise HubError(409, "Only sha256 is supported")
    offered = body.data.get("transfers") or [BASIC]
    if not {BASIC, MULTIPART} & {*offered}:
        raise HubError(422, f"None of the transfers is supported: use {BASIC} or {MULTIPART}")
    wanted = dict(
        _content(item.text("oid"), item.number("size"))
        for item in body.objects("objects", limit=_MAX_OBJECTS)
    )
    missing = {k: size for k, size in wanted.items() if not has_content(call.store, repo, k, size)}
    quota.check(call.store, repo, sum(missing.values()))
    parts.sweep(call.store, repo)
    in_parts = {
        oid
        for oid, size in missing.items()
        if MULTIPART in offered and size > call.store.limits.multipart_above
    }
    objects: list[dict[str, Any]] = []
    for oid, size in wanted.items():
        answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        if oid in missing:
            upload = (parts.instructions if oid in in_parts else _instructions)(
                call, repo, oid, size
            )
            verify = f"{call.base_url}/{repo.id}.git/info/lfs/objects/verify"
            answer["actions"] = {"upload": upload, "verify": {"href": verify, "header": {}}}
        objects.append(answer)
    transfer = MULTIPART if in_parts else BASIC
    return JSONResponse({"transfer": transfer, "objects": objects}, media_type=_MEDIA_TYPE)


def verify(call: Call) -> Response:
    """``POST /NS/NAME.git/info/lfs/objects/verify``: did the content arrive?"""
    repo = call.contributable_repository()
    body = call.json()
    oid, size = _content(body.text("oid"), body.number("size"))
    if not has_content(call.store, repo, oid, size):
        raise HubError(404, f"Object {oid} of {size} bytes was not uploaded")
    return JSONResponse({}, media_type=_MEDIA_TYPE)


async def upload(store: Store, request: Request) -> Response:
    """``PUT /_lfs/NS/NAME/OID``: take the content in only if it is what was announced."""
    facts = await run_in_threadpool(check_address, store, request)
    repo = await run_in_threadpool(addressed_repository, store, request.path_params)
    oid = str(request.path_params["oid"])
    with store.blobs.writer() as writer:
        await receive(request, writer, int(facts["size"]))
        if writer.sha256 != oid:
            raise bad_request(f"The content's sha256 is {writer.sha256}, not {oid}")
        await run_in_threadpool(writer.keep)
    await run_in_threadpool(repo.grant_object, oid)
    return Response(status_code=200, headers={"ETag": f'"{oid}"'})


def has_content(store: Store, repo: Repository, oid: str, size: int) -> bool:
    """Whether the repository was given this content, in this size."""
    return repo.has_object(oid) and store.blobs.size(oid) == size


def _instructions(call: Call, repo: Repository, oid: str, size: int) -> dict[str, Any]:
    path = f"/_lfs/{repo.id}/{oid}"
    return {"href": signed_address(call.store, call.base_url, path, size=size), "header": {}}


def _content(oid: str | None, size: int | None) -> tuple[str, int]:
    if oid is None or not is_sha256(oid) or size is None:
        raise HubError(422, "Each object needs an 'oid' (sha256) and a 'size'")
    return oid, size
