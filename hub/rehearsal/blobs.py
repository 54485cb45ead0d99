"""Contents, named by their sha256 and shared by all repositories.

Large files and small ones are stored alike; whether a file is large is a fact about the commit
that mentions it, not about its bytes. A blob is only ever visible complete and verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fluxconv.hub.rehearsal.disk import Disk, remove

CHUNK = 1 << 20


class BlobWriter:
    """A content on its way in: hashed while it is written, nameless until ``keep``."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        self._path = disk.temporary()
        self._file = self._path.open("xb")
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append to the content."""
        self._file.write(chunk)
        self._sha256.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        """The hash of what has been written so far."""
        return self._sha256.hexdigest()

    def keep(self) -> str:
        """Flush the content and give it its name; returns the sha256."""
        name = self.sha256
        target = blob_path(self._folder, name)
        if target.exists():
            self.discard()
            return name
        self.keep_at(target)
        return name

    def keep_at(self, path: Path, *, durable: bool = True) -> None:
        """Give the content a name of the caller's, outside the folder of contents.

        It is flushed to the disk before, unless it need not survive the machine.
        """
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
            self._file.close()
            self._disk.move(self._path, path)
        else:
            self._file.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(path)

    def discard(self) -> None:
        """Forget the content; does nothing after ``keep``."""
        self._file.close()
        remove(self._path)


class Blobs:
    """The folder of contents."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._folder = disk.root / "blobs"

    def path(self, sha256: str) -> Path:
        """Where the content lies, or would lie."""
        return blob_path(self._folder, sha256)

    def size(self, sha256: str) -> int | None:
        """Bytes of the content, or None when we do not have it."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Take in a content in pieces; without ``keep`` nothing remains of it."""
        writer = BlobWriter(self._disk, self._folder)
        try:
            yield writer
        finally:
            writer.discard()

    def put(self, data: bytes) -> str:
        """Take in a small content; returns its sha256."""
        with self.writer() as writer:
            writer.write(data)
            return writer.keep()

    def get(self, sha256: str) -> bytes:
        """A small content as a whole."""
        return self.path(sha256).read_bytes()


def blob_path(folder: Path, sha256: str) -> Path:
    """Two digits as a folder, so that no folder gets too many entries."""
    return folder / sha256[:2] / sha256
