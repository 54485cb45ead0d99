"""How a repository ends up once its content is verified: visibility, gating, and the seal.

The seal is a tag named after the published contents. It comes last, so a repository that has one is
complete; one that a killed push left private, without a seal, is finished by the same command, on
any machine: what it was to become stands in its commit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fluxconv.hub.errors import Unclear, hub_errors
from fluxconv.hub.publication import Publication
from fluxconv.hub.remote import RemoteRepository
from fluxconv.hub.repositories import is_empty
from fluxconv.hub.retrying import Retrying
from fluxconv.hub.session import Session

Gating = Literal["auto", "manual"]
#: How the tags that seal a finished push begin.
SEAL = "fluxconv-"
_TO_BE = re.compile(r"^Fluxconv-Visibility: (public|private)$", re.MULTILINE)


@dataclass(frozen=True)
class Ending:
    """What a repository is to be at the end; `gating` None asks nobody for consent."""

    private: bool
    gating: Gating | None
    tag: str

    @property
    def description(self) -> str:
        """What the commit says of it."""
        visibility = "private" if self.private else "public"
        return f"Made and checked with fluxconv.\n\nFluxconv-Visibility: {visibility}"


def tag_of(publication: Publication) -> str:
    """The seal's name: the same contents have the same, on every machine."""
    return f"{SEAL}{publication.digest[:12]}"


def ending_of(
    session: Session,
    publication: Publication,
    remote: RemoteRepository | None,
    *,
    private: bool | None,
    gated: Gating | Literal["off"] | None,
    upstream: Gating | None,
) -> Ending:
    """What the user asked for; where they said nothing, a new repository becomes public, and asks
    for consent if its source does. One that is finished stays as its owner has it, except that
    consent is asked for if the source asks for it."""
    tag = tag_of(publication)
    now = (remote.gated if remote else None) or None
    gating = now or upstream if gated is None else None if gated == "off" else gated
    if private is None:
        private = remote is not None and bool(remote.private) and not _is_half(session, remote)
    return Ending(private, gating, tag)  # type: ignore[arg-type]


def finish(
    session: Session, remote: RemoteRepository, ending: Ending, said: Callable[[str, str], object]
) -> None:
    """Make it so: visibility and gating in one request, then the seal. Raises `HubError`s."""
    name = remote.name
    with hub_errors(name):
        info = session.api.model_info(name)
        if (bool(info.private), info.gated or None) != (ending.private, ending.gating):
            # In one request: it is never public and open where it should ask for consent.
            session.api.update_repo_settings(
                name, private=ending.private, gated=ending.gating or False
            )
            gating = f", gated ({ending.gating})" if ending.gating else ""
            said("settings", ("private" if ending.private else "public") + gating)
    attempts = Retrying(session.timeout)
    while ending.tag not in tags(session, name):
        try:
            with hub_errors(name):
                session.api.create_tag(name, tag=ending.tag, revision=remote.commit, exist_ok=True)
        except Unclear:
            if not attempts.wait():
                raise
        else:
            said("tag", ending.tag)
            return


def tags(session: Session, name: str) -> tuple[str, ...]:
    """The repository's tags."""
    with hub_errors(name):
        return tuple(tag.name for tag in session.api.list_repo_refs(name).tags)


def _is_half(session: Session, remote: RemoteRepository) -> bool:
    """Whether a push that was to make this private repository public did not come to its end."""
    if is_empty(remote):
        return True
    if any(tag.startswith(SEAL) for tag in tags(session, remote.name)):
        return False
    with hub_errors(remote.name):
        newest = session.api.list_repo_commits(remote.name)[:1]
    meant = _TO_BE.search(newest[0].message) if newest else None
    return meant is not None and meant[1] == "public"
