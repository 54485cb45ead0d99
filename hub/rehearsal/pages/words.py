"""Sizes, times and addresses as the pages write them."""

from __future__ import annotations

import datetime
from urllib.parse import quote

from fluxconv.cards import figures


def address(path: str, *segments: str) -> str:
    """`path` and the segments after it as an address of ours; a `/` of a branch is encoded."""
    return quote(path) + "".join(f"/{quote(segment, safe='')}" for segment in segments)


def content_address(repo_id: str, revision: str, path: str) -> str:
    """Where the content of a file is for a browser, with a cookie in place of a token."""
    return address(f"/-/file/{repo_id}", revision) + "/" + quote(path)


def day(time: str) -> str:
    """A time of the Hub's as a day."""
    return f"{_parsed(time):%-d %b %Y}"


def moment(time: str) -> str:
    """A time of the Hub's to the minute."""
    return f"{_parsed(time):%-d %b %Y, %H:%M} UTC"


def plural(count: int, what: str) -> str:
    """`1 file`, `2 files`, `2 repositories`."""
    if count == 1:
        return f"1 {what}"
    return f"{count:,} {what[:-1]}ies" if what.endswith("y") else f"{count:,} {what}s"


def size(count: int) -> str:
    """Bytes, as the cards write them."""
    return "1 byte" if count == 1 else figures.size(count)


def _parsed(time: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
