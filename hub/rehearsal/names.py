"""What a repository, a file, a branch and a hash may be called.

Everything that becomes part of a path on disk passes through here first.
"""

from __future__ import annotations

import re

from fluxconv.hub.rehearsal.errors import bad_request

_SEGMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHORT_SHA = re.compile(r"[0-9a-f]{7,40}")
_OBJECT_ID = re.compile(r"[0-9a-f]{24}")
# What git refuses in a reference name, plus control characters.
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

MAX_NAME = 96
MAX_PATH = 1000
MAX_SEGMENT = 255
MAX_REF = 200


def is_repo_segment(name: str) -> bool:
    """Whether ``name`` can be a namespace or a repository name on the Hub."""
    return (
        len(name) <= MAX_NAME
        and _SEGMENT.fullmatch(name) is not None
        and "--" not in name
        and ".." not in name
        and not name.endswith(".git")
    )


def check_repo_name(name: str) -> str:
    """Return ``name`` or refuse it with the Hub's 400."""
    if not is_repo_segment(name):
        raise bad_request(
            f"Invalid repository name '{name}': use letters, digits, '-', '_' and '.', at most"
            f" {MAX_NAME} characters, no '--' or '..', not ending in '-', '.' or '.git'"
        )
    return name


def check_file_path(path: str) -> str:
    """Return ``path`` if a downloader can create it below a folder, everywhere; else 400."""
    problem = _path_problem(path)
    if problem is not None:
        raise bad_request(f"Invalid path in repository {path!r}: {problem}")
    return path


def is_file_path(path: str) -> bool:
    """Whether ``path`` could exist in a repository at all."""
    return _path_problem(path) is None


def _path_problem(path: str) -> str | None:
    segments = path.split("/")
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    if "\\" in path:
        return "it has a backslash"
    if _CONTROL.search(path):
        return "it has a control character"
    if "" in segments:
        return "it has an empty segment"
    if "." in segments or ".." in segments:
        return "it has a '.' or '..' segment"
    if any(segment.lower() == ".git" for segment in segments):
        return "'.git' is reserved"
    if re.match(r"[A-Za-z]:", path):
        return "it starts with a drive letter"
    if len(path) > MAX_PATH or any(len(s.encode()) > MAX_SEGMENT for s in segments):
        return "it is too long"
    return None


def check_ref_name(name: str) -> str:
    """Return the branch or tag name or refuse it with 400."""
    if (
        not name
        or len(name.encode()) > MAX_REF
        or _BAD_IN_REF.search(name)
        or name.startswith(("/", ".", "-"))
        or name.endswith(("/", "."))
        or name.startswith("refs/")
        or _SHA1.fullmatch(name)
    ):
        raise bad_request(f"Invalid reference name: {name!r}")
    return name


def is_number(text: str) -> bool:
    """A whole number of a reasonable size, as it stands in an address."""
    return text.isascii() and text.isdigit() and len(text) < 12


def is_sha1(text: str) -> bool:
    """A full commit hash."""
    return _SHA1.fullmatch(text) is not None


def is_short_sha(text: str) -> bool:
    """A commit hash that may be shortened to as few as 7 digits."""
    return _SHORT_SHA.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """A content hash."""
    return _SHA256.fullmatch(text) is not None


def is_object_id(text: str) -> bool:
    """The Hub's 24-digit identifiers of collections and their items."""
    return _OBJECT_ID.fullmatch(text) is not None
