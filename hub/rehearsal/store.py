"""The folder that holds everything, and what it promises.

::

    DIR/
      hub.json                      format version; marks the folder as a rehearsal Hub's
      hub.lock                      held by the running server: one server a folder
      secret                        key that signs upload addresses
      accounts.json                 users, organisations, tokens
      blobs/ab/abcd...              contents by sha256, of all repositories, small and large
      repos/models/NS/NAME/         one repository (see ``repository.py``)
      collections/<24 hex>.json     one collection with its items
      uploads/NS/NAME/<random>/     parts of large files (see ``parts.py``)
      xet/NS/NAME/<random>/         Xet uploads that no commit has taken in yet (see ``xet.py``)
      tmp/                          everything half-done; emptied at start

The promise: whenever the server dies, also by ``kill -9``, a new one on the same folder serves
each repository and each collection in its complete old or its complete new state. Contents come
first, then the commit that names them, then, by one rename, the branch. Repositories appear and
disappear by one rename of their folder. Contents that no commit came to name stay as they are:
they cost space and are found again when the upload is repeated.

Changes to one repository are serialized by its lock, changes to collections by one lock;
readers need none, because nothing is ever changed in place.
"""

from __future__ import annotations

import fcntl
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from fluxconv.hub.rehearsal.accounts import DEFAULT_USER, Accounts
from fluxconv.hub.rehearsal.blobs import Blobs
from fluxconv.hub.rehearsal.disk import Disk, make_folder, read_json
from fluxconv.hub.rehearsal.gitobjects import blob_oid
from fluxconv.hub.rehearsal.limits import Limits
from fluxconv.hub.rehearsal.names import is_repo_segment
from fluxconv.hub.rehearsal.repository import (
    DEFAULT_BRANCH,
    HEADS,
    File,
    Repository,
    hub_time,
)
from fluxconv.hub.rehearsal.upload_modes import DEFAULT_GITATTRIBUTES

FORMAT = 1


class StoreError(Exception):
    """The folder cannot be used; the message says why."""


class Store:
    """Everything the server knows, on disk."""

    def __init__(
        self,
        directory: Path,
        *,
        user: str = DEFAULT_USER,
        organizations: Sequence[str] = (),
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self.limits = limits
        self.directory = directory.resolve()
        self.disk = Disk(self.directory)
        self._lock_file = self._open()
        self.accounts = Accounts(self.disk)
        self.accounts.create(user, organizations)
        self.blobs = Blobs(self.disk)
        self.secret = self._read_secret()
        self.collections_lock = threading.RLock()
        # One at a time: each needs memory and a processor of its own.
        self.rebuilding = threading.Lock()
        self._repos_lock = threading.Lock()
        self._repos: dict[str, Repository] = {}

    def close(self) -> None:
        """Let another server have the folder."""
        self._lock_file.close()

    # Repositories ----------------------------------------------------------------------------

    def repository(self, namespace: str, name: str) -> Repository | None:
        """The repository of that name, or None."""
        if not (is_repo_segment(namespace) and is_repo_segment(name)):
            return None
        path = self._repo_path(namespace, name)
        if not (path / "repo.json").is_file():
            return None
        return self._handle(f"{namespace}/{name}", path)

    def repositories(self) -> list[Repository]:
        """Every repository, by name."""
        found = sorted((self.directory / "repos" / "models").glob("*/*/repo.json"))
        return [self._handle(f"{p.parts[-3]}/{p.parts[-2]}", p.parent) for p in found]

    def create_repository(
        self, namespace: str, name: str, *, private: bool, author: str
    ) -> Repository | None:
        """Create it with the Hub's first commit; None when the name is taken."""
        building = Repository(self.disk, self.disk.temporary(), f"{namespace}/{name}")
        building.create_folders()
        now = int(time.time())
        self.disk.write_json(
            building.path / "repo.json",
            {
                "_id": secrets.token_hex(12),
                "private": private,
                "gated": False,
                "createdAt": hub_time(now),
            },
        )
        attributes = DEFAULT_GITATTRIBUTES.encode()
        sha256 = self.blobs.put(attributes)
        first = building.add_commit(
            parents=(),
            author=author,
            timestamp=now,
            title="initial commit",
            description="",
            files={".gitattributes": File(blob_oid(attributes), len(attributes), sha256, False)},
        )
        building.set_ref(HEADS, DEFAULT_BRANCH, first.sha)
        path = self._repo_path(namespace, name)
        with self._repos_lock:
            if path.exists():
                self.disk.delete(building.path)
                return None
            self.disk.move(building.path, path)
        return self.repository(namespace, name)

    def delete_repository(self, repo: Repository) -> None:
        """Remove a repository and what was being uploaded to it."""
        with repo.lock, self._repos_lock:
            if repo.path.exists():
                self.disk.delete(repo.path)
            for staging in (self.xet_folder(repo), self.uploads_folder(repo)):
                if staging.exists():
                    self.disk.delete(staging)

    def xet_folder(self, repo: Repository) -> Path:
        """Where Xet uploads to a repository wait for their commit."""
        return self.directory / "xet" / repo.id

    def uploads_folder(self, repo: Repository) -> Path:
        """Where the parts of large files wait to be put together."""
        return self.directory / "uploads" / repo.id

    def _handle(self, repo_id: str, path: Path) -> Repository:
        # One object for each name for ever, because its lock must be one.
        with self._repos_lock:
            return self._repos.setdefault(repo_id, Repository(self.disk, path, repo_id))

    def _repo_path(self, namespace: str, name: str) -> Path:
        return self.directory / "repos" / "models" / namespace / name

    # Opening ---------------------------------------------------------------------------------

    def _open(self) -> IO[str]:
        self.directory.mkdir(parents=True, exist_ok=True)
        marker = read_json(self.directory / "hub.json")
        if marker is None and any(self._strangers()):
            raise StoreError(
                f"{self.directory} is not empty and is not a rehearsal Hub's folder:"
                " name an empty or a new one"
            )
        if marker is not None and marker.get("format") != FORMAT:
            raise StoreError(
                f"{self.directory} has format {marker.get('format')}, this version reads {FORMAT}"
            )
        lock_file = (self.directory / "hub.lock").open("w")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.close()
            raise StoreError(f"another rehearsal Hub is already serving {self.directory}") from None
        for name in ("tmp", "blobs", "collections", "repos/models", "uploads", "xet"):
            make_folder(self.directory / name)
        self.disk.clear_temporaries()
        if marker is None:
            self.disk.write_json(self.directory / "hub.json", {"format": FORMAT})
        return lock_file

    def _strangers(self) -> list[str]:
        # A first start that was killed leaves these before ``hub.json``.
        ours = {"hub.lock", "tmp", "blobs", "collections", "repos", "uploads", "xet"}
        return [path.name for path in self.directory.iterdir() if path.name not in ours]

    def _read_secret(self) -> bytes:
        path = self.directory / "secret"
        if not path.exists():
            self.disk.write_bytes(path, secrets.token_bytes(32), mode=0o600)
        return path.read_bytes()
