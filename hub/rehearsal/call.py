"""One request as the handlers see it: who asks, for what, with which body.

Handlers are plain functions from a ``Call`` to a response. They run in worker threads and may
block on the disk; the body has been received (into memory, or onto disk when it is large) before
they start.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import IO
from urllib.parse import unquote

from starlette.datastructures import QueryParams
from starlette.requests import Request

from fluxconv.hub.rehearsal.accounts import Identity
from fluxconv.hub.rehearsal.errors import (
    bad_request,
    forbidden,
    gated,
    repo_not_found,
)
from fluxconv.hub.rehearsal.fields import Fields
from fluxconv.hub.rehearsal.records import access_requests, admits
from fluxconv.hub.rehearsal.repository import Commit, Repository
from fluxconv.hub.rehearsal.store import Store

MAX_JSON = 32 << 20


@dataclass
class Call:
    """A request to an endpoint."""

    store: Store
    request: Request
    body: IO[bytes]

    @functools.cached_property
    def identity(self) -> Identity:
        """Who asks; 401 for an unknown token."""
        return self.store.accounts.identify(self.request.headers.get("authorization"))

    @property
    def query(self) -> QueryParams:
        """What stands behind the question mark."""
        return self.request.query_params

    @property
    def base_url(self) -> str:
        """The address under which the client reached us, without a final slash."""
        return str(self.request.base_url).rstrip("/")

    def parameter(self, name: str) -> str:
        """A part of the path, decoded. Routes match the undecoded path: a branch may hold ``/``."""
        try:
            return unquote(str(self.request.path_params[name]), errors="strict")
        except UnicodeDecodeError:
            raise bad_request("The URL is not valid UTF-8") from None

    def json(self) -> Fields:
        """The body, which must be a JSON object."""
        text = self.body.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise bad_request("The request body is too large")
        return Fields.parse(text)

    def repository(self) -> Repository:
        """The repository in the path, if the one who asks may see it."""
        repo = self.store.repository(self.parameter("namespace"), self.parameter("name"))
        if repo is None or not can_see(self.identity, repo):
            raise repo_not_found(anonymous=self.identity.anonymous)
        return repo

    def writable_repository(self) -> Repository:
        """The repository in the path, if the one who asks may change it."""
        repo = self.repository()
        refusal = f"Forbidden: you need a token with write access to {repo.id}"
        self.identity.require_write(repo.namespace, refusal)
        return repo

    def contributable_repository(self) -> Repository:
        """The repository in the path, if the one who asks may propose a change to it.

        That is everybody who sees it and whose token may write; for the upload itself the Hub
        does not ask whether a commit or a pull request will follow.
        """
        repo = self.repository()
        self.identity.require_contributor(f"Forbidden: you need a write token to push to {repo.id}")
        return repo

    def readable_repository(self) -> Repository:
        """The repository in the path, if the one who asks may download its files."""
        repo = self.repository()
        if not self.identity.belongs_to(repo.namespace) and not admits(repo, self.identity.user):
            waiting = (self.identity.user or "") in access_requests(repo)
            raise gated(repo.id, anonymous=self.identity.anonymous, waiting=waiting)
        return repo

    def commit(self, repo: Repository) -> Commit:
        """The commit that the path's ``revision`` means."""
        return repo.resolve(self.parameter("revision"))


def can_see(identity: Identity, repo: Repository) -> bool:
    """Whether the repository exists for this user."""
    return identity.belongs_to(repo.namespace) or not repo.settings()["private"]


def require_namespace(call: Call, namespace: str, refusal: str) -> str:
    """Pass a namespace in which the one who asks may create things."""
    call.identity.require_user()
    if not call.store.accounts.exists(namespace):
        raise forbidden(refusal)
    call.identity.require_write(namespace, refusal)
    return namespace
