"""Downloads: ``resolve`` gives a file's content, ``raw`` what git stores for it."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from fluxconv.hub.rehearsal.blobs import CHUNK
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.errors import HubError, entry_not_found
from fluxconv.hub.rehearsal.repository import Commit, File, Repository

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# Shown as text, whatever it claims to be: a browser must not run what somebody uploaded.
_PLAIN = {"text/html", "application/xhtml+xml", "image/svg+xml", "text/javascript"}


def resolve(call: Call) -> Response:
    """``GET`` or ``HEAD /NS/NAME/resolve/REV/PATH``."""
    repo, commit, path, file = _find(call)
    headers = {
        "X-Repo-Commit": commit.sha,
        "ETag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
        "Content-Type": _content_type(path),
        "X-Content-Type-Options": "nosniff",
    }
    if file.lfs:
        headers["X-Linked-Etag"] = f'"{file.sha256}"'
        headers["X-Linked-Size"] = str(file.size)
    start, end = _requested_range(call.request.headers, file.size)
    partial = (start, end) != (0, file.size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    status = 206 if partial else 200
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    try:
        source = _stored(call, repo, file).open("rb")
    except FileNotFoundError:
        # Somebody removed it from the folder; the Hub would say this when its storage fails.
        raise HubError(503, f"The content of {path} is missing in storage") from None
    return StreamingResponse(_pieces(source, start, end), status, headers)


def raw(call: Call) -> Response:
    """``GET`` or ``HEAD /NS/NAME/raw/REV/PATH``: for a large file, its pointer."""
    _, commit, _, file = _find(call)
    if not file.lfs:
        return resolve(call)
    pointer = file.pointer
    return Response(
        pointer,
        headers={
            "X-Repo-Commit": commit.sha,
            "ETag": f'"{hashlib.sha1(pointer, usedforsecurity=False).hexdigest()}"',
            "Content-Type": "text/plain; charset=utf-8",
        },
    )


def _stored(call: Call, repo: Repository, file: File) -> Path:
    damaged = repo.damaged_path(file.sha256)
    return damaged if damaged.exists() else call.store.blobs.path(file.sha256)


def _find(call: Call) -> tuple[Repository, Commit, str, File]:
    repo = call.readable_repository()
    commit = call.commit(repo)
    path = call.parameter("path")
    file = commit.files.get(path)
    if file is None:
        raise entry_not_found("Entry not found", commit.sha)
    return repo, commit, path, file


def _requested_range(headers: Mapping[str, str], size: int) -> tuple[int, int]:
    """Start and end of what was asked for; everything when no single range was."""
    match = _RANGE.fullmatch(headers.get("range", ""))
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if first == "":
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _pieces(source: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    with source:
        source.seek(start)
        left = end - start
        while left > 0 and (piece := source.read(min(CHUNK, left))):
            left -= len(piece)
            yield piece


def _content_type(path: str) -> str:
    guessed = mimetypes.guess_type(path)[0]
    if guessed is None:
        return "application/octet-stream"
    if guessed in _PLAIN or guessed.startswith("text/"):
        return "text/plain; charset=utf-8"
    return guessed
