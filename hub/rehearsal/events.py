"""What a discussion is made of: its beginning, and the events after it."""

from __future__ import annotations

import secrets
import time
from typing import Any

from fluxconv.hub.rehearsal.records import all_discussions
from fluxconv.hub.rehearsal.repository import PULLS, Repository, hub_time

OPEN, CLOSED, MERGED, DRAFT = "open", "closed", "merged", "draft"


def opened(
    repo: Repository, title: str, description: str, author: str, **more: Any
) -> dict[str, Any]:
    """A new discussion with the next number; the caller holds the lock and stores it."""
    taken = [data["num"] for data in all_discussions(repo)] + [int(n) for n in repo.refs(PULLS)]
    return {
        "num": max(taken, default=0) + 1,
        "title": title,
        "author": {"name": author},
        "createdAt": hub_time(time.time()),
        "status": OPEN,
        "isPullRequest": False,
        "events": [comment_event(author, description)],
        **more,
    }


def event_of(kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
    """Something that happened in a discussion."""
    return {
        "id": secrets.token_hex(12),
        "type": kind,
        "createdAt": hub_time(time.time()),
        "author": {"name": author},
        "data": data,
    }


def comment_event(author: str, text: str) -> dict[str, Any]:
    """Something that somebody said."""
    latest = {"raw": text, "html": "", "updatedAt": hub_time(time.time())}
    facts = {"edited": False, "hidden": False, "latest": latest, "history": []}
    return event_of("comment", author, facts)
