"""A repository as the Hub has it at one commit: its files, and reading the small ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fluxconv.converters.errors import HubError, HubRefused
from fluxconv.converters.variant import is_safe_path
from fluxconv.hub.errors import clean, hub_errors
from fluxconv.hub.session import Session

if TYPE_CHECKING:
    from fluxconv.hub.publication import PublishedFile

#: Manifests, reports and cards are far below this; what is not is not read into memory.
LARGEST_TEXT = 32 << 20
#: The Hub's own limit on a repository.
_MOST_FILES = 100_000
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """One file; a large one has a sha256, any other the name that git gives its content."""

    path: str
    size: int
    oid: str
    sha256: str | None

    def holds(self, file: PublishedFile) -> bool:
        """Whether it has the same content as a file of ours."""
        if self.size != file.record.size:
            return False
        return self.sha256 == file.record.sha256 if self.sha256 else self.oid == file.git_oid


@dataclass(frozen=True)
class RemoteRepository:
    """A repository at its newest commit. How it can be seen is known of its head only; `gated` is
    `auto`, `manual` or None."""

    name: str
    commit: str
    files: Mapping[str, RemoteFile]
    private: bool | None = None
    gated: str | None = None


def read_repository(session: Session, name: str) -> RemoteRepository | None:
    """The repository at the head of its main branch, None if there is none that we can see.

    Raises `HubUnreachable`, `HubRefused` or `HubError`.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with hub_errors(name):
        try:
            info = session.api.model_info(name)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError as error:
            # Without a token the Hub answers 401 for what does not exist, too.
            if error.response.status_code == 401 and session.token is not None:
                raise
            return None
        if info.id.lower() != name.lower():
            raise HubRefused(
                f"{name}: has been renamed to {info.id} on the Hub; rename it back first"
            )
        if not info.sha or not _COMMIT.fullmatch(info.sha):
            raise HubError(f"{name}: the Hub names no commit of it")
        found = read_commit(session, name, info.sha)
        return replace(found, private=info.private, gated=info.gated or None)


def read_commit(session: Session, name: str, commit: str) -> RemoteRepository:
    """The repository at a commit; raises as `read_repository` does."""
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(name):
        entries = session.api.list_repo_tree(name, recursive=True, revision=commit)
        files: dict[str, RemoteFile] = {}
        for entry in entries:
            if not (is_safe_path(entry.path) and entry.path.isprintable()):
                raise HubError(f"{name}: the Hub lists an impossible name, '{clean(entry.path)}'")
            if isinstance(entry, RepoFile):
                sha256 = entry.lfs.sha256 if entry.lfs else None
                files[entry.path] = RemoteFile(entry.path, entry.size, entry.blob_id, sha256)
            if len(files) > _MOST_FILES:
                raise HubError(f"{name}: the Hub lists more than {_MOST_FILES} files of it")
    return RemoteRepository(name, commit, files)


def read_text(session: Session, repository: RemoteRepository, path: str) -> bytes:
    """The content of a small file, checked against the tree; raises `HubError` if it is not."""
    parts: list[bytes] = []
    if repository.files[path].size > LARGEST_TEXT:
        raise HubError(f"{repository.name}/{path}: is too large to be what its name says")
    fetch(session, repository, path, parts.append)
    return b"".join(parts)


def fetch(
    session: Session, repository: RemoteRepository, path: str, write: Callable[[bytes], object]
) -> str:
    """Stream a file to `write` in pieces, checked against the tree; returns its sha256.

    Never passes on more bytes than the tree says the file has. Raises `HubError` if the content is
    not what the tree says, and as `read_repository` does.
    """
    from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

    from fluxconv.hub.transport import watched

    expected = repository.files[path]
    where = f"{repository.name}/{path}"
    url = hf_hub_url(repository.name, path, revision=repository.commit, endpoint=session.endpoint)
    # As it is stored: a server that compresses would make sizes and hashes incomparable.
    headers = {"Accept-Encoding": "identity"}
    if session.token is not None:
        headers["Authorization"] = f"Bearer {session.token}"
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {expected.size}\0".encode(), usedforsecurity=False)
    size = 0
    with hub_errors(where), get_session().stream("GET", url, headers=headers) as response:
        hf_raise_for_status(response)
        for piece in watched(response.iter_bytes(), session.timeout):
            size += len(piece)
            if size > expected.size:
                break
            sha256.update(piece)
            git.update(piece)
            write(piece)
    matches = (
        sha256.hexdigest() == expected.sha256
        if expected.sha256
        else git.hexdigest() == expected.oid
    )
    if size != expected.size or not matches:
        raise HubError(f"{where}: what arrived is not what the Hub says it has; try again")
    return sha256.hexdigest()
