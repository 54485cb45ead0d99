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


#: Short names of the Hub, for its own.
_NAMES = dict.fromkeys(("hf.co", "www.huggingface.co"), "https://huggingface.co")


@dataclass(frozen=True)
class Target:
    """A repository or collection, by its name or slug; `file` is the one that is wanted of it,
    `hub` the address of the Hub if an address was given."""

    name: str
    file: str | None = None
    hub: str | None = None

    @property
    def is_collection(self) -> bool:
        return is_slug(self.name)


def parse_target(text: str) -> Target:
    """`OWNER/NAME`, `OWNER/NAME/FILE`, a collection's `OWNER/TITLE-ID`, or the address of one of
    them; raises `UsageError`."""
    address = urlsplit(text) if "://" in text else None
    hub = _NAMES.get(address.netloc, f"{address.scheme}://{address.netloc}") if address else None
    path = unquote(address.path) if address else text
    path = path.strip("/").removeprefix("collections/")
    if is_slug(path) or is_hub_id(path):
        return Target(path, hub=hub)
    seen = _VIEW.fullmatch(path)
    repository, file = (seen[1], seen[2]) if seen else _split(path)
    if is_hub_id(repository) and not file and seen:
        return Target(repository, hub=hub)
    if is_hub_id(repository) and is_safe_path(file):
        return Target(repository, file, hub)
    raise UsageError(
        f"'{text}' is neither a repository (OWNER/NAME), nor a file of one (OWNER/NAME/FILE.gguf), "
        "nor a collection (OWNER/TITLE-ID)"
    )


def target_on(endpoint: str, text: str) -> Target:
    """The target that `text` names on the Hub at `endpoint`; raises `UsageError` for the address of
    something on another Hub."""
    target = parse_target(text)
    if target.hub is not None and target.hub.rstrip("/") != endpoint:
        raise UsageError(
            f"'{text}' lies on another Hub than {endpoint}; give --endpoint {target.hub}, or set "
            "HF_ENDPOINT"
        )
    return target


def _split(path: str) -> tuple[str, str]:
    owner, _, rest = path.partition("/")
    name, _, file = rest.partition("/")
    return f"{owner}/{name}", file if file.endswith(".gguf") else ""
