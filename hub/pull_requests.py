"""Proposing a publication to a repository of somebody else, as one pull request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fluxconv.converters.progress import Progress
from fluxconv.hub.committing import commit_lines, send_commit
from fluxconv.hub.errors import Moved, Unclear, hub_errors
from fluxconv.hub.publication import Publication
from fluxconv.hub.remote import RemoteRepository, read_commit
from fluxconv.hub.repositories import Change, holds, plan_change
from fluxconv.hub.retrying import Retrying
from fluxconv.hub.session import Session
from fluxconv.hub.uploading import Uploader, large_files, upload


def propose(
    session: Session,
    publication: Publication,
    remote: RemoteRepository,
    author: str,
    title: str,
    progress: Progress,
    uploader: Uploader,
    said: Callable[[str, str], object],
) -> tuple[str | None, Change]:
    """Open a pull request with the files that differ; nothing of theirs is deleted. Returns its
    address, None if the repository holds everything already, and what was sent.

    One of ours that is open already gets what it lacks in a further commit. Raises `HubError`s.
    """
    name = publication.repository
    attempts = Retrying(session.timeout)
    while True:
        number = _open_one(session, name, author, title)
        revision = f"refs/pr/{number}" if number else "main"
        base = _read(session, name, revision) if number else remote
        change = plan_change(publication, base, ())
        if holds(base, publication):
            return (f"{session.endpoint}/{name}/discussions/{number}" if number else None), change
        files = change.upload
        large = large_files(session, name, files, create_pr=True)
        if big := [file for file in files if file.path in large]:
            progress.start(f"Uploading {name}", sum(file.record.size for file in big))
            upload(session, name, big, progress, uploader, create_pr=True)
            progress.finish()
        try:
            done = send_commit(
                session,
                name,
                commit_lines(files, large, ()),
                title,
                "Made and checked with fluxconv.",
                parent=base.commit,
                revision=revision,
                create_pr=not number,
            )
        except (Unclear, Moved):
            # The next round finds it, if it was opened after all.
            if not attempts.wait():
                raise
            continue
        address = f"{session.endpoint}/{name}/discussions/{number}" if number else done
        said("pull request", address)
        return address, change


def _open_one(session: Session, name: str, author: str, title: str) -> int | None:
    with hub_errors(name):
        found = session.api.get_repo_discussions(
            name, author=author, discussion_type="pull_request", discussion_status="open"
        )
        return next((each.num for each in found if each.title == title), None)


def _read(session: Session, name: str, revision: str) -> RemoteRepository:
    with hub_errors(name):
        commit = str(session.api.model_info(name, revision=revision).sha)
    return replace(read_commit(session, name, commit), commit=commit)
