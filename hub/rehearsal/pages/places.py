"""Where an address in a card leads, as seen from its place in a repository.

No address becomes a path on disk: a name in the commit's list of files is a file, and any other
is missing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from fluxconv.hub.rehearsal.pages.words import address, content_address
from fluxconv.hub.rehearsal.repository import File

#: What all names in a card begin with on our pages.
PREFIX = "card-"
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/(?:resolve|blob|raw)/[^/]+/(?P<path>.+)")
#: Where a link may lead to; `javascript:` and `data:` would do something here.
_SCHEMES = ("http", "https", "mailto")
_NOWHERE = SplitResult("invalid", "", "", "", "")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Place:
    """A text of a repository: the revision, its folder, and what it may refer to."""

    repo_id: str
    revision: str
    folder: str
    files: Mapping[str, File]
    host: str
    readable: bool

    def path(self, url: str) -> str | None:
        """The file or folder of this repository that an address means; None for anything else."""
        parts = split(url)
        path = unquote(parts.path)
        if not parts.scheme and not parts.netloc and not path.startswith("/"):
            return posixpath.normpath(posixpath.join(self.folder, path))
        if parts.netloc not in ("", self.host) or parts.scheme not in ("", "http", "https"):
            return None
        match = _FILE.fullmatch(path)
        return match["path"] if match and match["repo"] == self.repo_id else None

    def picture(self, url: str) -> str | None:
        """The address of a picture that is a file of the repository, else None."""
        path = self.path(url)
        if path is None or path not in self.files:
            return None
        return content_address(self.repo_id, self.revision, path)

    def link(self, url: str) -> str | None:
        """Where a link leads from our pages; None for what is not there or must not be followed."""
        path, parts = self.path(url), split(url)
        if path is None:
            return url if parts.scheme in ("", *_SCHEMES) else None
        if path in self.files:
            end = f"#{PREFIX}{parts.fragment}" if parts.fragment else ""
            return f"{address(f'/{self.repo_id}/blob', self.revision)}/{address(path)}{end}"
        tree = address(f"/{self.repo_id}/tree", self.revision)
        if path == ".":
            return tree
        is_folder = any(name.startswith(f"{path}/") for name in self.files)
        return f"{tree}/{address(path)}" if is_folder else None


def split(url: str) -> SplitResult:
    """The parts of an address; of one that has none, a scheme that nothing takes."""
    # Browsers skip control characters in an address, so that it may mean another than it says.
    if _CONTROL.search(url) or url != url.strip():
        return _NOWHERE
    try:
        return urlsplit(url)
    except ValueError:  # `http://[`
        return _NOWHERE
