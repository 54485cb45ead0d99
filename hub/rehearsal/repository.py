"""One repository on disk: its settings, its commits, its branches and tags.

``repo.json``             what it is called, who sees it
``commits/<sha1>.json``   one commit: parents, message, and every file of its tree
``refs/heads/<name>``     one branch, ``{"commit": sha1}``; the name is percent-encoded
``refs/tags/<name>``      one tag, the same
``refs/pr/<number>``      the branch of one pull request, the same
``discussions/<n>.json``  one discussion or pull request (see ``records.py``)
``access.json``           who asked for access, if it is gated (see ``records.py``)
``objects/<sha256>``      an empty file: this large content was uploaded to this repository

A commit becomes visible by the one rename that moves a branch; everything it needs was written
and flushed before.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fluxconv.hub.rehearsal.disk import Disk, make_folder, read_json
from fluxconv.hub.rehearsal.errors import repo_not_found, revision_not_found
from fluxconv.hub.rehearsal.gitobjects import commit_oid, folder_oids, lfs_pointer
from fluxconv.hub.rehearsal.names import is_sha1, is_short_sha

DEFAULT_BRANCH = "main"
HEADS = "heads"
TAGS = "tags"
PULLS = "pr"


@dataclass(frozen=True)
class File:
    """One file of a tree. ``oid`` is git's hash: of the content, or of a large file's pointer."""

    oid: str
    size: int
    sha256: str
    lfs: bool

    @property
    def pointer(self) -> bytes:
        """What git would store in place of a large file."""
        return lfs_pointer(self.sha256, self.size)

    @property
    def etag(self) -> str:
        """What the Hub calls the content: sha256 of a large file, git's hash of any other."""
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """One state of the repository and how it came about."""

    sha: str
    parents: tuple[str, ...]
    author: str
    timestamp: int
    title: str
    description: str
    files: Mapping[str, File]

    @property
    def date(self) -> str:
        """When, as the Hub writes times."""
        return hub_time(self.timestamp)

    def folders(self) -> dict[str, str]:
        """Git's hash of every folder; the root is ``""``."""
        return folder_oids({path: file.oid for path, file in self.files.items()})


class Repository:
    """The folder of one repository."""

    def __init__(self, disk: Disk, path: Path, repo_id: str) -> None:
        self._disk = disk
        self.path = path
        self.id = repo_id
        # Held by whoever reads a branch in order to move it.
        self.lock = threading.RLock()

    @property
    def namespace(self) -> str:
        """The user or organisation it belongs to."""
        return self.id.partition("/")[0]

    def settings(self) -> dict[str, Any]:
        """``repo.json``: ``private``, ``gated``, ``createdAt``, ``_id``."""
        settings = read_json(self.path / "repo.json")
        if settings is None:
            raise repo_not_found(anonymous=False)  # deleted while the request was under way
        return dict(settings)

    def change_settings(self, **changes: Any) -> dict[str, Any]:
        """Replace some settings; returns all."""
        with self.lock:
            settings = {**self.settings(), **changes}
            self._disk.write_json(self.path / "repo.json", settings)
        return settings

    def read(self, name: str) -> Any | None:
        """The JSON in a file of the folder, None if there is none."""
        return read_json(self.path / name)

    def write(self, name: str, data: Any) -> None:
        """Replace a file of the folder by JSON."""
        self._disk.write_json(self.path / name, data)

    # Commits ---------------------------------------------------------------------------------

    def commit(self, sha: str) -> Commit:
        """Read a commit by its full hash."""
        data = read_json(self.path / "commits" / f"{sha}.json")
        if data is None:
            raise revision_not_found(sha)
        files = {path: File(**file) for path, file in data.pop("files").items()}
        return Commit(**{**data, "parents": tuple(data["parents"]), "files": files})

    def add_commit(
        self,
        *,
        parents: tuple[str, ...],
        author: str,
        timestamp: int,
        title: str,
        description: str,
        files: Mapping[str, File],
    ) -> Commit:
        """Write a commit; no branch points at it yet."""
        message = f"{title}\n\n{description}" if description else title
        tree = folder_oids({path: file.oid for path, file in files.items()})[""]
        sha = commit_oid(tree, parents, author, timestamp, message)
        commit = Commit(sha, parents, author, timestamp, title, description, files)
        data = {
            **{name: value for name, value in vars(commit).items() if name != "files"},
            "files": {path: vars(files[path]) for path in sorted(files)},
        }
        self._disk.write_json(self.path / "commits" / f"{sha}.json", data)
        return commit

    def advance(
        self,
        branch: str,
        *,
        author: str,
        title: str,
        description: str,
        change: Callable[[dict[str, File]], Mapping[str, File]],
        check: Callable[[Commit], None] = lambda head: None,
        kind: str = HEADS,
    ) -> Commit:
        """Put a commit on a branch: ``change`` makes its tree out of the head's.

        ``check`` may refuse the head. Nobody else moves the branch meanwhile.
        """
        with self.lock:
            sha = self.ref(kind, branch)
            if sha is None:
                raise revision_not_found(branch)
            head = self.commit(sha)
            check(head)
            commit = self.add_commit(
                parents=(head.sha,),
                author=author,
                # Commits of one second keep their order, and none is older than its parent.
                timestamp=max(int(time.time()), head.timestamp),
                title=title,
                description=description,
                files=change(dict(head.files)),
            )
            self.set_ref(kind, branch, commit.sha)
        return commit

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, a tag, a pull request or a full or shortened hash means."""
        for kind in (HEADS, TAGS):
            name = revision.removeprefix(f"refs/{kind}/")
            sha = self.ref(kind, name)
            if sha is not None:
                return self.commit(sha)
        if revision.startswith(f"refs/{PULLS}/"):
            sha = self.ref(PULLS, revision.removeprefix(f"refs/{PULLS}/"))
            if sha is not None:
                return self.commit(sha)
        if is_sha1(revision):
            return self.commit(revision)
        if is_short_sha(revision):
            found = [p.stem for p in (self.path / "commits").glob(f"{revision}*.json")]
            if len(found) == 1:
                return self.commit(found[0])
        raise revision_not_found(revision)

    def history(self, commit: Commit) -> list[Commit]:
        """The commit and its ancestors, newest first."""
        commits = [commit]
        while commits[-1].parents:
            commits.append(self.commit(commits[-1].parents[0]))
        return commits

    # Branches and tags -----------------------------------------------------------------------

    def ref(self, kind: str, name: str) -> str | None:
        """The hash a branch or tag points at, or None."""
        path = self._ref_path(kind, name)
        data = read_json(path) if len(path.name) <= 255 else None
        return None if data is None else str(data["commit"])

    def refs(self, kind: str) -> dict[str, str]:
        """All branches or all tags, by name."""
        folder = self.path / "refs" / kind
        names = sorted(unquote(path.name) for path in folder.iterdir()) if folder.is_dir() else []
        refs = {name: self.ref(kind, name) for name in names}
        return {name: sha for name, sha in refs.items() if sha is not None}

    def set_ref(self, kind: str, name: str, sha: str, message: str = "") -> None:
        """Create or move a branch or tag: the one step that makes a commit visible."""
        self._disk.write_json(self._ref_path(kind, name), {"commit": sha, "message": message})

    def delete_ref(self, kind: str, name: str) -> None:
        """Remove a branch or tag that exists."""
        self._disk.delete(self._ref_path(kind, name))

    def _ref_path(self, kind: str, name: str) -> Path:
        # One flat folder: `a` and `a/b` can then both be branches, unlike in git, and no name
        # can leave the folder. A leading dot is encoded too, so `..` is harmless.
        encoded = quote(name, safe="").replace(".", "%2E") or "%"
        return self.path / "refs" / kind / encoded

    # Large files -----------------------------------------------------------------------------

    def has_object(self, sha256: str) -> bool:
        """Whether this large content was uploaded to this repository."""
        return (self.path / "objects" / sha256).exists()

    def objects(self) -> list[str]:
        """Every large content that was uploaded to this repository."""
        return [path.name for path in (self.path / "objects").iterdir()]

    def grant_object(self, sha256: str) -> None:
        """Remember that this large content was uploaded to this repository."""
        with self.lock:
            self.settings()  # a repository that was deleted meanwhile must not come back
            self.damaged_path(sha256).unlink(missing_ok=True)
            if not self.has_object(sha256):
                self._disk.write_bytes(self.path / "objects" / sha256, b"")

    def revoke_object(self, sha256: str) -> None:
        """Forget that this large content was uploaded: it will be asked for again."""
        with self.lock:
            (self.path / "objects" / sha256).unlink(missing_ok=True)

    # Harm done on purpose --------------------------------------------------------------------

    def damaged_path(self, sha256: str) -> Path:
        """Where the bytes lie that this repository gives out instead of the right ones, if any."""
        return self.path / "damaged" / sha256

    def rewrite_files(self, commit: Commit, files: Mapping[str, File]) -> None:
        """Change a commit's tree under its name, which no honest server does."""
        path = self.path / "commits" / f"{commit.sha}.json"
        data = read_json(path)
        described = {name: vars(files[name]) for name in sorted(files)}
        self._disk.write_json(path, {**(data or {}), "files": described})

    def create_folders(self) -> None:
        """The empty shape of a new repository."""
        for name in ("commits", "objects", f"refs/{HEADS}", f"refs/{TAGS}"):
            make_folder(self.path / name)


def hub_time(timestamp: float) -> str:
    """A time as the Hub writes it: UTC, milliseconds, ``Z``."""
    moment = datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
