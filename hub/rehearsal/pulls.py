"""Pull requests: a branch for each, and merging it into the one it was made for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from fluxconv.hub.rehearsal import events
from fluxconv.hub.rehearsal.accounts import Identity
from fluxconv.hub.rehearsal.errors import HubError, forbidden
from fluxconv.hub.rehearsal.records import discussion, set_discussion
from fluxconv.hub.rehearsal.repository import HEADS, PULLS, Commit, File, Repository
from fluxconv.hub.rehearsal.store import Store

# Of a longer text no difference is shown.
_MAX_TEXT = 1 << 20

Changes = dict[str, File | None]


def opened(
    repo: Repository,
    title: str,
    description: str,
    author: str,
    base: str,
    start: Commit,
    status: str,
) -> dict[str, Any]:
    """A new pull request that starts at a commit; the caller holds the lock and stores it."""
    facts = {"isPullRequest": True, "status": status, "base": base, "start": start.sha}
    data = events.opened(repo, title, description, author, **facts)
    repo.set_ref(PULLS, str(data["num"]), start.sha)
    return data


def head(repo: Repository, data: Mapping[str, Any]) -> Commit:
    """Where the pull request's branch stands."""
    return repo.resolve(f"refs/{PULLS}/{data['num']}")


def changeable(repo: Repository, number: str, identity: Identity) -> dict[str, Any]:
    """The pull request, if this user may add commits to it."""
    data = discussion(repo, int(number))
    if data is None or data["status"] == events.MERGED:
        raise forbidden(f"Forbidden: the pull request {number} of {repo.id} is not open")
    author = data["author"]["name"]
    if identity.user != author and not identity.may_write(repo.namespace):
        raise forbidden(f"Forbidden: only {author} and the owners of {repo.id} may change this")
    return data


def note_commit(repo: Repository, data: Mapping[str, Any], commit: Commit) -> None:
    """Tell of a commit in the pull request's history; it is stored with that."""
    facts = {"subject": commit.title, "oid": commit.sha}
    event = events.event_of("commit", commit.author, facts)
    set_discussion(repo, {**data, "events": [*data["events"], event]})


def merged(repo: Repository, data: Mapping[str, Any]) -> Commit:
    """One commit on the base with all the changes of the pull request; 409 if they conflict."""
    changes = _changes(repo.commit(data["start"]), head(repo, data))

    def change(tree: dict[str, File]) -> dict[str, File]:
        result = {path: file for path, file in tree.items() if path not in changes}
        return result | {path: file for path, file in changes.items() if file is not None}

    def check(base: Commit) -> None:
        if conflicts := _conflicts(repo, data, base, changes):
            raise HubError(409, f"The pull request conflicts in {', '.join(conflicts)}")

    return repo.advance(
        data["base"],
        author=data["author"]["name"],
        title=f"{data['title']} (#{data['num']})",
        description="",
        change=change,
        check=check,
    )


def details(
    store: Store, repo: Repository, data: Mapping[str, Any], *, with_diff: bool
) -> dict[str, Any]:
    """What the Hub says about a pull request besides what it says of every discussion."""
    start, end = repo.commit(data["start"]), head(repo, data)
    answer: dict[str, Any] = {
        "changes": {"base": f"refs/heads/{data['base']}"},
        "filesWithConflicts": [],
    }
    if "mergeCommitId" in data:
        answer["changes"]["mergeCommitId"] = data["mergeCommitId"]
    elif repo.ref(HEADS, data["base"]) is not None:
        base = repo.resolve(f"refs/heads/{data['base']}")
        answer["filesWithConflicts"] = _conflicts(repo, data, base, _changes(start, end))
    if with_diff:
        answer["diff"] = "".join(_diff(store, start, end))
    return answer


def _changes(start: Commit, end: Commit) -> Changes:
    return {
        path: end.files.get(path)
        for path in sorted({*start.files, *end.files})
        if start.files.get(path) != end.files.get(path)
    }


def _conflicts(
    repo: Repository, data: Mapping[str, Any], base: Commit, changes: Changes
) -> list[str]:
    theirs = _changes(repo.commit(data["start"]), base)
    return [path for path, file in changes.items() if path in theirs and theirs[path] != file]


def _diff(store: Store, start: Commit, end: Commit) -> Iterator[str]:
    for path, file in _changes(start, end).items():
        before = start.files.get(path)
        yield f"diff --git a/{path} b/{path}\n"
        yield from difflib.unified_diff(
            _lines(store, before),
            _lines(store, file),
            f"a/{path}" if before else "/dev/null",
            f"b/{path}" if file else "/dev/null",
        )


def _lines(store: Store, file: File | None) -> list[str]:
    if file is None:
        return []
    if file.lfs:
        content = file.pointer
    elif file.size <= _MAX_TEXT:
        content = store.blobs.get(file.sha256)
    else:
        return ["(a long text)\n"]
    return content.decode("utf-8", "replace").splitlines(keepends=True)
