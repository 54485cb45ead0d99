"""What a download is asked for: a repository, a file of it, a collection, or an address of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from fluxconv.cards.naming import is_hub_id
from fluxconv.converters.errors import UsageError
from fluxconv.converters.variant import is_safe_path
from fluxconv.hub.collection import is_slug

#: An address of a file has these words, and a revision, between repository and file.
_VIEW = re.compile(r"([^/]+/[^/]+)/(?:blob|resolve|raw|tree)/[^/]+/?(.*)")


@dataclass(frozen=True)
class Target:
    """A repository or collection, by its name or slug; `file` is the one that is wanted of it."""

    name: str
    file: str | None = None

    @property
    def is_collection(self) -> bool:
        return is_slug(self.name)


def parse_target(text: str) -> Target:
    """`OWNER/NAME`, `OWNER/NAME/FILE`, a collection's `OWNER/TITLE-ID`, or the address of one of
    them; raises `UsageError`."""
    path = unquote(urlsplit(text).path) if "://" in text else text
    path = path.strip("/").removeprefix("collections/")
    if is_slug(path) or is_hub_id(path):
        return Target(path)
    seen = _VIEW.fullmatch(path)
    repository, file = (seen[1], seen[2]) if seen else _split(path)
    if is_hub_id(repository) and not file and seen:
        return Target(repository)
    if is_hub_id(repository) and is_safe_path(file):
        return Target(repository, file)
    raise UsageError(
        f"'{text}' is neither a repository (OWNER/NAME), nor a file of one (OWNER/NAME/FILE.gguf), "
        "nor a collection (OWNER/TITLE-ID)"
    )


def _split(path: str) -> tuple[str, str]:
    owner, _, rest = path.partition("/")
    name, _, file = rest.partition("/")
    return f"{owner}/{name}", file if file.endswith(".gguf") else ""
