"""Git's own hashes for files, folders and commits, computed without git.

The Hub's hashes are git's, and the client computes the same ones locally to find out what is
already there, so these have to be the real thing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

_FILE_MODE = b"100644"
_FOLDER_MODE = b"40000"


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git stores in place of a large file."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return text.encode()


def blob_oid(data: bytes) -> str:
    """The hash of a file's content."""
    return _oid(b"blob", data)


def folder_oids(files: Mapping[str, str]) -> dict[str, str]:
    """The hash of every folder of a tree given as path -> file hash; the root is ``""``."""
    tree: dict[str, dict[str, str | None]] = {"": {}}
    for path, oid in files.items():
        parent, _, name = path.rpartition("/")
        _enter(tree, parent)[name] = oid
    oids: dict[str, str] = {}
    # Children have more slashes than their parents: deepest first, root last.
    for folder in sorted(tree, key=lambda f: (f.count("/"), f != ""), reverse=True):
        prefix = f"{folder}/" if folder else ""
        entries = []
        for name, file_oid in tree[folder].items():
            encoded = name.encode()
            if file_oid is None:
                # Git sorts a folder as if its name ended in a slash.
                entries.append((encoded + b"/", _FOLDER_MODE, encoded, oids[prefix + name]))
            else:
                entries.append((encoded, _FILE_MODE, encoded, file_oid))
        body = b"".join(
            mode + b" " + name + b"\0" + bytes.fromhex(oid)
            for _, mode, name, oid in sorted(entries)
        )
        oids[folder] = _oid(b"tree", body)
    return oids


def commit_oid(tree: str, parents: Sequence[str], author: str, timestamp: int, message: str) -> str:
    """The hash of a commit."""
    who = f"{author} <{author}@users.noreply.rehearsal.invalid> {timestamp} +0000"
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    lines += [f"author {who}", f"committer {who}", "", message]
    return _oid(b"commit", "\n".join(lines).encode())


def _enter(tree: dict[str, dict[str, str | None]], folder: str) -> dict[str, str | None]:
    if folder not in tree:
        parent, _, name = folder.rpartition("/")
        tree[folder] = {}
        _enter(tree, parent)[name] = None
    return tree[folder]


def _oid(kind: bytes, body: bytes) -> str:
    return hashlib.sha1(kind + b" %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
