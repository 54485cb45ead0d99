"""Making a repository hold a publication: uploads, then one explicit commit, read back.

The commit names the head that it was planned for, so the Hub takes it on top of nothing else. Where
no answer comes, nobody knows whether it was made: we look before we ask again, and a commit that
was made after all turns the second one away.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any

from fluxconv.converters.errors import HubError, HubRefused
from fluxconv.converters.progress import Progress
from fluxconv.hub.errors import Moved, Unclear, hub_errors
from fluxconv.hub.journal import Journal
from fluxconv.hub.publication import PublishedFile
from fluxconv.hub.remote import RemoteRepository, read_commit, read_repository
from fluxconv.hub.repositories import (
    Change,
    holds,
    plan_change,
    refuse_foreign,
    refuse_overwriting,
    remote_variants,
    verify,
)
from fluxconv.hub.retrying import Retrying
from fluxconv.hub.session import Session
from fluxconv.hub.uploading import Uploader, large_files, upload


def create(session: Session, name: str) -> RemoteRepository:
    """A new repository, private; one that has appeared meanwhile is handed back as it is."""
    attempts = Retrying(session.timeout)
    while True:
        error: HubError | None = None
        try:
            with hub_errors(name):
                _create(session, name)
        except Unclear as unclear:
            error = unclear
        found = read_repository(session, name)
        if found is not None:
            return found
        error = error or HubError(f"{name}: the Hub does not show it after creating it; try again")
        if not attempts.wait():
            raise error


def _create(session: Session, name: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        session.api.create_repo(name, repo_type="model", private=True)
    except HfHubHTTPError as error:
        # There is one, perhaps since a moment ago: whose it is will be looked at.
        if error.response.status_code != 409:
            raise


def publish(
    session: Session,
    change: Change,
    title: str,
    description: str,
    journal: Journal,
    progress: Progress,
    uploader: Uploader,
    *,
    replace: bool = False,
    said: Callable[[str, str], object],
) -> RemoteRepository:
    """Make the repository hold what the change was planned for; returns it as read back.

    `said` hears of each step that is done. Raises `Moved` if somebody else changed the same files
    meanwhile, `SourceChanged`, `HubUnreachable`, `HubRefused`, `HubError`.
    """
    publication, name = change.publication, change.publication.repository
    attempts = Retrying(session.timeout)
    while not change.is_empty:
        remote = change.remote
        assert remote is not None
        lines = _send_contents(session, change, journal, progress, uploader)
        try:
            commit = send_commit(session, name, lines, title, description, parent=remote.commit)
        except (Unclear, Moved) as error:
            fresh = read_repository(session, name)
            if fresh is None:
                raise HubError(f"{name}: is gone; run the same command again") from None
            # Nothing has happened to it (yet): a second commit for the same head is safe.
            if fresh.commit == remote.commit and not attempts.wait():
                raise error from None
            if holds(fresh, publication):
                said("commit", f"{fresh.commit} (its reply was lost)")
                return fresh
            refuse_overwriting(change, fresh)
            present = remote_variants(session, fresh)
            if not replace:
                refuse_foreign(fresh, present)
            change = plan_change(publication, fresh, present)
            continue
        except HubRefused:
            # Perhaps it has swept away what an earlier push had sent.
            journal.note("forgotten")
            raise
        journal.note("commit", commit=commit)
        said("commit", commit)
        found = read_commit(session, name, commit)
        verify(found, publication)
        said("verify", f"{len(publication.files)} files")
        return found
    assert change.remote is not None
    verify(change.remote, publication)
    return change.remote


def _send_contents(
    session: Session, change: Change, journal: Journal, progress: Progress, uploader: Uploader
) -> list[dict[str, Any]]:
    """Upload the large files; returns the lines of the commit."""
    name = change.publication.repository
    large = large_files(session, name, change.upload, create_pr=False)
    files = [file for file in change.upload if file.path in large]
    contents = {file.record.sha256 for file in files}
    if files and not journal.has_sent(contents):
        progress.start(f"Uploading {name}", sum(file.record.size for file in files))
        upload(session, name, files, progress, uploader, create_pr=False)
        progress.finish()
        journal.note("sent", contents=sorted(contents))
    return commit_lines(change.upload, large, change.delete)


def commit_lines(
    files: Iterable[PublishedFile], large: frozenset[str], delete: Iterable[str]
) -> list[dict[str, Any]]:
    """The operations of a commit; raises `SourceChanged` for a file that is not what was hashed."""
    lines: list[dict[str, Any]] = []
    for file in files:
        if file.path in large:
            record = file.record
            value = {"algo": "sha256", "oid": record.sha256, "size": record.size}
            lines.append({"key": "lfsFile", "value": {"path": file.path, **value}})
        else:
            content = base64.b64encode(file.read()).decode()
            value = {"content": content, "encoding": "base64"}
            lines.append({"key": "file", "value": {"path": file.path, **value}})
    return lines + [{"key": "deletedFile", "value": {"path": path}} for path in delete]


def send_commit(
    session: Session,
    name: str,
    lines: list[dict[str, Any]],
    title: str,
    description: str,
    *,
    parent: str,
    revision: str = "main",
    create_pr: bool = False,
) -> str:
    """One commit on top of `parent`; returns its name, or the address of its pull request.

    The client's own `create_commit` would upload again what we have uploaded, ask again what we
    know, and cannot be told what to do after a lost reply. Raises `Unclear`, `Moved`, `HubError`s.
    """
    from urllib.parse import quote

    from huggingface_hub import get_session, hf_raise_for_status

    header = {"summary": title, "description": description, "parentCommit": parent}
    operations = [{"key": "header", "value": header}, *lines]
    with hub_errors(name):
        response = get_session().post(
            f"{session.endpoint}/api/models/{name}/commit/{quote(revision, safe='')}",
            params={"create_pr": "1"} if create_pr else None,
            headers={**session.headers(), "Content-Type": "application/x-ndjson"},
            content="".join(json.dumps(line) + "\n" for line in operations).encode(),
        )
        hf_raise_for_status(response, endpoint_name="commit")
        answer = response.json()
        return str(answer["pullRequestUrl" if create_pr else "commitOid"])
