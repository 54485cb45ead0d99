"""Making commits: which files are large (``preupload``), and the commit itself."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.changes import apply, read_request
from fluxconv.hub.rehearsal.errors import HubError, bad_request, revision_not_found
from fluxconv.hub.rehearsal.names import check_file_path, is_short_sha
from fluxconv.hub.rehearsal.repository import HEADS, Commit
from fluxconv.hub.rehearsal.upload_modes import is_ignored, is_large

_MAX_FILES = 1000


def preupload(call: Call) -> Response:
    """``POST /api/models/NS/NAME/preupload/REV``: large or regular, ignored, already there?"""
    repo = call.writable_repository()
    _refuse_pull_request(call)
    tree = call.commit(repo).files
    body = call.json()
    attributes = _text_file(call, tree.get(".gitattributes"))
    ignore_rules = body.text("gitIgnore", limit=1 << 20)
    if ignore_rules is None:
        ignore_rules = _text_file(call, tree.get(".gitignore"))
    answers = []
    for item in body.objects("files", limit=_MAX_FILES):
        path = check_file_path(item.required_text("path"))
        size = item.number("size") or 0
        try:
            sample = base64.b64decode(item.text("sample") or "", validate=True)
        except (binascii.Error, ValueError):
            raise bad_request(f"The sample of {path!r} is not valid base64") from None
        answer: dict[str, Any] = {
            "path": path,
            "uploadMode": "lfs" if is_large(path, size, sample, attributes) else "regular",
            "shouldIgnore": is_ignored(path, ignore_rules),
        }
        if path in tree:
            # The client drops a file whose content has this hash: nothing would change.
            answer["oid"] = tree[path].etag
        answers.append(answer)
    return JSONResponse({"files": answers})


def create(call: Call) -> Response:
    """``POST /api/models/NS/NAME/commit/BRANCH``: all operations or none."""
    repo = call.writable_repository()
    _refuse_pull_request(call)
    branch = call.parameter("revision").removeprefix(f"refs/{HEADS}/")
    if repo.ref(HEADS, branch) is None:
        raise revision_not_found(branch)
    request = read_request(call.store, repo, call.body)
    commit = repo.advance(
        branch,
        author=call.identity.require_user(),
        title=request.title,
        description=request.description,
        change=lambda tree: apply(call.store, repo, request, tree),
        check=lambda head: _check_parent(request.parent, head),
    )
    return JSONResponse(
        {
            "success": True,
            "commitOid": commit.sha,
            "commitUrl": f"{call.base_url}/{repo.id}/commit/{commit.sha}",
            "hookOutput": "",
        }
    )


def _check_parent(parent: str | None, head: Commit) -> None:
    if parent is None:
        return
    if not is_short_sha(parent):
        raise bad_request('"parentCommit" must be a commit hash of 7 to 40 digits')
    if not head.sha.startswith(parent):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")


def _text_file(call: Call, file: Any) -> str:
    if file is None or file.size > 1 << 20:
        return ""
    return call.store.blobs.get(file.sha256).decode("utf-8", "replace")


def _refuse_pull_request(call: Call) -> None:
    if call.query.get("create_pr") in ("1", "true", "True"):
        raise bad_request("The rehearsal Hub does not take pull requests")
