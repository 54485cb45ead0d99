"""Writing to disk so that a crash leaves the old state or the new one, never something between.

One rule: nothing appears under its final name before it is complete and flushed. Files and
folders are built in ``tmp/`` of the same folder tree (so that ``rename`` stays within one file
system), fsynced, renamed, and the receiving folder is fsynced.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any


class Disk:
    """A folder with a ``tmp/`` in it, and atomic writes into the rest of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"

    def temporary(self) -> Path:
        """A fresh name in ``tmp/``; nothing is created."""
        return self.tmp / secrets.token_hex(16)

    def clear_temporaries(self) -> None:
        """Forget what an interrupted run left half-written."""
        for path in self.tmp.iterdir():
            remove(path)

    def write_json(self, path: Path, data: Any, *, mode: int = 0o644) -> None:
        """Replace ``path`` by ``data``, atomically and durably."""
        self.write_bytes(path, (json.dumps(data, indent=1) + "\n").encode(), mode=mode)

    def write_bytes(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Replace ``path`` by ``data``, atomically and durably."""
        temporary = self.temporary()
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb"
        ) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.move(temporary, path)

    def move(self, source: Path, target: Path) -> None:
        """Give a complete, flushed file or folder its final name."""
        make_folder(target.parent)
        source.replace(target)
        fsync_folder(target.parent)

    def delete(self, path: Path) -> None:
        """Remove a file or a whole folder in one step, then clean up at leisure."""
        trash = self.temporary()
        path.replace(trash)
        fsync_folder(path.parent)
        remove(trash)


def read_json(path: Path) -> Any | None:
    """The JSON at ``path``, or None when there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def make_folder(path: Path) -> None:
    """``mkdir -p`` that survives a crash right after it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Flush a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with everything in it; nothing there is fine too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
