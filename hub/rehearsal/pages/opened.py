"""A repository at a commit, as whoever looks may see it."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxconv.hub.rehearsal import collections, discussions, repos
from fluxconv.hub.rehearsal.errors import HubError
from fluxconv.hub.rehearsal.metadata import MetadataError, read_metadata
from fluxconv.hub.rehearsal.pages.facts import Facts, facts_of
from fluxconv.hub.rehearsal.pages.places import Place
from fluxconv.hub.rehearsal.pages.visit import Visit
from fluxconv.hub.rehearsal.pages.words import address
from fluxconv.hub.rehearsal.records import access_requests
from fluxconv.hub.rehearsal.repository import DEFAULT_BRANCH, HEADS, TAGS, Commit, File, Repository

README = "README.md"
#: Texts above this are not shown, bytes; the API reads no longer cards.
MOST_TEXT = 1 << 20


@dataclass
class Opened:
    """What the pages of a repository have in common; `revision` as it stands in the address."""

    visit: Visit
    repo: Repository
    revision: str
    commit: Commit

    @classmethod
    def at(cls, visit: Visit, revision: str | None = None) -> Opened:
        """The repository in the address, at the revision in it or at another."""
        repo = visit.call.repository()
        if revision is None and "revision" in visit.request.path_params:
            revision = visit.call.parameter("revision")
        revision = revision or DEFAULT_BRANCH
        return cls(visit, repo, revision, repo.resolve(revision))

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """Visibility and gating."""
        return self.repo.settings()

    @property
    def owned(self) -> bool:
        """Whether it is the repository of whoever looks."""
        return self.visit.looker.identity.belongs_to(self.repo.namespace)

    @functools.cached_property
    def readable(self) -> bool:
        """Whether whoever looks is let through the gate."""
        try:
            self.visit.ask(repos.auth_check, self._path)
        except HubError:
            return False
        return True

    @property
    def waits(self) -> bool:
        """Whether whoever looks has asked to be let through the gate."""
        return (self.visit.looker.identity.user or "") in access_requests(self.repo)

    @property
    def size(self) -> int:
        """Bytes of all files of the commit, equal ones once."""
        return sum({file.sha256: file.size for file in self.commit.files.values()}.values())

    @functools.cached_property
    def readme(self) -> str | None:
        """The text of the card; None where there is none, or one that is too large for a card."""
        file = self.commit.files.get(README)
        return None if file is None else self.text(file)

    @functools.cached_property
    def metadata(self) -> dict[str, Any] | None:
        """The metadata of the card; None where there is none that can be read."""
        try:
            return read_metadata(self.readme or "")
        except MetadataError:
            return None

    @functools.cached_property
    def facts(self) -> Facts:
        """What the metadata says."""
        return facts_of(self.metadata or {})

    def text(self, file: File) -> str | None:
        """A file's content as text; None for what is no text, or too much of it."""
        if file.size > MOST_TEXT:
            return None
        content = self.visit.store.blobs.get(file.sha256)
        try:
            return None if b"\0" in content else content.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def place(self, path: str = README) -> Place:
        """Where a text of the repository is, for its links and pictures."""
        return Place(
            repo_id=self.repo.id,
            revision=self.revision,
            folder=posixpath.dirname(path),
            files=self.commit.files,
            host=self.visit.host,
            readable=self.readable,
        )

    def address(self, kind: str, path: str = "") -> str:
        """The page of a kind (`tree`, `blob`, `commits`) at this revision."""
        start = address(f"/{self.repo.id}/{kind}", self.revision)
        return f"{start}/{address(path)}" if path else start

    def revisions(self) -> list[tuple[str, list[str]]]:
        """Branches and tags, each by name."""
        found = [("Branches", [*self.repo.refs(HEADS)]), ("Tags", [*self.repo.refs(TAGS)])]
        return [(title, names) for title, names in found if names]

    @functools.cached_property
    def discussions(self) -> list[dict[str, Any]]:
        """What others said to it and asked to change, newest first."""
        return list(self.visit.ask(discussions.list_all, self._path)["discussions"])

    @property
    def _path(self) -> dict[str, str]:
        namespace, _, name = self.repo.id.partition("/")
        return {"namespace": namespace, "name": name}

    def collections(self) -> list[dict[str, Any]]:
        """The collections that show it."""
        query = {"item": f"models/{self.repo.id}", "limit": "100"}
        return list(self.visit.ask(collections.list_all, query=query))
