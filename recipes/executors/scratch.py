"""An output that is a URL: a node works in a folder of its own machine, and brings what it made.

The folder begins with what the node's inputs brought, as far as it is about the node's own variant,
and is gone when the node ends. What a result says was brought is there, complete: it is said when
all of it is; and a variant's manifest is the last of its files to come, and the first to go.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from fluxconv.converters.errors import BadInput, MissingRequirement
from fluxconv.converters.manifest import MANIFEST_NAME
from fluxconv.recipes.graph import Node, Result

#: Under which name a result lists the files that its node brought, with the sizes they had.
BROUGHT = "brought"
#: Kinds that fill files together, where they lie.
_TOGETHER = ("part", "assemble")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://.+", re.ASCII)
_Seen = dict[str, tuple[int, int]]


def is_url(output: str) -> bool:
    """Whether an output is a URL, and not a path."""
    return _URL.fullmatch(output) is not None


def refuse_url(output: str, node: Node) -> None:
    """Raise `BadInput` for a URL that several machines do not share, or that this node cannot do
    with; `MissingRequirement` for one of a file system that is not installed."""
    if output.startswith(("memory://", "local://")):
        raise BadInput(f"{output}: is the memory of one process; choose an output that all share")
    if node.kind in _TOGETHER:
        raise BadInput(
            f"{output}: a pass in parts needs a folder that all machines share, as its parts fill "
            "files together; leave out --parts, or choose such a folder"
        )
    _open(output)


@contextmanager
def scratch(output: str, node: Node, inputs: Mapping[str, Result]) -> Iterator[Scratch]:
    """A folder for one node, with what its inputs brought."""
    with tempfile.TemporaryDirectory(prefix="fluxconv-scratch-") as name:
        made = Scratch(output, Path(name))
        made.fill(_needed(node, inputs))
        yield made


class Scratch:
    """A folder here that stands for the one at a URL."""

    def __init__(self, output: str, folder: Path) -> None:
        self.folder = folder
        self._fs, self._root = _open(output)
        self._before: _Seen = {}

    def fill(self, wanted: Iterable[str]) -> None:
        """Fetch files as they are there now; raises `BadInput` for one that is not."""
        for path in wanted:
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._fs.get_file(f"{self._root}/{path}", str(place))
            except FileNotFoundError:
                raise BadInput(f"{self._root}/{path}: is gone; run again to make it anew") from None
        self._before = self._seen()

    def bring(self) -> dict[str, int]:
        """Bring what is new or changed since `fill`; returns its paths and sizes."""
        seen = self._seen()
        news = [path for path, what in seen.items() if self._before.get(path) != what]
        news.sort(key=lambda path: (Path(path).name == MANIFEST_NAME, path))
        for path in news:
            if Path(path).name == MANIFEST_NAME and self._fs.exists(f"{self._root}/{path}"):
                self._fs.rm_file(f"{self._root}/{path}")
        for path in news:
            there = f"{self._root}/{path}"
            self._fs.makedirs(there.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(self.folder / path), there)
        return {path: seen[path][0] for path in news}

    def _seen(self) -> _Seen:
        """Every file but those that are only there while something is made."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if path.is_file() and not name.parts[0].startswith("."):
                about = path.stat()
                found[name.as_posix()] = (about.st_size, about.st_mtime_ns)
        return found


def stands_there(output: str, result: Result) -> bool:
    """Whether all that a node brought to a URL is there still, with its size."""
    fs, root = _open(output)
    brought: Mapping[str, int] = result.get(BROUGHT, {})
    try:
        return all(fs.size(f"{root}/{path}") == size for path, size in brought.items())
    except OSError:
        return False


def _needed(node: Node, inputs: Mapping[str, Result]) -> list[str]:
    """What a node needs of what was brought: a node about one variant does without the others."""
    variants = {name for result in inputs.values() for name in result.get("variants", ())}
    own = node.arguments.get("variant")
    brought = {path for result in inputs.values() for path in result.get(BROUGHT, {})}
    return sorted(
        path
        for path in brought
        if own is None or path.split("/")[0] == own or path.split("/")[0] not in variants
    )


def _open(output: str) -> tuple[Any, str]:
    fsspec = import_module("fsspec")  # it has no types
    try:
        fs, root = fsspec.core.url_to_fs(output)
    except ImportError as error:
        raise MissingRequirement(f"{output}: {error}") from error
    except ValueError as error:
        raise BadInput(f"{output}: {error}") from error
    return fs, str(root).rstrip("/")
