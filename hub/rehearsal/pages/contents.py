"""The contents of files: for the pictures of a card, and to download."""

from __future__ import annotations

from pathlib import PurePosixPath

from starlette.responses import Response

from fluxconv.hub.rehearsal import resolve
from fluxconv.hub.rehearsal.pages.visit import Visit

# An SVG as a picture runs nothing; opened by itself, the policy below keeps it from running.
PICTURES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def content(visit: Visit) -> Response:
    """``GET /-/file/NS/NAME/REV/PATH``: a picture is shown, anything else is downloaded."""
    response = resolve.resolve(visit.call)
    media_type = PICTURES.get(PurePosixPath(visit.call.parameter("path")).suffix.lower())
    if media_type is None or "download" in visit.request.query_params:
        disposition = response.headers["Content-Disposition"]
        response.headers["Content-Disposition"] = disposition.replace("inline", "attachment", 1)
        media_type = "application/octet-stream"
    response.headers["Content-Type"] = media_type
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
