"""Reading a commit request, line by line, and applying it to a tree.

The request is JSON lines: a header, then one operation a line. Small contents travel inside,
base64; they are stored as they are read, so that memory holds one line at a time.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from fluxconv.hub.rehearsal import quota, xet
from fluxconv.hub.rehearsal.errors import HubError, bad_request, entry_not_found
from fluxconv.hub.rehearsal.fields import Fields
from fluxconv.hub.rehearsal.gitobjects import blob_oid, lfs_pointer
from fluxconv.hub.rehearsal.metadata import check_readme
from fluxconv.hub.rehearsal.names import check_file_path, is_sha256
from fluxconv.hub.rehearsal.repository import File, Repository
from fluxconv.hub.rehearsal.store import Store

# A small file is at most 10 MiB, so 14 MiB in base64.
_MAX_LINE = 64 << 20

Tree = dict[str, File]
Operation = Callable[[Tree], None]


@dataclass
class Request:
    """What a commit request asks for."""

    title: str
    description: str
    parent: str | None
    operations: list[Operation] = field(default_factory=list)
    large: dict[str, int | None] = field(default_factory=dict)


def read_request(store: Store, repo: Repository, body: IO[bytes]) -> Request:
    """Read the whole request; every name, type and size in it is checked."""
    lines = _lines(body)
    header = next(lines, None)
    if header is None or header.text("key") != "header":
        raise bad_request('The first line of a commit must be its "header"')
    value = header.object("value")
    request = Request(
        title=value.required_text("summary"),
        description=value.text("description", limit=100_000) or "",
        parent=value.text("parentCommit"),
    )
    for line in lines:
        key = line.required_text("key")
        if key not in _READERS:
            raise bad_request(f"Unknown commit operation {key!r}")
        request.operations.append(_READERS[key](store, repo, line.object("value"), request))
    return request


def apply(store: Store, repo: Repository, request: Request, tree: Tree) -> Tree:
    """The tree after all operations, in their order."""
    new = [size or 0 for sha256, size in request.large.items() if not repo.has_object(sha256)]
    quota.check(store, repo, sum(new))
    xet.collect(store, repo, request.large)
    result = dict(tree)
    for operation in request.operations:
        operation(result)
    for path in result:
        parts = path.split("/")[:-1]
        for depth in range(len(parts)):
            above = "/".join(parts[: depth + 1])
            if above in result:
                raise bad_request(f"{above!r} would be a file and a folder at once")
    return result


def _lines(body: IO[bytes]) -> Iterator[Fields]:
    while line := body.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            raise HubError(413, "A file in the commit is too large: upload it as a large file")
        if line.strip():
            yield Fields.parse(line)


def _read_file(store: Store, repo: Repository, value: Fields, request: Request) -> Operation:
    path = check_file_path(value.required_text("path"))
    encoded = value.text("content", limit=_MAX_LINE) or ""
    encoding = value.choice("encoding", ("base64", "utf-8")) or "utf-8"
    try:
        data = base64.b64decode(encoded, validate=True) if encoding == "base64" else None
    except (binascii.Error, ValueError):
        raise bad_request(f"The content of {path!r} is not valid base64") from None
    data = encoded.encode() if data is None else data
    if path == "README.md":
        check_readme(data)
    file = File(blob_oid(data), len(data), store.blobs.put(data), lfs=False)
    return lambda tree: tree.update({path: file})


def _read_large(store: Store, repo: Repository, value: Fields, request: Request) -> Operation:
    path = check_file_path(value.required_text("path"))
    sha256, size = value.required_text("oid"), value.number("size")
    if value.text("algo") not in (None, "sha256") or not is_sha256(sha256):
        raise bad_request(f"The large file {path!r} needs a sha256 as its 'oid'")
    request.large[sha256] = size

    def put(tree: Tree) -> None:
        stored = store.blobs.size(sha256) if repo.has_object(sha256) else None
        if stored is None:
            raise bad_request(
                f"LFS pointer pointed to a file that does not exist: {path} ({sha256})"
            )
        if size not in (None, stored):
            raise bad_request(f"The large file {path!r} has {stored} bytes, not {size}")
        tree[path] = File(blob_oid(lfs_pointer(sha256, stored)), stored, sha256, lfs=True)

    return put


def _read_deletion(store: Store, repo: Repository, value: Fields, request: Request) -> Operation:
    path = check_file_path(value.required_text("path"))

    def delete(tree: Tree) -> None:
        if tree.pop(path, None) is None:
            raise entry_not_found(f"A file with this name doesn't exist: {path}")

    return delete


def _read_folder_deletion(
    store: Store, repo: Repository, value: Fields, request: Request
) -> Operation:
    path = check_file_path(value.required_text("path").rstrip("/"))

    def delete(tree: Tree) -> None:
        inside = [name for name in tree if name.startswith(f"{path}/")]
        if not inside:
            raise entry_not_found(f"A folder with this name doesn't exist: {path}")
        for name in inside:
            del tree[name]

    return delete


def _read_copy(store: Store, repo: Repository, value: Fields, request: Request) -> Operation:
    path = check_file_path(value.required_text("path"))
    source_path = check_file_path(value.required_text("srcPath"))
    revision = value.text("srcRevision")
    source_tree = None if revision is None else repo.resolve(revision).files

    def copy(tree: Tree) -> None:
        file = (tree if source_tree is None else source_tree).get(source_path)
        if file is None:
            raise entry_not_found(f"A file with this name doesn't exist: {source_path}")
        tree[path] = file

    return copy


_READERS: dict[str, Callable[[Store, Repository, Fields, Request], Operation]] = {
    "file": _read_file,
    "lfsFile": _read_large,
    "deletedFile": _read_deletion,
    "deletedFolder": _read_folder_deletion,
    "copyFile": _read_copy,
}
