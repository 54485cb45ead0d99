"""What a repository keeps beside its commits: requests for access, discussions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluxconv.hub.rehearsal.repository import Repository

#: The state of a request for access that was granted.
ACCEPTED = "accepted"

_ACCESS = "access.json"
_DISCUSSIONS = "discussions"


def access_requests(repo: Repository) -> dict[str, dict[str, Any]]:
    """The requests for access to a gated repository, by user: id, state and time."""
    return dict(repo.read(_ACCESS) or {})


def set_access(repo: Repository, requests: Mapping[str, Any]) -> None:
    """Replace the requests for access."""
    repo.write(_ACCESS, requests)


def admits(repo: Repository, user: str | None) -> bool:
    """Whether a stranger may download its files."""
    request = access_requests(repo).get(user or "", {})
    return not repo.settings()["gated"] or request.get("status") == ACCEPTED


def discussion(repo: Repository, number: int) -> dict[str, Any] | None:
    """The discussion of that number, or None."""
    data: dict[str, Any] | None = repo.read(f"{_DISCUSSIONS}/{number}.json")
    return data


def all_discussions(repo: Repository) -> list[dict[str, Any]]:
    """All discussions and pull requests, oldest first."""
    paths = (repo.path / _DISCUSSIONS).glob("*.json")
    found = [discussion(repo, number) for number in sorted(int(path.stem) for path in paths)]
    return [data for data in found if data is not None]


def set_discussion(repo: Repository, data: Mapping[str, Any]) -> None:
    """Write a discussion, under its number."""
    repo.write(f"{_DISCUSSIONS}/{data['num']}.json", data)
