"""Listing what a commit holds: folders, files, and when each last changed."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from fluxconv.hub.rehearsal.call import MAX_JSON, Call
from fluxconv.hub.rehearsal.errors import bad_request, entry_not_found
from fluxconv.hub.rehearsal.paging import asked, page
from fluxconv.hub.rehearsal.repository import Commit, File, Repository

_PAGE, _EXPANDED_PAGE = 1000, 50


def list_tree(call: Call) -> Response:
    """``GET /api/models/NS/NAME/tree/REV/PATH``: one folder, or everything below it."""
    repo = call.repository()
    commit = call.commit(repo)
    folder = call.parameter("path").strip("/") if "path" in call.request.path_params else ""
    folders = commit.folders()
    if folder not in folders:
        raise entry_not_found(f'"{folder}" does not exist on "{commit.sha}"', commit.sha)
    expanded = asked(call, "expand")
    prefix = f"{folder}/" if folder else ""
    deep = asked(call, "recursive")
    paths = [
        path
        for path in sorted({*commit.files, *folders})
        if path and path.startswith(prefix) and (deep or "/" not in path[len(prefix) :])
    ]
    changes = _last_changes(repo, commit) if expanded else None
    return page(
        call,
        paths,
        lambda path: _entry(commit, folders, path, changes),
        size=_EXPANDED_PAGE if expanded else _PAGE,
    )


def paths_info(call: Call) -> Response:
    """``POST /api/models/NS/NAME/paths-info/REV``: the named paths, without the missing ones."""
    repo = call.repository()
    commit = call.commit(repo)
    folders = commit.folders()
    paths, expanded = _requested_paths(call)
    changes = _last_changes(repo, commit) if expanded else None
    wanted = [path.strip("/") for path in paths]
    return JSONResponse(
        [
            _entry(commit, folders, path, changes)
            for path in dict.fromkeys(wanted)
            if path and (path in commit.files or path in folders)
        ]
    )


def describe_file(file: File) -> dict[str, Any]:
    """What the Hub says about a large file besides its hash and size."""
    if not file.lfs:
        return {}
    pointer_size = len(file.pointer)
    return {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": pointer_size}}


def _entry(
    commit: Commit,
    folders: dict[str, str],
    path: str,
    changes: dict[str, Commit] | None,
) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if changes is not None:
        last = changes[path]
        extra["lastCommit"] = {"id": last.sha, "title": last.title, "date": last.date}
    if path in folders:
        return {"type": "directory", "oid": folders[path], "size": 0, "path": path, **extra}
    file = commit.files[path]
    if changes is not None:
        # Nothing is scanned here; the client wants the field, and the Hub has this value for it.
        status = {"status": "unscanned", "avScan": None, "pickleImportScan": None}
        extra["securityFileStatus"] = status
    basic = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    return {**basic, **describe_file(file), **extra}


def _last_changes(repo: Repository, commit: Commit) -> dict[str, Commit]:
    """For each file and folder of the commit, the newest commit in which it became what it is."""
    changes: dict[str, Commit] = {}
    pending = _oids(commit)
    history = repo.history(commit)
    for current, older in zip(history, [*history[1:], None], strict=True):
        before = {} if older is None else _oids(older)
        for path, oid in list(pending.items()):
            if before.get(path) != oid:
                changes[path] = current
                del pending[path]
        if not pending:
            break
    return changes


def _oids(commit: Commit) -> dict[str, str]:
    return {**commit.folders(), **{path: file.oid for path, file in commit.files.items()}}


def _requested_paths(call: Call) -> tuple[list[str], bool]:
    # The client sends a form; the Hub also takes JSON.
    if "json" in call.request.headers.get("content-type", ""):
        body = call.json()
        value = body.data.get("paths")
        if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
            raise bad_request('"paths" must be an array of strings')
        return value, bool(body.flag("expand"))
    try:
        form = parse_qs(call.body.read(MAX_JSON).decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise bad_request("The request body is not a valid form") from None
    return form.get("paths", []), form.get("expand", ["false"])[-1].lower() in ("1", "true")
