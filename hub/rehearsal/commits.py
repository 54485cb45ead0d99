"""Making commits: which files are large (``preupload``), and the commit itself."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal import pulls
from fluxconv.hub.rehearsal.call import Call
from fluxconv.hub.rehearsal.changes import Request, apply, read_request
from fluxconv.hub.rehearsal.errors import HubError, bad_request, revision_not_found
from fluxconv.hub.rehearsal.events import OPEN
from fluxconv.hub.rehearsal.names import check_file_path, is_short_sha
from fluxconv.hub.rehearsal.repository import HEADS, PULLS, Commit, Repository
from fluxconv.hub.rehearsal.upload_modes import is_ignored, is_large

_MAX_FILES = 1000


def preupload(call: Call) -> Response:
    """``POST /api/models/NS/NAME/preupload/REV``: large or regular, ignored, already there?"""
    repo = _target_repository(call)
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
    repo = _target_repository(call)
    revision = call.parameter("revision")
    if revision.startswith(f"refs/{PULLS}/"):
        kind, branch = PULLS, revision.removeprefix(f"refs/{PULLS}/")
    else:
        kind, branch = HEADS, revision.removeprefix(f"refs/{HEADS}/")
    if repo.ref(kind, branch) is None:
        raise revision_not_found(branch)
    request = read_request(call.store, repo, call.body)
    if _is_proposed(call):
        return _propose(call, repo, branch, request)
    with repo.lock:
        pull = pulls.changeable(repo, branch, call.identity) if kind == PULLS else None
        commit = _commit(call, repo, kind, branch, request)
        if pull is not None:
            pulls.note_commit(repo, pull, commit)
    return JSONResponse(_answer(call, repo, commit))


def _propose(call: Call, repo: Repository, base: str, request: Request) -> Response:
    """The commit as a new pull request; with a parent commit it starts there."""
    author = call.identity.require_user()
    with repo.lock:
        start = repo.resolve(request.parent or f"refs/{HEADS}/{base}")
        pull = pulls.opened(repo, request.title, request.description, author, base, start, OPEN)
        number = str(pull["num"])
        try:
            commit = _commit(call, repo, PULLS, number, request)
        except BaseException:
            repo.delete_ref(PULLS, number)
            raise
        pulls.note_commit(repo, pull, commit)
    url = f"{call.base_url}/{repo.id}/discussions/{number}"
    return JSONResponse({**_answer(call, repo, commit), "pullRequestUrl": url})


def _commit(call: Call, repo: Repository, kind: str, branch: str, request: Request) -> Commit:
    return repo.advance(
        branch,
        kind=kind,
        author=call.identity.require_user(),
        title=request.title,
        description=request.description,
        change=lambda tree: apply(call.store, repo, request, tree),
        check=lambda head: _check_parent(request.parent, head),
    )


def _answer(call: Call, repo: Repository, commit: Commit) -> dict[str, Any]:
    return {
        "success": True,
        "commitOid": commit.sha,
        "commitUrl": f"{call.base_url}/{repo.id}/commit/{commit.sha}",
        "hookOutput": "",
    }


def _target_repository(call: Call) -> Repository:
    """The repository, if the one who asks may commit to the revision in the path."""
    proposed = _is_proposed(call) or call.parameter("revision").startswith(f"refs/{PULLS}/")
    return call.contributable_repository() if proposed else call.writable_repository()


def _is_proposed(call: Call) -> bool:
    return call.query.get("create_pr") in ("1", "true", "True")


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
